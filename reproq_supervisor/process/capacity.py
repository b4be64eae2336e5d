"""What this machine has: processors, memory that is left, how long somebody waited for either, and what one process asks for.

Sources: /proc/pressure and /proc/PID/schedstat of the kernel, and the control groups of this process where it is limited. A kernel without
pressure at least says how many processes could run at this moment: more than there are processors, look after look, is a crowd.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from reproq_supervisor.core.policy.capacity import Machine
from reproq_supervisor.process.control_group import find_groups, granted_processors, memory_left
from reproq_supervisor.process.proctable import programs_of

KEPT_FREE = 0.1
"""Part of the machine's memory that is left to others."""

RUNNABLE_HALF_LIFE_S = 2.0
_PRESSURE = Path("/proc/pressure")
_MEMINFO = Path("/proc/meminfo")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class MachineGauge:
    """Looks at the machine; pressure is counted from look to look.

    Args:
      cpus: processors that the executors are bound to; empty: all that this process may use.
    """

    def __init__(self, cpus: frozenset[int] = frozenset(), pressure: Path = _PRESSURE) -> None:
        usable = os.sched_getaffinity(0)
        self._groups = find_groups()
        self._processors = min(float(len(cpus & usable) or len(usable)), granted_processors(self._groups))
        cpu = pressure / "cpu"
        self._cpu: _Stalled | _Runnable = _Stalled(cpu, "some") if cpu.exists() else _Runnable(self._processors)
        self._memory = _Stalled(pressure / "memory", "full")

    def look(self) -> Machine:
        """Return how it was since the last look."""
        return Machine(self._processors, self._cpu.part(), self._memory.part(), _memory_left(self._groups))


class _Stalled:
    """Part of the time in which processes waited for one thing."""

    def __init__(self, path: Path, who: str) -> None:
        self._path = path
        self._who = who
        self._last = (time.monotonic(), self._total_s())

    def part(self) -> float:
        now, total = time.monotonic(), self._total_s()
        before, total_before = self._last
        self._last = (now, total)
        return min(1.0, max(0.0, (total - total_before) / max(now - before, 1e-3)))

    def _total_s(self) -> float:
        try:
            lines = self._path.read_text().splitlines()
        except OSError:  # a kernel without it
            return 0.0
        fields = next((line.split() for line in lines if line.startswith(self._who)), [])
        return next((int(field[6:]) / 1e6 for field in fields if field.startswith("total=")), 0.0)


class _Runnable:
    """Part of the latest looks that found more processes ready to run than there are processors; where the kernel counts no pressure."""

    def __init__(self, processors: float, path: Path = Path("/proc/loadavg")) -> None:
        self._processors = processors
        self._path = path
        self._part = 0.0
        self._last_mono = time.monotonic()

    def part(self) -> float:
        now = time.monotonic()
        kept = 0.5 ** ((now - self._last_mono) / RUNNABLE_HALF_LIFE_S)
        self._last_mono = now
        self._part = kept * self._part + (1.0 - kept) * (self._count() > self._processors)
        return self._part

    def _count(self) -> int:
        with suppress(OSError, ValueError, IndexError):
            # "0.20 0.18 0.12 3/153 30173": the fourth is what can run, this process included.
            return int(self._path.read_text().split()[3].partition("/")[0])
        return 0


def _memory_left(groups: Sequence[Path]) -> int | None:
    """Return the bytes that can be taken before the machine or a control group is full; None when nobody says."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in _MEMINFO.read_text().splitlines():
            name, value = line.split(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(value.split()[0]) * 1024
    left = [max(0, int(found["MemAvailable"] - KEPT_FREE * found["MemTotal"]))] if len(found) == 2 else []
    of_groups = memory_left(groups, KEPT_FREE)
    return min([*left, *([] if of_groups is None else [of_groups])], default=None)


def asked_ns(pid: int) -> int:
    """Return the nanoseconds for which threads of *pid* ran or waited for a processor; 0 when it is gone or the kernel does not count."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - four times a second, of every executor
    except OSError:
        return 0
    return sum(_asked_ns(f"/proc/{pid}/task/{thread}/schedstat") for thread in threads)


def asked_with_programs_ns(pid: int) -> int:
    """Return the same of *pid* and the programs that it runs; of those that have ended, the time that they ran."""
    asked = asked_ns(pid) + sum(map(asked_ns, programs_of(pid)))
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Fields 16 and 17 of proc(5), cutime and cstime; `fields` begins with the third.
        asked += (int(fields[13]) + int(fields[14])) * _TICK_NS
    return asked


def _asked_ns(schedstat: str) -> int:
    try:
        ran, waited, _ = Path(schedstat).read_text().split()
    except (OSError, ValueError):
        return 0
    return int(ran) + int(waited)
