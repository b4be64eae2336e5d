"""How much of a processor the tasks of a pool ask for: its time on one, and its time in the queue for one.

Executors that serve one task each are often forked, used and dead between two looks. So a process counts from its birth, and once more when
it is dead and not reaped: else a pool of short tasks that compute would seem to sleep, and grow while nothing is left to grow into.
"""

from collections.abc import Callable

from reproq_supervisor.process.capacity import asked_ns

HALF_LIFE_S = 2.0
BELIEVED_FROM_S = 0.25
"""Seconds of running tasks that must have been seen before what they ask for is believed."""


class Asked:
    """How much of a processor one running task asks for, 0 to 1, over the last few seconds of work.

    Args:
      read_ns: what a process has asked for so far; 0 when it is gone.
    """

    def __init__(self, read_ns: Callable[[int], int] = asked_ns) -> None:
        self._read_ns = read_ns
        self._used_s = 0.0
        self._used_by_dead_s = 0.0  # since the last look
        self._busy_s = 0.0
        self._last: dict[int, int] = {}
        self._last_mono: float | None = None
        self._last_running = 0

    def note_exit(self, pid: int) -> None:
        """*pid* is dead, but not reaped: take what it asked for since the last look."""
        self._used_by_dead_s += max(0, self._read_ns(pid) - self._last.pop(pid, 0)) / 1e9

    def by_each(self, pids: list[int], running: int, now: float) -> float | None:
        """Look, and return the part; None until tasks were seen running for a while."""
        asked = {pid: self._read_ns(pid) for pid in pids}
        if self._last_mono is not None:
            elapsed = now - self._last_mono
            kept = 0.5 ** (elapsed / HALF_LIFE_S)
            used_s = self._used_by_dead_s + sum(max(0, ns - self._last.get(pid, 0)) for pid, ns in asked.items()) / 1e9
            self._used_s = self._used_s * kept + used_s
            # How many ran in between is not known; half of those of both ends is.
            self._busy_s = self._busy_s * kept + elapsed * (running + self._last_running) / 2
        self._used_by_dead_s = 0.0
        self._last, self._last_mono, self._last_running = asked, now, running
        return min(1.0, self._used_s / self._busy_s) if self._busy_s >= BELIEVED_FROM_S else None
