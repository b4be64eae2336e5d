"""How much memory one process would give back if it ended.

Its exact measurement walks every page table: 5 ms for 300 MiB. Its anonymous memory, which also counts pages that it still shares with the
process it was forked from, is a reading of two counters: 1.4 µs through a descriptor that is kept open.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PRIVATE = re.compile(rb"^Private_\w+:\s+(\d+) kB", re.MULTILINE)


def private_bytes(pid: int) -> int | None:
    """Return the memory that is *pid*'s alone; None when it is gone or may not be looked at."""
    try:
        found = _PRIVATE.findall(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
    except OSError:
        return None
    return sum(map(int, found)) * 1024 if found else None


class AnonymousMemory:
    """Reads the anonymous memory of a process again and again; the descriptor it keeps never means another process of the same pid."""

    def __init__(self, pid: int) -> None:
        self._fd: int | None = None
        with suppress(OSError):  # gone already
            self._fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read_bytes(self) -> int:
        """Return the bytes; 0 when it is gone."""
        if self._fd is None:
            return 0
        try:
            pages = os.pread(self._fd, 256, 0).split()
        except ProcessLookupError:
            return 0
        return (int(pages[1]) - int(pages[2])) * _PAGE_BYTES

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
