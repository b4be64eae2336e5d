"""What a machine can still take: how many executors are useful on it.

Pure. A pool whose tasks compute needs a processor for each executor, one whose tasks wait does not; how much of a processor one running
task *asks for* (its time on a processor and its time in the queue for one) says which it is, on a crowded machine as on an idle one.
"""

import math
from dataclasses import dataclass

CROWDED = 0.4
"""Part of the time in which somebody waited for a processor; from here on what computes does not grow."""
MEMORY_STALLED = 0.01
"""Part of the time in which nothing could run for want of memory; from here on nothing grows."""
SLEEPS_BELOW = 0.05
"""Who asks for less of a processor than this is bound by none."""
LEAST_PART = 0.5
"""Of what one executor takes of the processors so much must be left for one more, else it would mostly wait: tasks that compute ask for
0.97 of a processor or so, and for what two of them leave of two processors a third would be started."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How the machine was since the last look.

    Attributes:
      processors: that the executors may use; a part of one counts.
      crowded: part of the time in which somebody waited for a processor, 0 where the kernel does not tell.
      memory_stalled: part of the time in which everybody waited for memory.
      memory_left_bytes: what can be taken before the limit, None where there is none.
    """

    processors: float
    crowded: float = 0.0
    memory_stalled: float = 0.0
    memory_left_bytes: int | None = None


def share_of(asked: float | None, slots: int) -> float:
    """Return how many processors one executor takes: 0 when it mostly sleeps.

    Args:
      asked: of a processor by one running task, 0 to 1; None while unknown, which counts as all of one.
    """
    share = (1.0 if asked is None else asked) * slots
    return share if share >= SLEEPS_BELOW else 0.0


def useful_size(machine: Machine, size: int, *, asked: float | None, slots: int = 1, executor_bytes: int = 0) -> int | None:
    """Return how many executors are of use, None if there is no telling bound.

    Args:
      size: executors there are.
      asked: of a processor by one running task, 0 to 1; None while unknown, which counts as all of one.
      executor_bytes: what one more takes.
    """
    bounds: list[int] = []
    share = share_of(asked, slots)
    if share:
        bounds.append(max(1, math.floor(round(machine.processors / share + 1.0 - LEAST_PART, 6))))
        if machine.crowded > CROWDED and share > 0.5:
            bounds.append(size)
    if machine.memory_stalled > MEMORY_STALLED:
        bounds.append(size)
    if machine.memory_left_bytes is not None and executor_bytes > 0:
        bounds.append(size + max(0, machine.memory_left_bytes // executor_bytes))
    return min(bounds) if bounds else None
