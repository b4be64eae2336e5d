"""Schedules in the configuration file."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SerializationInfo, WithJsonSchema

from reproq_supervisor.core.policy.schedule import Missed, Overlap
from reproq_supervisor.settings.cron import CronError, find_zone, parse_schedule
from reproq_supervisor.settings.fields import Duration, Group, MaybeText, QueueName, Text, Whole, at_least, expected

_MOST = 2**31 - 1


def _check_cron(value: str) -> str:
    try:
        parse_schedule(value, "UTC", "-")
    except CronError:
        raise expected("a cron line such as '*/5 * * * *' or @daily", "put it in quotes, because of the asterisks") from None
    return value


def _check_zone(value: str) -> str:
    try:
        find_zone(value)
    except CronError:
        raise expected("the name of a time zone, such as UTC or Europe/Berlin, that this machine knows") from None
    return value


def _check_task(value: str) -> str:
    if not value.strip() or " " in value:
        raise expected("the dotted name of a task, such as myapp.tasks.report")
    return value


def _read_json(value: object) -> object:
    """Let a text stand for a list or mapping, so that a variable can hold it."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _check_json(value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # a lone surrogate is no text, and the database would refuse all schedules of the file for it
    except (ValueError, TypeError, RecursionError):
        raise expected("values that JSON has") from None
    if "\\u0000" in text:
        raise expected("texts without the character NUL")
    return value


def _write_json(value: Any, info: SerializationInfo) -> Any:
    """Write data for people; one text for programs, so that what differs is one value."""
    return value if info.context and info.context.get("human") else json.dumps(value, sort_keys=True)


Arguments = Annotated[
    list[Any],
    BeforeValidator(_read_json),
    AfterValidator(_check_json),
    PlainSerializer(_write_json),
    WithJsonSchema({"type": "array", "items": {}}),
]
NamedArguments = Annotated[
    dict[str, Any],
    BeforeValidator(_read_json),
    AfterValidator(_check_json),
    PlainSerializer(_write_json),
    WithJsonSchema({"type": "object"}),
]


class Schedule(Group):
    """A task that is enqueued by the clock. What an operator changes by command or SQL stays, until both say the same."""

    cron: Annotated[Text, AfterValidator(_check_cron)]
    """When: minute, hour, day, month, weekday, and seconds as a sixth if need be; or @daily and the like."""
    task: Annotated[Text, AfterValidator(_check_task)]
    """The task's dotted name."""
    args: Arguments = []
    """Its arguments."""
    kwargs: NamedArguments = {}
    """Its arguments by name."""
    timezone: Annotated[Text, AfterValidator(_check_zone)] = "UTC"
    """Whose wall clock the line means, such as Europe/Berlin."""
    jitter: Duration = 0.0
    """Runs start up to so much later, spread."""
    overlap: Overlap = Overlap.ALLOW
    """While the last run has not ended: allow another one, or skip."""
    missed: Missed = Missed.ONE
    """Which of the firings that nobody saw are made up for: the latest one, all of the last day, none."""
    enabled: bool = True
    """false: it does not fire."""
    queue: QueueName = "default"
    """Where its runs wait."""
    priority: Annotated[Whole, Field(ge=-_MOST - 1, le=_MOST)] = 0
    """Of its runs; higher runs earlier."""
    max_attempts: Annotated[Whole, Field(ge=1, le=_MOST)] = 3
    """Of its runs."""
    timeout: Annotated[Duration, at_least(1.0)] = 900.0
    """The longest that a run may take; a pool's own timeout can only shorten it."""
    concurrency_key: MaybeText = None
    """Its runs run beside fewer than concurrency_limit tasks with this key."""
    concurrency_limit: Annotated[Whole, Field(ge=0, le=_MOST)] = 0
    """How many tasks with the key may run at once; 0: any number."""
