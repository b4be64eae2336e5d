"""The embedded PostgreSQL: everything up to the command line that runs it in the foreground, as a child of ours.

`prepare` runs before the daemon starts, and may block. What it returns can be run again and again: as *user*, through
`process.launch`, by whoever supervises it. The server listens on a Unix socket only, in a folder that none but its own user (and root)
may enter, so inside that folder everybody is trusted.

When it fails: a data folder appears by one rename of a complete one, so a crash during `initdb` leaves only a sibling that
the next start throws away; two starts at once wait for each other on a lock file.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reproq_supervisor.process.account import NoAccount, choose_account
from reproq_supervisor.process.data_dir import DataDirError, create_data_dir, major_of, wait_unused
from reproq_supervisor.process.places import (
    PlaceError,
    make_folders,
    make_private_dir,
    make_socket_dir,
    record_temporary,
    remove_left_behind,
    remove_temporary_dirs,
)
from reproq_supervisor.process.postgres_binaries import Binaries, BinariesMissing, copy_binaries, find_binaries
from reproq_supervisor.process.probe import PORT, SOCKET_NAME

DATABASE = "reproq"
SUPERUSER = "reproq"

# For a machine that has other things to do. Statements and row values never reach the log: they hold payloads.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "128MB",
    # Nothing outside the data folder, also after kill -9; and containers often have a tiny /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_compression": "on",
    "jit": "off",  # compiling costs more than any of our statements
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "postgres[%p]: ",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class EmbeddedError(RuntimeError):
    """The embedded database cannot be prepared; the message names the object and the remedy."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """How to run the embedded server.

    Attributes:
      argv: command line; argv[0] is the full path of `postgres`, which stays in the foreground.
      user: account to run it as, None for our own.
      data_dir: where the data really is; not what was asked for when that was out of the account's reach.
      temporary_dirs: private folders to remove when the server has ended for good.
      notice: what the operator should know, None when there is nothing.
    """

    argv: tuple[str, ...]
    user: str | None
    data_dir: str
    socket_dir: str
    dsn: str
    temporary_dirs: tuple[str, ...] = ()
    notice: str | None = None

    def as_settings(self) -> dict[str, Any]:
        """Return the `runtime.embedded` block of the resolved settings."""
        fields = asdict(self)
        return {key: fields[key] for key in ("argv", "user", "data_dir", "socket_dir", "temporary_dirs")}


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    runtime_dir: str | os.PathLike[str],
    bin_dir: Path | None = None,
    durable: bool = True,
) -> Embedded:
    """Make the data folder ready to be served, creating it if need be, and return how to serve it.

    Args:
      runtime_dir: existing folder for the socket; a short private one is made when its path is too long or closed to the account.
      bin_dir: server programs to use instead of the wheel's.
      durable: False is for tests: a crash of the machine may lose everything.

    Raises:
      EmbeddedError: with the reason and the remedy.
    """
    temporary: list[Path] = []
    try:
        return _prepare(Path(data_dir).resolve(), Path(runtime_dir).resolve(), bin_dir, durable, temporary)
    except (NoAccount, BinariesMissing, DataDirError, PlaceError) as error:
        remove_temporary_dirs(map(str, temporary))
        raise EmbeddedError(str(error)) from error
    except OSError as error:
        remove_temporary_dirs(map(str, temporary))
        raise EmbeddedError(f"{data_dir}: expected to prepare an embedded database there, got: {error}") from error


def _prepare(data_dir: Path, runtime_dir: Path, bin_dir: Path | None, durable: bool, temporary: list[Path]) -> Embedded:
    remove_left_behind(data_dir)
    binaries = find_binaries(bin_dir)
    account = choose_account(data_dir.stat().st_uid if major_of(data_dir) is not None else None)
    asked_for, notice = data_dir, None

    def private_dir() -> Path:
        if not temporary:
            temporary.append(make_private_dir(account))
            record_temporary(asked_for, temporary[0])
        return temporary[0]

    make_folders(data_dir.parent, account)
    if account is not None and not account.can_run(binaries.postgres):
        binaries = copy_binaries(binaries, account, private_dir())
    if account is not None and not account.can_enter(data_dir.parent):
        data_dir = private_dir() / "data"
        notice = (
            f"{asked_for}: user {account.name} cannot enter the folders above, and PostgreSQL refuses to run as root; the data is in "
            f"{data_dir} and goes when the daemon ends. To keep it, move the project or start as a normal user"
        )
    wait_unused(data_dir)
    create_data_dir(data_dir, binaries, account, superuser=SUPERUSER, durable=durable)
    socket_dir = make_socket_dir(runtime_dir, SOCKET_NAME, account) or private_dir()
    return Embedded(
        argv=_server_argv(binaries, data_dir, socket_dir, durable=durable),
        user=account.name if account else None,
        data_dir=str(data_dir),
        socket_dir=str(socket_dir),
        dsn=dsn_of(socket_dir, DATABASE),
        temporary_dirs=tuple(map(str, temporary)),
        notice=notice,
    )


def dsn_of(socket_dir: str | os.PathLike[str], database: str) -> str:
    """Return the libpq URL of *database*. It names port and user, so that PGPORT and PGUSER of the environment change nothing."""
    return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(os.fspath(socket_dir), safe='')}&port={PORT}"


def _server_argv(binaries: Binaries, data_dir: Path, socket_dir: Path, *, durable: bool) -> tuple[str, ...]:
    settings = {**SETTINGS, "unix_socket_directories": f'"{socket_dir}"'}
    if binaries.major >= 18:
        settings["io_method"] = "sync"  # three processes fewer
    if not durable:
        settings |= {"fsync": "off", "full_page_writes": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return (str(binaries.postgres), "-D", str(data_dir), *options)
