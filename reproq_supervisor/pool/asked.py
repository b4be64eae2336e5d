"""How much of a processor the tasks of a pool ask for: its time on one, and its time in the queue for one, for each second that a task ran.

Executors that serve one task each are often forked, used and dead between two looks. So a process counts from its birth, and once more when
it is dead and not reaped; and a run counts for as long as it lasted, also one that no look has found. Else a pool of short tasks that
compute would seem to sleep, and grow while nothing is left to grow into.
"""

from collections.abc import Callable, Mapping

from reproq_supervisor.process.capacity import asked_ns

HALF_LIFE_S = 0.5
"""With two seconds a pool of tasks that compute took two, and not one, to have its size for a burst that sleeps."""
BELIEVED_FROM_S = 0.05
"""Seconds of running tasks that must have been seen before what they ask for is believed."""


class Asked:
    """How much of a processor one running task asks for, 0 to 1.

    Args:
      read_ns: what a process has asked for so far; 0 when it is gone.
    """

    def __init__(self, read_ns: Callable[[int], int] = asked_ns) -> None:
        self._read_ns = read_ns
        self._used_s = 0.0
        self._ran_s = 0.0
        # Since the last look: of processes that are dead, of runs that have ended.
        self._used_by_dead_s = 0.0
        self._ran_and_ended_s = 0.0
        self._last: dict[int, int] = {}
        self._last_ran: Mapping[int, float] = {}
        self._last_mono: float | None = None

    def note_exit(self, pid: int) -> None:
        """*pid* is dead, but not reaped: take what it asked for since the last look."""
        self._used_by_dead_s += max(0, self._read_ns(pid) - self._last.pop(pid, 0)) / 1e9

    def note_end(self, seq: int, elapsed_s: float) -> None:
        """A run has ended, after so long."""
        self._ran_and_ended_s += max(0.0, elapsed_s - self._last_ran.get(seq, 0.0))

    def by_each(self, pids: list[int], running: Mapping[int, float], now: float) -> float | None:
        """Look, and return the part: of the last few seconds of work, or since the last look if that is more; None until there was some.

        Tasks that have begun to compute are told by the last look already; those that no longer do are believed a little later.

        Args:
          running: for how long each of the runs under way has been running.
        """
        asked = {pid: self._read_ns(pid) for pid in pids}
        used_s = self._used_by_dead_s + sum(max(0, ns - self._last.get(pid, 0)) for pid, ns in asked.items()) / 1e9
        ran_s = self._ran_and_ended_s + sum(max(0.0, lasted - self._last_ran.get(seq, 0.0)) for seq, lasted in running.items())
        self._used_by_dead_s = self._ran_and_ended_s = 0.0
        before, self._last_mono, self._last, self._last_ran = self._last_mono, now, asked, running
        if before is None:
            return None
        kept = 0.5 ** ((now - before) / HALF_LIFE_S)
        self._used_s, self._ran_s = self._used_s * kept + used_s, self._ran_s * kept + ran_s
        return max(
            (min(1.0, used / ran) for used, ran in ((self._used_s, self._ran_s), (used_s, ran_s)) if ran >= BELIEVED_FROM_S), default=None
        )
