"""Did the code that ran start processes?"""

import os
import resource

from reproq_supervisor.process import proctable


class Offspring:
    """Knows the processes started so far, as far as they can be seen; two system calls where there are none."""

    def __init__(self) -> None:
        self._reaped_faults = _reaped_faults()
        self._living: frozenset[int] = frozenset()

    def has_grown(self) -> bool:
        """Answer whether a process was started since the last call: one that lives, or one that was reaped and may have left others."""
        living = _living()
        faults = _reaped_faults()
        grown = faults != self._reaped_faults or not living <= self._living
        self._living, self._reaped_faults = living, faults
        return grown


def _living() -> frozenset[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    return frozenset(proctable.children_of_self())


def _reaped_faults() -> int:
    """Return the page faults of all children that were waited for: every process has some, so the sum tells of each."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
