"""Measure a family of processes once: `python -P -m reproq_supervisor.process.memory_report --pid N`, one JSON frame out at descriptor 3.

A process of its own, since reading the memory map of a process may have to wait for that process, and the supervisor waits for nobody.
"""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil

from reproq_supervisor.core.frames import encode_message
from reproq_supervisor.process.memory import pss_bytes
from reproq_supervisor.process.prctl import set_pdeathsig
from reproq_supervisor.process.spawn import adopt_channel

_KINDS = ("supervisor", "shard", "nursery", "executor", "keeper", "web")


def main(arguments: list[str]) -> int:
    """Send `memory` about the process in *arguments* and all that descends from it; return the exit code."""
    match arguments:
        case ["--pid", pid] if pid.isdecimal():
            set_pdeathsig(signal.SIGKILL, parent_pid=int(pid))
            with adopt_channel() as channel:
                channel.sendall(encode_message(report(int(pid))))
            return 0
    sys.stderr.write(f"memory_report: expected --pid N, got {arguments}\n")
    return 2


def measure(pid: int) -> dict[str, dict[str, int | None]]:
    """Return, by kind of process: how many there are, the sum of what they have resident, and of their PSS (None: not all may be read)."""
    kinds: dict[str, dict[str, int | None]] = {}
    for kind, rss, pss in _family(pid):
        sums = kinds.setdefault(kind, {"processes": 0, "rss_bytes": 0, "pss_bytes": 0})
        for name, more in (("processes", 1), ("rss_bytes", rss), ("pss_bytes", pss)):
            so_far = sums[name]
            sums[name] = None if so_far is None or more is None else so_far + more
    return kinds


def _family(pid: int) -> Iterator[tuple[str, int, int | None]]:
    try:
        head = psutil.Process(pid)
        members = [head, *head.children(recursive=True)]
    except psutil.Error:
        return
    own = psutil.Process().pid
    kinds = {each.pid: _kind_of(each) for each in members}
    for each in members:
        try:
            kind = kinds[each.pid]
            # A fork has its nursery's title until it sets its own.
            if kind == "nursery" and kinds.get(each.ppid()) == "nursery":
                kind = "executor"
            rss = each.memory_info().rss
        except psutil.Error:
            continue  # gone meanwhile
        if each.pid != own and rss:
            yield kind, rss, pss_bytes(each.pid)


def _kind_of(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
        if title.startswith("reproq: "):
            kind = title.split()[1]
            return kind if kind in _KINDS else "other"
        return "postgres" if process.name() == "postgres" or title.startswith("postgres") else "other"
    except psutil.Error:
        return "other"


def report(pid: int) -> dict[str, Any]:
    """Return the message about the process *pid* and all that descends from it: sums over everything, and by kind."""
    kinds = measure(pid)
    pss = [each["pss_bytes"] for each in kinds.values()]
    total = None if None in pss else sum(each or 0 for each in pss)
    return {"type": "memory", "rss_bytes": sum(each["rss_bytes"] or 0 for each in kinds.values()), "pss_bytes": total, "kinds": kinds}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
