"""The options that pick ended or waiting tasks: `--queue`, `--task`, `--kind`, `--since`, `--until`, `--status`."""

import functools
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reproq_supervisor.core.runs import ErrorKind, RunStatus
from reproq_supervisor.settings.units import parse_duration

if TYPE_CHECKING:
    from reproq_supervisor.store.filters import Filter, Moment

R = TypeVar("R")

# Longer ago than anything: what is larger would leave the years of PostgreSQL.
_LONGEST_AGO_S = 1e10


def as_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> "Moment | None":
    """Return the moment that `2h` (ago) or an ISO 8601 time with its offset names."""
    from reproq_supervisor.store.filters import Ago

    if value is None:
        return None
    try:
        return Ago(min(parse_duration(value), _LONGEST_AGO_S))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        wanted = "how long ago, such as 2h, or a time with its offset, such as 2026-03-01T08:00+01:00"
        raise click.BadParameter(f"expected {wanted}, got {value!r}", ctx, param)
    return at


def as_statuses(*allowed: RunStatus) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[RunStatus, ...]]:
    """Return the callback for statuses, repeated or with commas between."""

    def convert(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[RunStatus, ...]:
        words = [word.strip().upper() for each in value for word in each.split(",") if word.strip()]
        for word in words:
            if word not in allowed:
                raise click.BadParameter(f"expected one of {', '.join(allowed)}, got {word!r}", ctx, param)
        return tuple(RunStatus(word) for word in dict.fromkeys(words))

    return convert


def filter_options(*statuses: RunStatus, time: str, usual: tuple[RunStatus, ...]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the options of a filter; it takes the result as the keyword argument `wanted`, None when no option was given.

    Args:
      statuses: that `--status` allows; *usual* are what counts without it.
      time: what `--since` and `--until` are about, such as "failed".
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @click.option("--queue", metavar="NAME", help="Of this queue.")
        @click.option("--task", metavar="GLOB", help="Of this task path; * stands for any characters, ? for one.")
        @click.option(
            "--kind", type=click.Choice([str(kind) for kind in ErrorKind]), metavar="KIND", help="Whose last error is of this kind."
        )
        @click.option("--since", metavar="MOMENT", callback=as_moment, help=f"That {time} then or later: 2h (ago), or an ISO 8601 time.")
        @click.option("--until", metavar="MOMENT", callback=as_moment, help=f"That {time} before.")
        @click.option(
            "--status", "statuses", metavar="STATUS", multiple=True, callback=as_statuses(*statuses), help=f"{', '.join(statuses)}."
        )
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            return function(*args, wanted=_filter(kwargs, usual), **kwargs)

        return wrapper

    return decorate


def _filter(options: dict[str, Any], usual: tuple[RunStatus, ...]) -> "Filter | None":
    from reproq_supervisor.store.filters import Filter

    given = {name: options.pop(name) for name in ("queue", "task", "kind", "since", "until")}
    statuses = options.pop("statuses") or ()
    if not statuses and all(value is None for value in given.values()):
        return None
    return Filter(statuses or usual, **given)
