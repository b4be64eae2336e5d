"""What the control groups of this process leave to it: its own and all above it, as systemd nests them. Version 2 of the kernel's files.

In a container its own is mostly the root that it sees; a service of systemd has its limits (CPUQuota, MemoryMax) deeper.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def find_groups(own: Path = _OWN, root: Path = _ROOT) -> list[Path]:
    """Return the folders of the group that this process is in and of those above it, the root last."""
    path = "/"
    with suppress(OSError):
        path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    # Of a group outside of what a container sees the kernel says "/../other".
    parts = [] if "/.." in path else [part for part in path.split("/") if part]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def granted_processors(groups: Sequence[Path]) -> float:
    """Return how many processors they grant, infinite when none limits them."""
    found = float("inf")
    for group in groups:
        with suppress(OSError, ValueError):  # "max 100000"
            quota, period = (group / "cpu.max").read_text().split()
            found = min(found, int(quota) / int(period))
    return found


def memory_left(groups: Sequence[Path], kept_free: float) -> int | None:
    """Return the bytes that can be taken before *kept_free* of a group's limit is left; None when none limits them.

    What the group has read of files, and could forget at once, counts as free: else a database beside us would seem to leave nothing.
    """
    left: list[int] = []
    for group in groups:
        with suppress(OSError, ValueError):  # "max"
            most, current = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
            left.append(max(0, int((1.0 - kept_free) * most) - max(0, current - _forgettable(group))))
    return min(left, default=None)


def _forgettable(group: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                return int(value)
    return 0
