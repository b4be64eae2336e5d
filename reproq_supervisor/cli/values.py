"""Values as people type and read them. What is typed comes through callbacks of click: each returns the value or says what it expected."""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

from reproq_supervisor.settings.units import format_duration, parse_duration

MOST_INT32 = 2**31 - 1
MOST_INT64 = 2**63 - 1
MOST_DELAY_S = 100 * 365 * 86400.0
"""A date beyond a lifetime is a slip, and somewhere beyond that the database has no dates any more."""

# PostgreSQL's texts hold neither.
_UNSTORABLE = re.compile("[\\x00\ud800-\udfff]")


def as_id(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return the id of a task run. Only digits count, so that `1_000` and `+1` are told as the slips that they are."""
    if not (value.isascii() and value.isdigit() and len(value) < 20 and 1 <= int(value) <= MOST_INT64):
        raise click.BadParameter(f"expected the id of a task, a whole number such as 42, got {_short(value)!r}", ctx, param)
    return int(value)


def as_maybe_id(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the id of a task run, None where none was given."""
    return None if value is None else as_id(ctx, param, value)


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


def as_delay(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration that can be added to now."""
    delay_s = as_duration(ctx, param, value)
    if delay_s is not None and delay_s > MOST_DELAY_S:
        raise click.BadParameter(f"expected at most {format_duration(MOST_DELAY_S)}, got {value!r}", ctx, param)
    return delay_s


def as_text(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a text that the database can hold; what a shell passes need not be UTF-8."""
    if value is not None and _UNSTORABLE.search(value):
        raise click.BadParameter(f"expected text in UTF-8, got {_short(ascii(value))}", ctx, param)
    return value


def as_queue(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return the name of a queue. One that no configuration could name would never be served."""
    from reproq_supervisor.settings.fields import NAME_RULE, is_name  # a tenth of a second that --help need not pay

    as_text(ctx, param, value)
    if not is_name(value):
        raise click.BadParameter(f"expected {NAME_RULE}, got {_short(repr(value))}", ctx, param)
    return value


def as_json(kind: type, such_as: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return the callback for JSON text that holds a *kind*."""

    def convert(ctx: click.Context, param: click.Parameter, value: str) -> Any:
        try:
            found = json.loads(value, parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"expected JSON such as {such_as}, got {_short(value)}: {error}", ctx, param) from None
        if not isinstance(found, kind):
            raise click.BadParameter(f"expected JSON such as {such_as}, got {_short(value)}", ctx, param)
        if any(_UNSTORABLE.search(text) for text in _texts(found)):
            raise click.BadParameter(f"expected texts without NUL and without halves of characters, got {_short(value)}", ctx, param)
        return found

    return convert


def short_name(name: str, most: int = 40) -> str:
    """Return a name as a table can hold it: a long one loses its middle. JSON has it whole."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - 1 - most // 2) :]}"


def rough_age(seconds: float) -> str:
    """Return a duration for the eye: tenths below ten seconds, whole seconds, and no seconds from an hour on."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    return format_duration(whole if whole < 3600 else whole // 60 * 60)


def _refuse_constant(word: str) -> None:
    """Refuse NaN and Infinity, which Python would take and PostgreSQL would not."""
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_short(text)} is too large for a number")
    return number


def _texts(found: Any) -> Iterator[str]:
    """Yield every text in a JSON value, the names of members included."""
    waiting = [found]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case list() as items:
                waiting += items
            case dict() as members:
                yield from members
                waiting += members.values()


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}…"
