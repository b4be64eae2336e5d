"""How much work to hold, and how much of it to hand to one executor ahead of time.

Short tasks are handed out in batches, so that an executor never waits for the shard; long ones one at a time, so that none waits behind
another. Both follow from the expected service time of each task.
"""

import math

AHEAD_S = 0.005
"""Estimated work that an executor may have in hand: a few milliseconds, the length of a wake-up of the shard on a busy machine."""
MOST_AHEAD = 64
MOST_AHEAD_BYTES = 256 * 1024
"""Payloads in hand, past the first: what is taken back again was sent for nothing, and stays in the socket."""
HOLD_S = 0.05
"""Estimated work that a shard holds for each executor: a few cycles, so that a commit does not leave executors idle."""
MOST_HELD = 256
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Payloads that a shard holds beyond one for each executor."""
UNKNOWN_S = 1.0
"""Service time of a task never seen: long enough to be handed out alone."""
PREFETCH_BELOW_S = 0.25
"""Tasks shorter than this are worth holding one more of than can run; a longer one would only wait here instead of in the database."""


class ServiceTimes:
    """Expected service time by task path: an exponential average, rising faster than it falls."""

    def __init__(self, most_paths: int = 1000) -> None:
        self._by_path: dict[str, float] = {}
        self._most_paths = most_paths

    def expected_s(self, path: str) -> float:
        """Return the expected seconds of one run of *path*."""
        return self._by_path.get(path, UNKNOWN_S)

    def observe(self, path: str, elapsed_s: float) -> None:
        """Take one more run into the average."""
        old = self._by_path.get(path)
        if old is None:
            if len(self._by_path) >= self._most_paths:
                self._by_path.clear()
            self._by_path[path] = elapsed_s
        else:
            # One slow run is a warning at once; trust returns slowly.
            weight = 0.3 if elapsed_s > old else 0.05
            self._by_path[path] = old + weight * (elapsed_s - old)


def hold_target(executors: int, service_s: float, size_bytes: float = 0.0) -> int:
    """Return how many runs a shard with *executors* should hold, running ones included, at *service_s* seconds and *size_bytes* each."""
    if service_s >= PREFETCH_BELOW_S:
        return executors
    each = math.ceil(HOLD_S / max(service_s, 1e-6)) + 1
    affordable = int(MOST_HELD_BYTES / max(size_bytes, 1.0))
    return max(executors, min(executors * min(each, MOST_HELD), affordable))


class Room:
    """How much more work fits into one executor's hands."""

    def __init__(self, most: int = MOST_AHEAD) -> None:
        self._most = most
        self._total_s = 0.0
        self._bytes = 0
        self._count = 0

    def fits(self, seconds: float, size_bytes: int) -> bool:
        """Answer whether a task of *seconds* may be handed out now: always when there is nothing in hand."""
        if not self._count:
            return True
        return self._count < self._most and self._total_s + seconds <= AHEAD_S and self._bytes + size_bytes <= MOST_AHEAD_BYTES

    def take(self, seconds: float, size_bytes: int) -> None:
        """Count one more task in."""
        self._total_s += seconds
        self._bytes += size_bytes
        self._count += 1

    @property
    def is_low(self) -> bool:
        """Whether more should be handed out now. Half of what fits is still enough: a hand-out of one task costs as much as one of many."""
        return self._count == 0 or (self._count < self._most / 2 and self._total_s < AHEAD_S / 2)
