"""The keeper's duties, each on its own clock, so that one that fails or is slow does not hold up the others."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reproq_supervisor.store.keeper import KeeperStore, Woken

REPAIR_INTERVAL_S = 3600.0
"""Of what is found by looking at everything."""
BATCH = 500
"""Rows of one statement, so that its transaction stays short."""
LOCKED_S = 0.02
"""Between two looks while what is due is in somebody's hands, who may keep it for as long as a transaction stays open."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of a duty did.

    Attributes:
      count: rows it changed.
      again_in_s: seconds until it wants to run again, at most its interval.
    """

    count: int
    again_in_s: float = math.inf


@dataclass(slots=True)
class Duty:
    """A piece of work for the whole database, repeated every *interval_s* seconds or sooner.

    Every duty is safe to run in two places at once: rows are locked one by one and skipped when another has them.

    Attributes:
      is_everywhere: done by every keeper, because only it knows what is to be done; the others are the acting keeper's.
    """

    name: str
    interval_s: float
    run: Callable[[KeeperStore], Awaitable[Ran]]
    due_mono: float = 0.0
    is_everywhere: bool = False
    last_run_mono: float | None = None
    last_took_s: float = 0.0
    last_count: int = 0
    total: int = 0
    error: str | None = None

    def note(self, ran: Ran, began: float, now: float) -> None:
        """Take over the result of a run that *began* and has ended *now*."""
        self.last_run_mono, self.last_took_s, self.last_count, self.error = now, now - began, ran.count, None
        self.total += ran.count
        self.due_mono = now + min(self.interval_s, ran.again_in_s)

    def note_failure(self, error: str, now: float) -> None:
        """Take over a failed run; it is tried again at its next turn."""
        self.error = error
        self.due_mono = now + self.interval_s

    def as_fields(self, now: float) -> dict[str, object]:
        """Return the duty as `status` shows it."""
        ago = None if self.last_run_mono is None else round(now - self.last_run_mono, 1)
        return {
            "last_run_s_ago": ago,
            "last_took_s": round(self.last_took_s, 4),
            "next_run_s": None if self.due_mono == math.inf else round(max(0.0, self.due_mono - now), 1),
            "last_count": self.last_count,
            "total": self.total,
            "error": self.error,
        }


def wake_again_in_s(woken: Woken) -> float:
    """Return after how long to look again for what is due."""
    if woken.next_due_s is None:
        return math.inf
    return woken.next_due_s if woken.count or woken.next_due_s > 0 else LOCKED_S
