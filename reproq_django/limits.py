"""`@limits_concurrency`: how many runs of a task, with the same key, may run at once.

    @limits_concurrency(key=lambda order_id: f"order:{order_id}", to=1)
    @task
    def ship(order_id): ...

Above or below `@task`: what it says is kept by the path of the task, for the framework's tasks are closed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from reproq_django.paths import path_of

T = TypeVar("T")
Key = str | Callable[..., object]


@dataclass(frozen=True, slots=True)
class Limit:
    """What was said of a task. `key`: the same for all of its runs, or made of their arguments."""

    key: Key
    to: int


_LIMITS: dict[str, Limit] = {}


def limits_concurrency(key: Key, to: int = 1) -> Callable[[T], T]:
    """Say that at most *to* runs with *key* run at once, over all workers; a run that is enqueued with a key of its own goes by that.

    Raises:
      TypeError, ValueError: no text or callable as *key*, no whole number of 1 or more as *to*.
    """
    if not isinstance(key, str) and not callable(key):
        raise TypeError(f"limits_concurrency: key: expected text, or a callable that makes it of the arguments, got {key!r}")
    if isinstance(key, str) and not key.strip():
        raise ValueError("limits_concurrency: key: expected text, got a blank one")
    if not isinstance(to, int) or isinstance(to, bool) or to < 1:
        raise ValueError(f"limits_concurrency: to: expected a whole number of 1 or more, got {to!r}")

    def declare(task: T) -> T:
        _LIMITS[path_of(task)] = Limit(key, to)
        return task

    return declare


def limit_of(path: str) -> Limit | None:
    """Return what was said of the task *path*."""
    return _LIMITS.get(path)


def key_made(key: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the key of a run with these arguments: *key* itself, or what it makes of them; None for a blank one."""
    made = key(*args, **kwargs) if callable(key) else key
    return str(made).strip() or None if made is not None else None
