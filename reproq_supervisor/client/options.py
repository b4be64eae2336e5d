"""How a task is to be run, as its decorator and `using` say it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from reproq_supervisor.client.arguments import ArgumentsError

Key = str | Callable[..., str | None]
"""A key, a format string of the arguments (`"account:{account_id}"`), or a function of them; None and '' mean no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Durations are seconds or timedeltas.

    Attributes:
      max_attempts: how often it may be tried in all; 1 means never again.
      timeout: seconds for one attempt; the pool may allow less.
      lock_key: never run beside another run with this key.
      concurrency_key, concurrency_limit: run beside fewer than the limit with this key.
      delay: due that long from the enqueue on; `run_after` says the same as a point in time, and wins.
      expires_in: not worth running any more after that.
      dedupe: give the id of an active run of the same content instead of a new one.
    """

    queue: str = "default"
    priority: int = 0
    max_attempts: int = 3
    timeout: float | timedelta = 900
    lock_key: Key | None = None
    concurrency_key: Key | None = None
    concurrency_limit: int = 0
    delay: float | timedelta | None = None
    run_after: datetime | None = None
    expires_in: float | timedelta | None = None
    dedupe: bool = False


class GivenOptions(TypedDict, total=False):
    """The same as keyword arguments, each of them optional."""

    queue: str
    priority: int
    max_attempts: int
    timeout: float | timedelta
    lock_key: Key | None
    concurrency_key: Key | None
    concurrency_limit: int
    delay: float | timedelta | None
    run_after: datetime | None
    expires_in: float | timedelta | None
    dedupe: bool


def seconds(duration: float | timedelta | None) -> float | None:
    """Return a duration in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def key_of(key: Key | None, where: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], bound: Mapping[str, Any]) -> str | None:
    """Return the key of one run, None for none.

    Args:
      bound: the arguments by name, defaults included, for format strings; a function gets them as they were given.

    Raises:
      ArgumentsError: the format names no argument, or the function returns no text.
    """
    if isinstance(key, str):
        try:
            made: object = key.format_map(bound)
        except (LookupError, ValueError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ArgumentsError(f"{where}: expected a format of the arguments {sorted(bound)}, got {key!r}: {problem}") from error
    else:
        made = None if key is None else key(*args, **kwargs)
    if made is not None and not isinstance(made, str):
        raise ArgumentsError(f"{where}: expected text or None, got {made!r}")
    return made or None
