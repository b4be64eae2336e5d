"""Fires schedules that are due: reads them, decides by the database's clock which firings that means, and has each entered once.

    read what is due ──► decide (core.policy) ──► enter: firing, run and next time in one statement ──► sleep until the next one is due

Nothing is computed for a schedule that is not due. One that cannot fire is disabled with its reason, and never stops the others: when the
database refuses a batch, its schedules are fired one by one.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.core.policy.schedule import Missed, decide_firings, is_astray
from reproq_supervisor.keeper.duties import Ran
from reproq_supervisor.settings.cron import CronError, parse_schedule
from reproq_supervisor.store.schedules import AheadSchedule, DueSchedule, FiringRefused, Planned, ScheduleStore

BATCH = 500
MOST_FIRINGS = 2000
"""Of one statement, where much was missed; a schedule may go beyond it by what it makes up for at once."""
_LOCKED_AGAIN_S = 0.2
"""Until the next look when all that is due is locked by others."""
_CLOCK_INTERVAL_S = 60.0
"""Between two looks whether the clock was set back: they read every schedule."""

Tell = Callable[[dict[str, Any]], None]


class Beat:
    """The duty. `tell` takes events."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._clock_mono = -math.inf

    async def run(self, store: ScheduleStore) -> Ran:
        """Fire one batch of what is due, and say when to look again."""
        if time.monotonic() - self._clock_mono >= _CLOCK_INTERVAL_S:
            await self._follow_clock(store)
            self._clock_mono = time.monotonic()
        schedules, now = await store.due(BATCH)
        fired = 0
        moved = 0
        if now is not None:
            planned: list[Planned] = []
            left = MOST_FIRINGS
            for schedule in schedules:
                if left <= 0:
                    break  # the next look is at once
                if (plan := await self._plan(store, schedule, now)) is None:
                    moved += 1
                else:
                    planned.append(plan)
                    left -= len(plan.delays)
            if planned:
                entered, count = await self._fire(store, planned)
                fired, moved = fired + count, moved + entered
        next_s = await store.next_due_s()
        if next_s is None:
            return Ran(fired, math.inf)
        return Ran(fired, max(next_s, 0.0 if moved or not schedules else _LOCKED_AGAIN_S))

    async def _follow_clock(self, store: ScheduleStore) -> None:
        """Find the next time anew of schedules that wait for one which only a clock that was wrong has named."""
        ahead, now = await store.ahead()
        if now is None:
            return
        astray = [schedule for schedule in ahead if is_astray(schedule.marked, now)]
        if astray and (count := await store.follow_clock(astray, [_next_of(schedule, now) for schedule in astray])):
            self._tell({"name": "schedules.followed_clock", "count": count})

    async def _plan(self, store: ScheduleStore, schedule: DueSchedule, now: datetime) -> Planned | None:
        """Return what a schedule fires now; None if it was disabled."""
        try:
            cron, zone = parse_schedule(schedule.cron_expr, schedule.timezone, schedule.name)
            arguments = read_arguments(schedule.payload)
            missed = read_missed(schedule.missed)
            firings = decide_firings(schedule.next_run_at, schedule.last_run_at, now, missed, partial(next_firing, cron, zone))
            return Planned(schedule, firings, arguments, tuple(at + jitter_of(schedule, at) for at in firings.times))
        except (CronError, ValueError) as error:
            await self._disable(store, schedule, str(error))
        except RecursionError:
            await self._disable(store, schedule, "payload_json: expected fewer levels of lists and objects")
        except OverflowError as error:
            await self._disable(
                store, schedule, f"jitter_s: expected seconds within the years that there are, got {schedule.jitter_s:g}: {error}"
            )
        return None

    async def _fire(self, store: ScheduleStore, planned: Sequence[Planned]) -> tuple[int, int]:
        """Return how many schedules were moved on, and how many firings were entered."""
        try:
            fired = await store.fire(planned)
        except FiringRefused as refused:
            if len(planned) == 1:
                await self._disable(store, planned[0].schedule, f"the database refuses its task: {refused}")
                return 1, 0
            halves = [await self._fire(store, half) for half in (planned[: len(planned) // 2], planned[len(planned) // 2 :])]
            return sum(moved for moved, _ in halves), sum(count for _, count in halves)
        return len(fired.moved), len(fired.firings)

    async def _disable(self, store: ScheduleStore, schedule: DueSchedule, reason: str) -> None:
        if await store.disable(schedule, reason):
            self._tell({"name": "schedule.disabled", "schedule": schedule.name, "reason": reason})


def _next_of(schedule: AheadSchedule, now: datetime) -> datetime | None:
    """Return the first firing after *now*; for a line that means nothing *now*, so that it is looked at and disabled with its reason."""
    try:
        return next_firing(*parse_schedule(schedule.cron_expr, schedule.timezone, schedule.name), now)
    except CronError:
        return now


def read_missed(word: str) -> Missed:
    """Return the rule that a word means.

    Raises:
      ValueError: none.
    """
    if word not in list(Missed):
        raise ValueError(f"missed: expected one, all or none, got {word}")
    return Missed(word)


def read_arguments(payload: str) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments of a payload in the contract's forms.

    Raises:
      ValueError: it has none of them.
    """
    match json.loads(payload):
        case None:
            return [], {}
        case list() as args:
            return args, {}
        case dict() as found if "args" in found or "kwargs" in found:
            positional, named = found.get("args"), found.get("kwargs")
            if isinstance(positional, list | None) and isinstance(named, dict | None):
                return positional or [], named or {}
        case dict() as kwargs:
            return [], kwargs
        case _:
            pass
    raise ValueError("payload_json: expected a list, or an object with a list args and an object kwargs")


def jitter_of(schedule: DueSchedule, fire_at: datetime) -> timedelta:
    """Return how much later than *fire_at* a run starts: always the same, whoever asks.

    Raises:
      OverflowError: the longest that it could be leads beyond all years, whatever is drawn this time.
    """
    if not 0 < schedule.jitter_s < math.inf:
        return timedelta()
    _ = fire_at + timedelta(seconds=schedule.jitter_s)
    import hashlib  # here: it brings a library that a keeper without schedules does without

    digest = hashlib.sha256(f"{schedule.name} {fire_at.astimezone(UTC).isoformat()}".encode()).digest()
    return timedelta(seconds=schedule.jitter_s * int.from_bytes(digest[:6]) / 2**48)
