"""Turns in recycling, shared by all shards of a pool, old generation and new.

A turn is a lock on one byte of a file that the shards have in common: at most `at_once` bytes are ever locked, whoever asks. The kernel
gives the locks of a dead shard back, so there is nobody to ask, nothing to renew and nothing to clean up (ADR 9).
"""

import fcntl
import os
from pathlib import Path


class PoolTurns:
    """The turns of one pool; `take_nowait` and `give_back` are told by number.

    Args:
      path: the file; None for a shard that shares nothing, which then counts only its own.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd: int | None = None
        self._own: set[int] = set()

    def take_nowait(self, at_once: int) -> int | None:
        """Return the number of a turn that is ours now, None when there is none left.

        Raises:
          OSError: the file cannot be opened, or locks cannot be had.
        """
        for number in range(at_once):
            # A process does not exclude itself: its own turns are told apart here.
            if number not in self._own and self._lock(number):
                self._own.add(number)
                return number
        return None

    def give_back(self, number: int) -> None:
        """Let somebody else have it."""
        self._own.discard(number)
        if self._fd is not None:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)

    def _lock(self, number: int) -> bool:
        if self._path is None:
            return True
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # POSIX lets the kernel choose either
            return False
        return True
