"""How much memory a family of processes really takes.

PSS (proportional set size) shares out every page among those who map it, so that the sum over processes that were forked from one
another is what the machine would get back, while the sum of their resident sizes counts what they share again and again.
"""

import re
from pathlib import Path

import psutil

_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


def pss_bytes(pid: int) -> int | None:
    """Return the PSS of a process; None when it is gone or of another user."""
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def family_pss_bytes(pid: int) -> dict[int, int]:
    """Return the PSS of *pid* by itself, and of each of its children with all that descends from it; empty when nothing can be read.

    What vanishes meanwhile is left out: the figures are of one moment, not of one instant.
    """
    try:
        head = psutil.Process(pid)
        families = {pid: [pid]} | {child.pid: [child.pid, *_descendants(child)] for child in head.children()}
    except psutil.Error:
        return {}
    sizes = {first: [size for each in pids if (size := pss_bytes(each)) is not None] for first, pids in families.items()}
    return {first: sum(found) for first, found in sizes.items() if found}


def _descendants(process: psutil.Process) -> list[int]:
    try:
        return [each.pid for each in process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
