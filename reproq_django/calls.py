"""From a task that is to be enqueued to the run that the store inserts: reserved arguments taken out, the others made storable."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from reproq_django.conf import BackendOptions
from reproq_django.framework import Task
from reproq_django.limits import key_made, limit_of
from reproq_django.paths import path_of
from reproq_django.routing import Routes
from reproq_django.serialization import encode_args
from reproq_supervisor.client.arguments import MOST_INT32, check_json
from reproq_supervisor.core.new_run import NewRun

RESERVED = ("run_after", "lock_key", "priority", "concurrency_key", "concurrency_limit")


@dataclass(frozen=True, slots=True)
class Call:
    """A task with its arguments, ready to be inserted.

    Attributes:
      task: as it is enqueued: reserved arguments that say otherwise count.
      alias: of the database that its queue is in.
    """

    task: Task
    run: NewRun
    alias: str


def call_of(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], options: BackendOptions, backend: str, routes: Routes) -> Call:
    """Return what enqueueing *task* with these arguments inserts.

    Raises:
      TypeError, ValueError: an argument cannot be stored, or a reserved one is not right.
    """
    path = path_of(task.func)
    given = dict(kwargs)
    asked = {name: given.pop(name) for name in RESERVED if name in given}
    run_after = _moment(asked.get("run_after") if "run_after" in asked else task.run_after)
    priority = _priority(asked["priority"]) if "priority" in asked else task.priority
    key, limit = _concurrency(path, asked, args, given)
    encoded_args, encoded_kwargs = encode_args(args, given, path)
    run = NewRun(
        path,
        args=encoded_args,
        kwargs=encoded_kwargs,
        queue_name=task.queue_name,
        priority=priority,
        run_after=run_after,
        expires_in_s=options.expires_in.total_seconds() if options.expires_in is not None else None,
        max_attempts=options.max_attempts,
        timeout_seconds=options.timeout_seconds,
        takes_context=task.takes_context,
        lock_key=_text(asked.get("lock_key"), "lock_key"),
        concurrency_key=key,
        concurrency_limit=limit,
        dedupe=options.dedup_active,
        backend_alias=backend,
        code_ref=options.code_ref,
        pip_lock_hash=options.pip_lock_hash,
    )
    return Call(_as_enqueued(task, run), run, routes.database_of(task.queue_name))


def _as_enqueued(task: Task, run: NewRun) -> Task:
    if task.priority == run.priority and task.run_after == run.run_after:
        return task
    return changed(task, priority=run.priority, run_after=run.run_after)


def changed(task: Task, **fields: Any) -> Task:
    """Return *task* with other values. It is not judged anew: a run may say what nobody may write in a decorator."""
    copy = object.__new__(type(task))
    for field in dataclasses.fields(task):
        object.__setattr__(copy, field.name, fields.get(field.name, getattr(task, field.name)))
    return copy


def _moment(run_after: object) -> datetime | None:
    """Return when a run is due; a duration counts from now, so two runs are never the same by it."""
    match run_after:
        case None:
            return None
        case timedelta():
            try:
                return datetime.now(UTC) + run_after
            except OverflowError as error:
                raise ValueError(f"run_after: expected a time within the years that there are, got {run_after!r} from now") from error
        case datetime() if timezone.is_aware(run_after):
            return run_after
        case datetime() if not settings.USE_TZ:
            return timezone.make_aware(run_after)
        case datetime():
            raise ValueError(f"run_after: expected a time with a zone, got {run_after!r}")
        case _:
            raise TypeError(f"run_after: expected a time with a zone, a timedelta or None, got {run_after!r}")


def _priority(priority: object) -> int:
    if priority is None:
        return 0
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MOST_INT32:
        raise TypeError(f"priority: expected a whole number, got {priority!r}")
    return priority


def _concurrency(path: str, asked: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str | None, int]:
    # What a call does not say is as it was declared: one that says its limit alone is not without one.
    declared = limit_of(path)
    key = _text(key_made(asked.get("concurrency_key", declared and declared.key), args, kwargs), "concurrency_key")
    if "concurrency_limit" in asked:
        return key, _limit(asked["concurrency_limit"])
    return key, declared.to if declared and key else 0


def _limit(limit: object) -> int:
    """Return the limit of a run; what is none is no limit, as the contract has it."""
    try:
        number = int(limit)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if 0 < number <= MOST_INT32 else 0


def _text(key: object, name: str) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"{name}: expected text or None, got {key!r}")
    check_json(key, name)
    return key
