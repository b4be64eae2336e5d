"""The keeper's duties, each on its own clock, so that one that fails or is slow does not hold up the others."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from reproq_supervisor.store.errors import StoreError, StoreUnavailable, TermLost
from reproq_supervisor.store.keeper import KeeperStore, Woken

REPAIR_INTERVAL_S = 3600.0
"""Of what is found by looking at everything."""
BATCH = 500
"""Rows of one statement, so that its transaction stays short."""
LOCKED_S = 0.02
"""Between two looks while what is due is in somebody's hands, who may keep it for as long as a transaction stays open."""
FIRST_RETRY_S = 0.5
"""After a duty's first failure; doubled with each that follows without a success in between."""
LONGEST_RETRY_S = 30.0
"""Between two tries of a duty that goes on failing, or its own interval where that is longer."""

Tell = Callable[[dict[str, Any]], None]


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
    failed_total: int = 0
    failed_in_a_row: int = 0
    error: str | None = None

    async def attempt(self, store: KeeperStore, tell: Tell) -> None:
        """Run it now. What goes wrong stays with this duty, which is tried again later; `tell` takes an event for the first time.

        Raises:
          TermLost: this keeper does not act any more; nothing is held against the duty.
          StoreUnavailable: the connection is gone. It is held against the duty, too: one that has its connection broken every time must not
            be the first one tried after every new one.
        """
        began = time.monotonic()
        try:
            ran = await self.run(store)
        except TermLost:
            raise
        except (StoreError, StoreUnavailable) as error:
            self._fail(str(error), began, tell)
            if store.closed:
                raise
        except Exception as error:  # boundary: a mistake in one duty must not stop the others
            self._fail(_where(error), began, tell)
            if store.closed:
                raise StoreUnavailable(f"the connection broke in the duty {self.name}") from error
        else:
            if self.error is not None:
                tell({"name": "duty.recovered", "duty": self.name})
            self.note(ran, began, time.monotonic())

    def note(self, ran: Ran, began: float, now: float) -> None:
        """Take over the result of a run that *began* and has ended *now*."""
        self.last_run_mono, self.last_took_s, self.last_count, self.error = now, now - began, ran.count, None
        self.total += ran.count
        self.failed_in_a_row = 0
        self.due_mono = now + min(self.interval_s, ran.again_in_s)

    def note_failure(self, error: str, began: float, now: float) -> None:
        """Take over a run that *began* and has failed *now*; it is tried again soon, and ever more rarely while it goes on failing."""
        self.last_run_mono, self.last_took_s, self.last_count, self.error = now, now - began, 0, error
        self.failed_total += 1
        self.failed_in_a_row += 1
        doublings = min(self.failed_in_a_row - 1, 16)  # more would come to nothing but large numbers
        self.due_mono = now + min(FIRST_RETRY_S * 2**doublings, max(LONGEST_RETRY_S, self.interval_s))

    def as_fields(self, now: float, *, is_mine: bool = True) -> dict[str, object]:
        """Return the duty as `status` shows it; *is_mine*: this keeper does it, so that it has a next run."""
        ago = None if self.last_run_mono is None else round(now - self.last_run_mono, 1)
        return {
            "last_run_s_ago": ago,
            "last_took_s": round(self.last_took_s, 4),
            "next_run_s": round(max(0.0, self.due_mono - now), 1) if is_mine and self.due_mono < math.inf else None,
            "last_count": self.last_count,
            "total": self.total,
            "failed_total": self.failed_total,
            "failed_in_a_row": self.failed_in_a_row,
            "error": self.error,
        }

    def _fail(self, error: str, began: float, tell: Tell) -> None:
        if self.error is None:
            tell({"name": "duty.failed", "duty": self.name, "error": error})
        self.note_failure(error, began, time.monotonic())


def _where(error: Exception) -> str:
    """Return a mistake in words, with the place that raised it: nobody sees its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


def wake_again_in_s(woken: Woken) -> float:
    """Return after how long to look again for what is due."""
    if woken.next_due_s is None:
        return math.inf
    return woken.next_due_s if woken.count or woken.next_due_s > 0 else LOCKED_S
