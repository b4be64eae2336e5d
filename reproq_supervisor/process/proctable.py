"""What /proc says of processes: children, names, open descriptors, threads."""

import os
from contextlib import suppress
from pathlib import Path


def children_of_self() -> list[int]:
    """Return the pids of our living and unreaped children, adopted ones included.

    Reads `/proc/self/task/*/children` where the kernel offers it, else every process's parent.
    """
    pids: list[int] = []
    try:
        for tid in os.listdir("/proc/self/task"):  # noqa: PTH208 - a nursery asks twice for every executor
            with open(f"/proc/self/task/{tid}/children", "rb", buffering=0) as file:
                pids += map(int, file.readall().split())
    except FileNotFoundError:
        me = os.getpid()
        return [pid for pid in _all_pids() if parent_of(pid) == me]
    return pids


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - thousands of entries


def children_of(pid: int) -> list[int]:
    """Return the pids of the living and unreaped children of *pid*; reads every process's parent."""
    return [each for each in _all_pids() if parent_of(each) == pid]


def programs_of(pid: int) -> list[int]:
    """Return what the main thread of *pid* has started and not reaped; none where the kernel does not tell."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """Return the parent of *pid*, 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def command_name(pid: int) -> str:
    """Return the kernel's name of *pid* (15 characters), '?' when it is gone. Never arguments: they may be secret."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def thread_names() -> list[str]:
    """Return the kernel's names of our threads; one entry means we may fork."""
    names = []
    for tid in os.listdir("/proc/self/task"):  # noqa: PTH208
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            names.append(Path(f"/proc/self/task/{tid}/comm").read_text().strip())
    return names


def open_sockets(allowed: frozenset[int]) -> list[str]:
    """Describe our open sockets whose descriptors are not in *allowed*, with the peer where it can be told."""
    import socket

    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        fd = int(name)
        if fd in allowed:
            continue
        try:
            if not str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("socket:"):
                continue
        except OSError:
            continue  # the descriptor of the listing itself
        copy = socket.socket(fileno=os.dup(fd))
        try:
            peer = str(copy.getpeername() or "a local peer")
        except OSError:
            peer = "no peer"
        finally:
            copy.close()
        found.append(f"descriptor {fd} ({peer})")
    return found
