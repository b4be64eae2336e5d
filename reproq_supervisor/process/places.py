"""Where the files of the embedded server go that are not its data: folders above, the socket's, a private temporary one."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reproq_supervisor.process.account import Account

MAX_SOCKET_PATH_BYTES = 107
TEMPORARY_PREFIX = "reproq-"
_MAX_PARENT_BYTES = 60  # leaves room for a name and a socket


class PlaceError(RuntimeError):
    """No folder of this machine will do."""


def make_folders(folder: Path, account: Account | None) -> None:
    """Make *folder* and what is missing above it; the account must be able to pass through, whatever our umask is."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if account is not None:
        for each in missing:
            each.chmod(0o711)


def make_socket_dir(runtime_dir: Path, socket_name: str, account: Account | None) -> Path | None:
    """Return a folder of the server's own in *runtime_dir*, None when its socket cannot live there."""
    folder = runtime_dir / "postgres"
    if len(os.fsencode(folder / socket_name)) > MAX_SOCKET_PATH_BYTES or '"' in str(folder):
        return None
    if account is not None and not account.can_enter(runtime_dir):
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    if account is not None:
        account.own(folder)
    return folder


def make_private_dir(account: Account | None) -> Path:
    """Make a folder with a short name that only the account (and root) may enter.

    Raises:
      PlaceError: no temporary folder of this machine is short and writable.
    """
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]  # noqa: S108 - mkdtemp below
    for parent in parents:
        if len(os.fsencode(parent)) > _MAX_PARENT_BYTES or not os.access(parent, os.W_OK | os.X_OK):
            continue
        if account is not None and not account.can_enter(parent):
            continue
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
        if account is not None:
            account.own(folder)
        return folder
    raise PlaceError(f"expected a writable temporary folder with a short path, tried {', '.join(map(str, parents))}; set TMPDIR")


def remove_temporary_dirs(folders: Iterable[str]) -> None:
    """Remove the folders that `make_private_dir` made for one run of the server; those already gone are fine."""
    for folder in folders:
        if Path(folder).name.startswith(TEMPORARY_PREFIX):  # never what an operator named
            shutil.rmtree(folder, ignore_errors=True)


def record_temporary(data_dir: Path, folder: Path) -> None:
    """Write down beside *data_dir* that this process will remove *folder*, for the case that it is killed before."""
    _record_path(data_dir).write_text(f"{os.getpid()} {_start_of(os.getpid())} {folder}\n")


def remove_left_behind(data_dir: Path) -> None:
    """Remove the private folder of a daemon that was killed; that of a living one is left alone."""
    record = _record_path(data_dir)
    try:
        pid, start, folder = record.read_text().rstrip("\n").split(" ", 2)
        if _start_of(int(pid)) == start:
            return
    except FileNotFoundError:
        return
    except ValueError:
        pass  # its writer was killed at it
    else:
        remove_temporary_dirs([folder])
    record.unlink(missing_ok=True)


def _record_path(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.temporary")


def _start_of(pid: int) -> str | None:
    """Return when *pid* started, in ticks since boot: with the pid it names a process for good, also across an exec."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
