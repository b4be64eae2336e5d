"""Schedules as whoever fires them sees them: reads what is due, and has firings entered, each once whoever else does the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from reproq_supervisor.core.policy.schedule import Firings
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.errors import StoreError

_REFUSED_CLASSES = frozenset({"22", "23", "54", "P0"})
"""Values that cannot be stored, constraints, limits of the server, and what triggers of others raise: it is the row's own fault."""
_ENTERED_MEANWHILE = "23505"
"""The last guard: somebody who does not lock the schedule entered the firing. The next look sees it."""


class Asks(Protocol):
    """A connection, or a keeper's term on one."""

    async def ask(self, table: str, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement."""


class FiringRefused(Exception):
    """The database refuses a run of this schedule, now and later; nothing of the batch happened."""


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule that is due, as it was read.

    Attributes:
      version: of the row; it is fired only if it is still the same.
      payload: JSON text.
      last_run_at: the latest firing that anybody entered, as far as that is known.
    """

    name: str
    version: str
    cron_expr: str
    timezone: str
    task_path: str
    payload: str
    queue_name: str
    priority: int
    max_attempts: int
    timeout_seconds: int
    concurrency_key: str | None
    concurrency_limit: int
    jitter_s: float
    missed: str
    next_run_at: datetime
    last_run_at: datetime | None

    def spec(self, arguments: tuple[list[Any], dict[str, Any]], fire_at: datetime) -> str:
        """Return the payload of one run as canonical JSON; the same for everybody who fires this schedule at this time."""
        args, kwargs = arguments
        payload = {
            "v": 1,
            "task_path": self.task_path,
            "args": args,
            "kwargs": kwargs,
            "takes_context": False,
            "queue_name": self.queue_name or "default",
            "priority": self.priority,
            "lock_key": None,
            "concurrency_key": self.concurrency_key,
            "concurrency_limit": self.concurrency_limit,
            "run_after": None,
            "exec": {"timeout_seconds": self.timeout_seconds, "max_attempts": self.max_attempts if self.max_attempts > 0 else 3},
            "provenance": {"code_ref": None, "pip_lock_hash": None},
            "periodic_name": self.name,
            "scheduled_at": fire_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class AheadSchedule:
    """A schedule that waits, and bears a mark of a time that is yet to come.

    Attributes:
      marked: the latest time at which it says that something was done.
    """

    name: str
    version: str
    cron_expr: str
    timezone: str
    marked: datetime


@dataclass(frozen=True, slots=True)
class Planned:
    """What one due schedule fires. `arguments` are its task's; `delays_s` are the jitter of each firing."""

    schedule: DueSchedule
    firings: Firings
    arguments: tuple[list[Any], dict[str, Any]]
    delays: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Fired:
    """What a batch did: schedules that were moved on, and (name, time, run or None if it was skipped) of each firing that was entered."""

    moved: frozenset[str]
    firings: tuple[tuple[str, datetime, RunId | None], ...]


class ScheduleStore:
    """The calls of whoever fires schedules."""

    def __init__(self, asks: Asks, fence: Mapping[str, Any], unfenced: Asks) -> None:
        """Ask by *asks*; *fence* has what its statements take besides, where *asks* does not add it.

        *unfenced* is for what needs no term.
        """
        self._asks = asks
        self._unfenced = unfenced
        self._fence = dict(fence)

    async def due(self, limit: int) -> tuple[list[DueSchedule], datetime | None]:
        """Return up to *limit* schedules that are due, and the database's clock at which they are; None if none is."""
        rows = await self._ask("due", {"limit": limit})
        return [DueSchedule(*row[:-1]) for row in rows], rows[0][-1] if rows else None

    async def next_due_s(self) -> float | None:
        """Return the seconds until the next schedule is due; None if there is none."""
        ((seconds,),) = await self._ask("next_due", {})
        return None if seconds is None else float(seconds)

    async def ahead(self) -> tuple[list[AheadSchedule], datetime | None]:
        """Return the schedules that say of themselves that the clock was ahead, and the database's clock; None if there is none."""
        rows = await self._ask("ahead", {})
        return [AheadSchedule(*row[:-1]) for row in rows], rows[0][-1] if rows else None

    async def follow_clock(self, astray: Sequence[AheadSchedule], nexts: Sequence[datetime | None]) -> int:
        """Have each of these fire next at a time, if it has not changed since; return how many were moved."""
        parameters = {
            "names": text_array([each.name for each in astray]),
            "versions": [each.version for each in astray],
            "nexts": list(nexts),
        }
        ((count,),) = await self._ask("follow_clock", parameters)
        return int(count)

    async def fire(self, planned: Sequence[Planned]) -> Fired:
        """Enter these firings, enqueue a run for each that is new, and move the schedules on; those that have changed are left.

        Raises:
          FiringRefused: a run of one of them cannot be stored.
        """
        try:
            flat = [
                (number, fire_at, run_after, each.schedule.spec(each.arguments, fire_at))
                for number, each in enumerate(planned, start=1)
                for fire_at, run_after in zip(each.firings.times, each.delays, strict=True)
            ]
        except (ValueError, RecursionError) as error:
            # jsonb holds what this has no words for: a number beyond all floats, or too many levels.
            raise FiringRefused(f"payload_json: {error}") from error
        from reproq_supervisor.store.hashes import hash_of  # here: it brings a library that a keeper without schedules does without

        parameters = {
            "names": text_array([each.schedule.name for each in planned]),
            "versions": [each.schedule.version for each in planned],
            "nexts": [each.firings.next_run_at for each in planned],
            "of": [number for number, *_ in flat],
            "fire_ats": [fire_at for _, fire_at, *_ in flat],
            "run_afters": [run_after for _, _, run_after, _ in flat],
            "specs": text_array([spec for *_, spec in flat]),
            "hashes": [hash_of(spec) for *_, spec in flat],
        }
        try:
            rows = await self._ask("fire", parameters)
        except StoreError as error:
            state = getattr(error.__cause__, "sqlstate", None) or ""
            if state[:2] in _REFUSED_CLASSES and state != _ENTERED_MEANWHILE:
                raise FiringRefused(str(error)) from error
            raise
        return Fired(
            frozenset(name for name, _, outcome, _ in rows if outcome == "moved"),
            tuple((name, fire_at, run) for name, fire_at, outcome, run in rows if outcome != "moved"),
        )

    async def disable(self, schedule: DueSchedule, reason: str) -> bool:
        """Disable a schedule that cannot fire, unless it has changed since; answer whether that was done."""
        ((done,),) = await self._ask("disable_due", {"name": schedule.name, "version": schedule.version, "reason": reason})
        return bool(done)

    async def forget_firings(self, limit: int) -> int:
        """Forget up to *limit* firings that are older than two days; return how many."""
        ((count,),) = await self._ask("forget_firings", {"limit": limit})
        return int(count)

    async def clock(self) -> datetime:
        """Return the database's clock."""
        ((now,),) = await self._unfenced.ask("schedules", "clock", {})
        found: datetime = now
        return found

    async def declare(self, by: str, schedules: str) -> int:
        """Bring the schedules (JSON) of the file *by*, and remove those that it no longer has; return how many needed that.

        Every keeper does it for its own file, with or without a term.
        """
        return len(await self._unfenced.ask("schedules", "declare", {"by": by, "schedules": schedules}))

    async def _ask(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await self._asks.ask("schedules", name, {**parameters, **self._fence})
