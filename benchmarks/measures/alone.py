"""The memory of a family of processes as if nobody else on the machine ran the same programs.

The proportional set divides the pages of a file among all who map it, strangers included: each other Python that runs makes the interpreter
look smaller. Here every page of a file that any of the family has mapped counts once, and whole. Other memory only a family shares.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES = 8
_PRESENT = 1 << 63
_OF_A_FILE = 1 << 61

Page = tuple[str, str, int]
"""Device, inode, number of the page in the file."""


def alone_mib(pids: Iterable[int]) -> float:
    """Return what the processes take together; they must be of our user, and live."""
    pages: set[Page] = set()
    total_bytes = 0
    for pid in pids:
        pages |= _file_pages(pid)
        total_bytes += _anonymous_bytes(pid)
    return (total_bytes + len(pages) * _PAGE_BYTES) / 2**20


def _anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/smaps_rollup: expected a line Pss_Anon, as newer kernels have it")


def _file_pages(pid: int) -> set[Page]:
    """Return the pages of files that *pid* has mapped and not written to."""
    found: set[Page] = set()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, _, offset, device, inode, *_ = line.split()
            if inode == "0":
                continue
            start, end = (int(edge, 16) for edge in span.split("-"))
            entries = os.pread(pagemap.fileno(), (end - start) // _PAGE_BYTES * _ENTRY_BYTES, start // _PAGE_BYTES * _ENTRY_BYTES)
            first = int(offset, 16) // _PAGE_BYTES
            found.update(
                (device, inode, first + at)
                for at, (entry,) in enumerate(struct.iter_unpack("Q", entries))
                if entry & _PRESENT and entry & _OF_A_FILE
            )
    return found
