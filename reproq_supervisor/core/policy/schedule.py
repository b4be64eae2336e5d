"""Which firings of a schedule are due, those included that nobody enqueued in time.

    ──┼─────────┼─────────┼─────────┼────╎────┼─────────┼──► time
     missed    missed    missed    missed╎  on time     │ now
                                         now - MISSED_AFTER

A firing that is late by no more than a minute is on time: a keeper was replaced, a database restarted. What is older was missed, and the
schedule's rule says what becomes of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MISSED_AFTER = timedelta(seconds=60)
CAUGHT_UP = timedelta(days=1)
"""What was missed longer ago is never made up for."""
SET_BACK = timedelta(days=1)
"""A clock that is set back by no more is waited for: what it has fired up to must not fire again. By more, and it was wrong before."""
MOST_AT_ONCE = 100
"""So many are made up for in one round of the beat; the others come in the next ones."""

Next = Callable[[datetime], datetime | None]


class Missed(StrEnum):
    """What becomes of firings that nobody enqueued in time."""

    ONE = "one"  # the latest is made up for, unless a later one is on time
    ALL = "all"  # each is, up to a day back
    NONE = "none"


class Overlap(StrEnum):
    """What a firing does while the schedule's last run has not ended."""

    ALLOW = "allow"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Firings:
    """What to enqueue now.

    Attributes:
      times: in order.
      next_run_at: when the schedule is looked at next; None if it never fires again.
    """

    times: tuple[datetime, ...]
    next_run_at: datetime | None


def decide_firings(due: datetime, last: datetime | None, now: datetime, rule: Missed, next_after: Next) -> Firings:
    """Decide what a schedule that is due fires *now*.

    Args:
      due: its `next_run_at`, not later than *now*. It fires even if the line does not name it: somebody set it.
      last: the latest firing that somebody else may have enqueued; nothing up to it fires again.
      next_after: returns the first firing later than a moment.
    """
    on_time = now - MISSED_AFTER
    made_up = now - CAUGHT_UP

    def first_from(start: datetime) -> datetime | None:
        """Return the first firing that is not before *start*."""
        first: datetime | None = due if due >= start else next_after(start - timedelta(microseconds=1))
        if last is not None and first is not None and first <= last:
            first = next_after(last)
        return first

    if rule is Missed.ALL:
        return _take(first_from(made_up), now, next_after, MOST_AT_ONCE)
    found = _take(first_from(on_time), now, next_after)
    if rule is Missed.ONE and not found.times and (latest := _latest(due, last, on_time, next_after)) is not None:
        return Firings((latest,), found.next_run_at)
    return found


def is_astray(marked: datetime, now: datetime) -> bool:
    """Answer whether a schedule's next time comes from a clock that was wrong, and must be found anew.

    Args:
      marked: the latest time at which the row says that something was done: it fired, it was moved on, it was made.
    """
    return marked - now > SET_BACK


def _take(first: datetime | None, now: datetime, next_after: Next, most: int | None = None) -> Firings:
    times: list[datetime] = []
    at = first
    while at is not None and at <= now and (most is None or len(times) < most):
        times.append(at)
        at = next_after(at)
    return Firings(tuple(times), at)


def _latest(due: datetime, last: datetime | None, until: datetime, next_after: Next) -> datetime | None:
    """Return the latest firing from *due* on that is before *until*, and after *last*; looked for backwards in growing stretches."""
    for start in _stretches(due, until):
        found = None
        at = due if start <= due else next_after(start)
        while at is not None and at < until:
            found, at = at, next_after(at)
        if found is not None:
            return found if last is None or found > last else None
    return None


def _stretches(due: datetime, until: datetime) -> Iterator[datetime]:
    length = MISSED_AFTER
    while until - length > due:
        yield until - length
        length *= 2
    yield due
