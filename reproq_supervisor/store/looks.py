"""Where in each queue a shard's next claim begins.

A claim leaves dead entries at the front of the ready index. They go away by themselves, unless somebody holds an old snapshot: then every
look from the start walks over all of them, and claims grow slower with every run that was ever claimed. So after a look that was dear the
next ones begin where the last claim ended. That place hides what lies before it: urgent runs, late commits of long transactions, runs
that were released or woken. Hence a look from the start as soon as twenty times the cost of the last one has passed: at most 5 % of the
time is spent on them, and an urgent run waits at most a second longer behind 300,000 dead entries. While looks are cheap, which is always
without an old snapshot, every claim looks from the start.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

REST_FACTOR = 20
"""Rest between two looks from the start, in multiples of what the last one cost."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the line of a queue, which is ordered by these three."""

    order_key: float
    due_at: datetime
    result_id: int


START = Place(-math.inf, datetime.min.replace(tzinfo=UTC), 0)
END = Place(math.inf, datetime.max.replace(tzinfo=UTC), 0)


@dataclass(slots=True)
class _Rest:
    place: Place
    until_mono: float


class Looks:
    """Remembers, for the queues whose last look from the start was dear, the place to begin and how long."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def places(self, queues: Iterable[str], now_mono: float) -> list[Place]:
        """Return where a claim made now begins in each queue."""
        return [self._place(queue, now_mono) for queue in queues]

    def _place(self, queue: str, now_mono: float) -> Place:
        rest = self._rests.get(queue)
        return rest.place if rest is not None and now_mono < rest.until_mono else START

    def looked(self, queue: str, reached: Place | None, took_s: float | None, now_mono: float) -> None:
        """Note what the claim reported.

        Args:
          reached: the last run taken; None if none was.
          took_s: cost of a dear look from the start; None for a claim that began at the place it was given.
        """
        rest = self._rests.get(queue)
        if took_s is not None:
            # Where nothing was taken, what comes next comes after the place we know; if we know none, we wait for the next look.
            known = reached or (rest.place if rest is not None else END)
            self._rests[queue] = _Rest(known, now_mono + REST_FACTOR * took_s)
        elif rest is not None and reached is not None:
            rest.place = reached

    def rest_s(self, now_mono: float) -> float | None:
        """Return the seconds until the next look from the start is wanted; None when every claim looks from there."""
        waits = [rest.until_mono - now_mono for rest in self._rests.values() if now_mono < rest.until_mono]
        return min(waits, default=None)
