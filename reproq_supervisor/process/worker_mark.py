"""Marks of workers: what proves to a later daemon that a worker is dead, with everything that could run a task under its id.

    shard: temporary file ─► lock ─► rename to <worker id> ─► descriptor to the nursery ─► inherited by every executor

The lock belongs to the open file, so the kernel drops it when the last process that has it is gone: shard, nursery and executors, in
whatever order and by whatever cause. A file under its final name has been locked since before it had that name, so one that somebody else
can lock is proof of death; nothing else is (a pid may be a stranger's by now, a nursery may still be ending).

When it fails: without a mark (a folder that cannot be written, a machine that lost its disk) the leases end by themselves.
"""

import fcntl
import os
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

_NEW = ".new-"
_ABANDONED_S = 60.0
MOST_LOOKED_AT = 256
"""More than one host has living shards, and a look at them takes a few milliseconds of whoever looks."""


def leave_mark(folder: str | os.PathLike[str], worker_id: str) -> int:
    """Make the mark of *worker_id*, which must not have claimed anything yet; return the descriptor that keeps it.

    Raises:
      OSError: it cannot be made there.
    """
    place = Path(folder)
    place.mkdir(mode=0o700, exist_ok=True)
    new = place / f"{_NEW}{worker_id}"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(place / worker_id)
        _sync(place)  # after a power failure it is wanted most
    except OSError:
        os.close(fd)
        raise
    return fd


def find_dead(folder: str | os.PathLike[str], prefix: str, *, known: Container[str] = ()) -> list[str]:
    """Return the ids of dead workers whose mark is still there: of the first `MOST_LOOKED_AT` that may be, so that a look is short.

    Args:
      prefix: what the ids of this host begin with. Locks of another host on a shared disk may be invisible here.
      known: ids that need no look.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are wanted
    except OSError:
        return []
    for name in names:
        if name.startswith(_NEW):
            _remove_abandoned(Path(folder) / name)
    ours = sorted(name for name in names if name.startswith(prefix) and not name.startswith(_NEW) and name not in known)
    return [name for name in ours[:MOST_LOOKED_AT] if _is_free(Path(folder) / name)]


def forget(folder: str | os.PathLike[str], worker_id: str) -> None:
    """Remove the mark of a dead worker whose leases were released."""
    if os.sep not in worker_id:
        (Path(folder) / worker_id).unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # removed by another daemon meanwhile, or not ours
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _remove_abandoned(path: Path) -> None:
    """Remove what a shard began that died within that very moment."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
