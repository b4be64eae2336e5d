"""What operators do with runs, queues and schedules from pages and commands of Django: by the store, and where it is not, by models.

Every call says how many it changed, and leaves what it does not fit as it was.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.utils import timezone

from reproq_django.inserting import ask_store, insert, on_store
from reproq_django.models import ENDED, PeriodicTask, QueueControl, RateLimit, RunState, TaskRun
from reproq_django.routing import is_postgres
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import controls, timetable, triage
from reproq_supervisor.store.commands import cancelling
from reproq_supervisor.store.triage import retrying

T = TypeVar("T")
Outcomes = Counter[str]
_UNTRIED = dict.fromkeys(
    ("started_at", "last_attempted_at", "finished_at", "return_json", "last_error", "failed_at", "leased_until", "leased_by")
)


def retry(alias: str, runs: Sequence[int]) -> Outcomes:
    """Let runs that failed or were cancelled run again, with all their attempts; return what became of them (`retried` and others)."""
    if is_postgres(alias):
        return Counter(str(each.outcome) for each in ask_store(alias, retrying([RunId(run) for run in runs])))
    fresh = {"attempts": 0, "run_after": timezone.now(), "cancel_requested": False, "status": RunState.READY}
    done = _rows(alias, runs).filter(status__in=(RunState.FAILED, RunState.CANCELLED)).update(**fresh, **_UNTRIED)
    return _counted(runs, "retried", done, "succeeded")


def replay(alias: str, runs: Sequence[int]) -> Outcomes:
    """Enqueue the tasks of runs anew, with all that they were enqueued with (`enqueued`, `duplicate` and others)."""
    if is_postgres(alias):
        replayed = on_store(alias, lambda connection: triage.replay(connection, [RunId(run) for run in runs]))
        return Counter(str(each.outcome) for each in replayed)
    kept = ("backend_alias", "queue_name", "priority", "spec_json", "spec_hash", "task_path", "max_attempts", "timeout_seconds")
    keys = ("lock_key", "concurrency_key", "concurrency_limit")
    rows = list(_rows(alias, runs).values(*kept, *keys))
    for row in rows:
        TaskRun.objects.using(alias).create(**row)
    return _counted(runs, "enqueued", len(rows), "unknown")


def cancel(alias: str, runs: Sequence[int]) -> Outcomes:
    """Cancel runs: what waits ends at once (`cancelled`), who runs one is told (`requested`), what has ended stays (`ended`)."""
    if is_postgres(alias):
        return Counter(map(str, ask_store(alias, cancelling([RunId(run) for run in runs])).values()))
    rows = _rows(alias, runs)
    requested = rows.filter(status=RunState.RUNNING).update(cancel_requested=True)
    waiting = rows.filter(status__in=(RunState.READY, RunState.WAITING))
    cancelled = waiting.update(status=RunState.CANCELLED, cancel_requested=True, finished_at=timezone.now())
    return +Counter({"cancelled": cancelled, "requested": requested, "ended": len(runs) - cancelled - requested})


def discard(alias: str, runs: Sequence[int]) -> int:
    """Take failed runs off the list of failures; return how many."""
    failed = _rows(alias, runs).filter(status=RunState.FAILED)
    return failed.update(status=RunState.CANCELLED, finished_at=timezone.now(), last_error="Discarded in admin")


def delete_ended(alias: str, runs: Sequence[int], states: Sequence[Any] = ENDED) -> int:
    """Delete runs that have ended in one of *states*; return how many. Those that still wait for one of them are told by the database."""
    # Without what Django collects first: the database forgets parents by itself.
    ended = _rows(alias, runs).filter(status__in=states)
    if not is_postgres(alias):
        TaskRun.objects.using(alias).filter(parent__in=runs).update(parent=None)
    return ended._raw_delete(alias)


def pause(alias: str, queue: str, reason: str | None = None) -> None:
    """Let nobody claim from *queue*; what runs goes on."""
    if is_postgres(alias):
        on_store(alias, lambda connection: controls.pause(connection, queue, reason))
    else:
        values = {"paused": True, "paused_at": timezone.now(), "reason": reason}
        QueueControl.objects.using(alias).update_or_create(queue_name=queue, defaults=values)


def resume(alias: str, queue: str) -> bool:
    """Let *queue* go on at once; answer whether it was paused."""
    if is_postgres(alias):
        return on_store(alias, lambda connection: controls.resume(connection, queue))
    paused = QueueControl.objects.using(alias).filter(queue_name=queue, paused=True)
    return bool(paused.update(paused=False, paused_at=None, reason=None))


def set_limit(alias: str, key: str, tokens_per_second: float, burst: int) -> None:
    """Set a rate limit, with a full bucket."""
    if is_postgres(alias):
        on_store(alias, lambda connection: controls.set_limit(connection, key, tokens_per_second, burst))
    else:
        values = {"tokens_per_second": tokens_per_second, "burst_size": burst, "current_tokens": burst}
        RateLimit.objects.using(alias).update_or_create(key=key, defaults=values)


def run_schedule(alias: str, schedule: PeriodicTask) -> RunId:
    """Enqueue the task of *schedule* now, whether it is enabled or not; its own firings stay as they are.

    Raises:
      TypeError, ValueError: its payload is no arguments.
    """
    args, kwargs = arguments_of(schedule.payload_json)
    run = NewRun(
        schedule.task_path,
        args,
        kwargs,
        queue_name=schedule.queue_name or "default",
        priority=schedule.priority,
        max_attempts=max(schedule.max_attempts, 1),
        timeout_seconds=schedule.timeout_seconds,
        concurrency_key=schedule.concurrency_key,
        concurrency_limit=schedule.concurrency_limit,
    )
    (entered,) = insert(alias, [run])
    if is_postgres(alias):
        on_store(alias, lambda connection: timetable.note_run(connection, schedule.name, entered.result_id))
    return entered.result_id


def arguments_of(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments in one of the contract's forms: {"args", "kwargs"}, a list, or a dict of names.

    Raises:
      TypeError: it has another form.
    """
    if isinstance(payload, list):
        return payload, {}
    if not isinstance(payload, Mapping | None):
        raise TypeError(f"payload: expected a list of arguments or an object of named ones, got {payload!r}")
    if not payload or not {"args", "kwargs"} & set(payload):
        return [], dict(payload or {})
    args, kwargs = payload.get("args") or [], payload.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise TypeError(f'payload: expected {{"args": [...], "kwargs": {{...}}}}, got {payload!r}')
    return args, dict(kwargs)


def _rows(alias: str, runs: Sequence[int]) -> Any:
    return TaskRun.objects.using(alias).filter(pk__in=list(runs))


def _counted(runs: Sequence[int], done_word: str, done: int, other_word: str) -> Outcomes:
    return +Counter({done_word: done, other_word: len(runs) - done})
