"""Turns events into records: flat, closed, presentable; what logs show and `events` sends."""

from typing import Any

from reproq_supervisor.core.events import Event, Level
from reproq_supervisor.core.supervision.events import ChildEvent
from reproq_supervisor.telemetry.keys import KEYS, presentable
from reproq_supervisor.telemetry.lines import Record

MAX_NAME_CHARS = 100
_CHILD_LEVELS = {
    "executor.exited": Level.WARNING,
    "executor.not_forked": Level.WARNING,
    "executor.not_recycled": Level.WARNING,
    "executor.overdue": Level.WARNING,
    "database.lost": Level.WARNING,
    "database.warned": Level.WARNING,
    "duty.failed": Level.ERROR,
    # A pool that looks for its best number takes a step every few seconds; `explain` has the last one.
    "pool.slots_changed": Level.DEBUG,
    "schedule.disabled": Level.WARNING,
    "schedules.followed_clock": Level.WARNING,
    "shard.left_unwritten": Level.WARNING,
    "shard.message_ignored": Level.WARNING,
    "shard.refused": Level.ERROR,
    "stranger.killed": Level.WARNING,
    # A failed task is the application's business and kept with the task; at INFO it would drown ours.
    "task.failed": Level.DEBUG,
}


def record_of(event: Event, at: str) -> Record:
    """Return the record of *event*.

    Args:
      at: wall time, RFC 3339.
    """
    if isinstance(event, ChildEvent):
        return _child_record(event, at)
    return {"at": at, "level": event.level.value, "name": event.name, **_fields(event.as_fields())}


def _child_record(event: ChildEvent, at: str) -> Record:
    inner = dict(event.event)
    name = str(inner.pop("name", "child.event"))[:MAX_NAME_CHARS]
    level = _CHILD_LEVELS.get(name, Level.INFO)
    fields = {"child": event.child, **{key: value for key, value in inner.items() if value is not None}}
    return {"at": at, "level": level.value, "name": name, **_fields(fields)}


def _fields(fields: dict[str, Any]) -> Record:
    return {key: presentable(key, value) for key, value in fields.items() if key in KEYS and key not in ("at", "level", "name")}
