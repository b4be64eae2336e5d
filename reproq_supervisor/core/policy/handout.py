"""How much work to hold, and how much of it to hand to one executor ahead of time.

Short tasks are handed out in batches, so that an executor never waits for the shard; long ones one at a time, so that none waits behind
another. Both follow from the expected service time of each task.
"""

import math

AHEAD_S = 0.005
"""Estimated work in an executor's hands for each of its slots: a few milliseconds, as a wake-up of the shard takes on a busy machine."""
MOST_AHEAD = 256
MOST_AHEAD_BYTES = 256 * 1024
"""Payloads in hand, past the first: what is taken back again was sent for nothing, and stays in the socket."""
HOLD_S = 0.05
"""Estimated work that a shard holds for each slot: a few cycles, so that a commit does not leave slots idle."""
MOST_HELD = 512
MOST_HELD_AT_ALL = 2048
"""By one shard, past one that waits for each slot: a few cycles of the most that it hands out. With 512 for each of 200 slots of a loop it
held a hundred thousand, and what was urgent waited for twenty seconds behind them."""
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Payloads that a shard holds beyond one for each slot."""
LONGEST_WAIT_S = 1.0
"""For a slot of this shard. Somebody else may have one, and what is urgent stands behind all that a shard holds."""
FEW_WAITING = 32
"""In a shard: not worth giving back at once, whatever they wait for; neither is one for each slot."""
FEW_WAIT_S = 10.0
"""How long these may wait. Claimed anew they come behind what is urgent."""
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


def hold_target(slots: int, service_s: float, size_bytes: float = 0.0) -> int:
    """Return how many runs a shard with *slots* should hold, running ones included, at *service_s* seconds and *size_bytes* each."""
    if service_s >= PREFETCH_BELOW_S:
        return slots
    each = math.ceil(HOLD_S / max(service_s, 1e-6)) + 1
    affordable = int(MOST_HELD_BYTES / max(size_bytes, 1.0))
    return max(slots, min(slots * min(each, MOST_HELD), max(2 * slots, MOST_HELD_AT_ALL), affordable))


class Patience:
    """Whether runs wait for too long in a shard that claimed them because those before them were short.

    How long those took says nothing of the first long one, nor of what it takes to begin one (a fork, where each has a process of its own).
    Once some have waited for too long fewer are held, and then slowly more again.
    """

    def __init__(self) -> None:
        self._most = math.inf

    def limit(self, target: int, slots: int) -> int:
        """Return how many of *target* runs may be held."""
        return target if target <= self._most else min(target, max(2 * slots, int(self._most)))

    def look(self, held: int, waiting: int, slots: int, waited_s: float) -> int:
        """Return how many of those that wait to give back: all but a few if the first has waited too long, all if much too long.

        Call it ten times a second.

        Args:
          held: running ones included.
          waited_s: how long the first in line has been here.
        """
        excess = waiting - (max(slots, FEW_WAITING) if waited_s <= FEW_WAIT_S else 0)
        if slots and excess > 0 and waited_s > LONGEST_WAIT_S:
            self._most = min(held - excess, held / 4)
            return excess
        self._most *= 1.01
        return 0


class Room:
    """How much more work fits into one executor's hands. A long task has its slot to itself; the others still get work ahead of time."""

    def __init__(self, slots: int = 1, most_ahead: int = MOST_AHEAD) -> None:
        self._slots = slots
        self._short_slots = slots  # slots without a long task
        self._most = slots - 1 + most_ahead
        self._enough = most_before_low(slots, most_ahead)
        self._total_s = 0.0  # of short tasks
        self._bytes = 0
        self._count = 0

    def fits(self, seconds: float, size_bytes: int) -> bool:
        """Answer whether a task of *seconds* may be handed out now: always when a slot is free."""
        if self._count < self._slots:
            return True
        return (
            self._short_slots > 0
            and self._count < self._most
            and self._total_s + seconds <= self._short_slots * AHEAD_S
            and seconds <= AHEAD_S
            and self._bytes + size_bytes <= MOST_AHEAD_BYTES
        )

    def take(self, seconds: float, size_bytes: int) -> None:
        """Count one more task in."""
        if seconds > AHEAD_S:
            self._short_slots -= 1
        else:
            self._total_s += seconds
        self._bytes += size_bytes
        self._count += 1

    @property
    def is_low(self) -> bool:
        """Whether more should be handed out now. Half of what fits is still enough: a hand-out of one task costs as much as one of many."""
        return self._count < self._slots or (self._count < self._enough and self._total_s < self._short_slots * AHEAD_S / 2)


def most_before_low(slots: int, most_ahead: int = MOST_AHEAD) -> float:
    """Return the number of tasks in an executor's hands from which on it is not low on them, whatever they are."""
    return max(slots, (slots - 1 + most_ahead) / 2)
