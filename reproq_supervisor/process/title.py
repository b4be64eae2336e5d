"""Process titles: what `ps` shows instead of the command line.

The kernel shows the memory area of the original arguments; `prctl(PR_SET_MM)` needs privileges, so the text is written
over that area and cut to its length. The area is found in /proc/self/stat (fields 48 and 49: arg_start, arg_end).
"""

import ctypes
from pathlib import Path


class ProcessTitle:
    """Writes titles into the argument area, which is found once."""

    def __init__(self) -> None:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        # `fields` begins with field 3 of proc(5).
        self._start = int(fields[48 - 3])
        self._length = max(0, int(fields[49 - 3]) - self._start)
        self._last = ""

    def set(self, title: str) -> None:
        """Show *title*, cut to the room there is; control characters are dropped."""
        if title == self._last or self._length < 2 or not self._start:
            return
        self._last = title
        shown = title if title.isprintable() else "".join(c for c in title if c.isprintable())
        raw = shown.encode()[: self._length - 1]
        ctypes.memmove(self._start, raw.ljust(self._length, b"\0"), self._length)
