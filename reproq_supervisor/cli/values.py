"""Values as people type and read them. What is typed comes through callbacks of click: each returns the value or says what it expected."""

import json
from collections.abc import Callable
from typing import Any

import click

from reproq_supervisor.settings.units import format_duration, parse_duration

MOST_INT32 = 2**31 - 1
MOST_INT64 = 2**63 - 1


def as_id(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return the id of a task run. Only digits count, so that `1_000` and `+1` are told as the slips that they are."""
    if not (value.isascii() and value.isdigit() and len(value) < 20 and 1 <= int(value) <= MOST_INT64):
        raise click.BadParameter(f"expected the id of a task, a whole number such as 42, got {_short(value)!r}", ctx, param)
    return int(value)


def as_ids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[int, ...]:
    """Return several ids."""
    return tuple(as_id(ctx, param, each) for each in value)


def as_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of `10s`, `1h30m` or a bare number."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError:
        raise click.BadParameter(f"expected a duration such as 10s or 1h30m, got {value!r}", ctx, param) from None


def as_json(kind: type, such_as: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return the callback for JSON text that holds a *kind*."""

    def convert(ctx: click.Context, param: click.Parameter, value: str) -> Any:
        try:
            found = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"expected JSON such as {such_as}, got {_short(value)}: {error}", ctx, param) from None
        if not isinstance(found, kind):
            raise click.BadParameter(f"expected JSON such as {such_as}, got {_short(value)}", ctx, param)
        return found

    return convert


def rough_age(seconds: float) -> str:
    """Return a duration for the eye: tenths below ten seconds, whole seconds, and no seconds from an hour on."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    return format_duration(whole if whole < 3600 else whole // 60 * 60)


def _refuse_constant(word: str) -> None:
    """Refuse NaN and Infinity, which Python would take and PostgreSQL would not."""
    raise ValueError(f"{word} is no JSON")


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}…"
