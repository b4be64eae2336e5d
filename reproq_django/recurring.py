"""`@recurring`: tasks that the keeper enqueues again and again, declared beside their code.

    @recurring("30 2 * * *", key="nightly-report", kwargs={"days": 7})
    @task
    def report(days): ...

`manage.py migrate` and `manage.py reproq sync-recurring` bring what is declared to `periodic_tasks`. What operators change there stays,
until both say the same: a schedule that somebody disabled stays disabled, and its next firing is not moved.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.utils.module_loading import autodiscover_modules

from reproq_django.framework import DEFAULT_TASK_QUEUE_NAME
from reproq_django.limits import key_made, limit_of
from reproq_django.paths import path_of
from reproq_django.serialization import encode_args
from reproq_supervisor.settings.cron import parse_schedule

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule as the code has it; the names are those of the columns, with their meaning."""

    key: str
    schedule: str
    task_path: str
    queue_name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int = 3
    enabled: bool = True
    timezone: str = "UTC"
    timeout_seconds: int = 900
    jitter_s: float = 0.0
    overlap: str = "allow"
    missed: str = "one"

    def columns(self) -> dict[str, Any]:
        """Return what people say of a schedule, by column.

        Raises:
          TypeError, ValueError: an argument cannot be stored.
        """
        args, kwargs = encode_args(self.args, self.kwargs, f"recurring {self.key}")
        limit = limit_of(self.task_path)
        key = key_made(limit.key, self.args, self.kwargs) if limit else None
        return {
            "cron_expr": self.schedule,
            "timezone": self.timezone,
            "task_path": self.task_path,
            "payload_json": {"args": args, "kwargs": kwargs},
            "queue_name": self.queue_name,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
            "timeout_seconds": self.timeout_seconds,
            "concurrency_key": key,
            "concurrency_limit": limit.to if limit and key else 0,
            "jitter_s": self.jitter_s,
            "overlap": self.overlap,
            "missed": self.missed,
            "enabled": self.enabled,
        }


_DECLARED: dict[str, Declared] = {}


def recurring(
    schedule: str,
    key: str | None = None,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    queue_name: str | None = None,
    priority: int | None = None,
    max_attempts: int = 3,
    enabled: bool = True,
    **more: Any,
) -> Callable[[T], T]:
    """Declare when a task runs by itself: above `@task`, or below it.

    Args:
      schedule: a line of cron: five fields, or six with the seconds last, or @daily and the like.
      key: the name of the schedule; without one the path of the task.
      queue_name, priority: those of the task, where they are not said.
      more: `timezone`, `timeout_seconds`, `jitter_s`, `overlap` (allow, skip), `missed` (one, all, none).

    Raises:
      ValueError: the line or the zone means nothing, or another task has declared a schedule of this name.
    """

    def declare(task: T) -> T:
        path = path_of(task)
        name = key or path
        known = _DECLARED.get(name)
        if known is not None and known.task_path != path:
            raise ValueError(f"recurring {name}: expected a name of its own for each schedule, got one that {known.task_path} has, too")
        found = Declared(
            name,
            schedule,
            path,
            queue_name or getattr(task, "queue_name", DEFAULT_TASK_QUEUE_NAME),
            args=tuple(args),
            kwargs=dict(kwargs or {}),
            priority=priority if priority is not None else getattr(task, "priority", 0),
            max_attempts=max_attempts,
            enabled=enabled,
            **more,
        )
        parse_schedule(found.schedule, found.timezone, name)
        _DECLARED[name] = found
        return task

    return declare


def declared() -> list[Declared]:
    """Return what the code declares, by name: all of it, for the modules with tasks of all applications are imported first."""
    autodiscover_modules("tasks")
    return [_DECLARED[name] for name in sorted(_DECLARED)]
