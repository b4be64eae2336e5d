"""The control socket's place in the file system: ours alone, never two daemons', never readable by others.

A lock beside the socket tells a living owner from a stale file: the kernel drops it when its holder dies. The lock file stays,
since removing it would let two daemons lock two files of one name.
"""

import fcntl
import os
import socket
import stat
from pathlib import Path

MAX_PATH_BYTES = 107
BACKLOG = 64


class AddressError(RuntimeError):
    """The control socket cannot be opened where it should be; the text says why and what to do."""


class Address:
    """Holds the lock and the listening socket until it is closed."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise AddressError(f"control socket {path}: expected at most {MAX_PATH_BYTES} bytes; set control.socket to a shorter path")
        self.path = Path(path)
        self._lock = _lock(self.path)
        try:
            self.listener, self._inode = _listen(self.path)
        except OSError as error:
            os.close(self._lock)
            raise AddressError(f"control socket {path}: cannot listen there: {error}") from error

    def close(self) -> None:
        """Stop listening and remove the socket, unless somebody has put another one there."""
        self.listener.close()
        try:
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        except OSError:
            pass  # removed by somebody else, or its folder is
        os.close(self._lock)


def _lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AddressError(f"control socket {path}: cannot lock {lock_path}: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AddressError(f"control socket {path}: another daemon has it; stop that one, or set control.socket to another path") from None
    return fd


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Listen at *path*, in the place of what a dead daemon left."""
    if os.path.lexists(path):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is no socket")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Mode 0600 from its first moment: a chmod afterwards would leave a gap.
    old_mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old_mask)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener, path.lstat().st_ino
