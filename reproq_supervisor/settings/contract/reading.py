"""From a text to a value of a kind, or to what was expected instead."""

import math
import re

from reproq_supervisor.settings.contract.durations import parse_go_duration
from reproq_supervisor.settings.contract.words import Kind, Word
from reproq_supervisor.settings.units import format_duration

Value = str | int | float | tuple[str, ...]
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

_EXPECTED = {
    Kind.WHOLE: "a whole number",
    Kind.NUMBER: "a number",
    Kind.DURATION: "a duration such as 500ms, 30s or 1h30m",
}


class WrongValueError(ValueError):
    """The text is none of what the word can be; its own text says what that is."""


def read_value(word: Word, text: str) -> Value:
    """Return the value of *text*.

    Raises:
      WrongValueError: it cannot be read, or is out of range.
    """
    match word.kind:
        case Kind.TEXT:
            if word.choices and text not in word.choices:
                raise WrongValueError(f"expected one of {', '.join(word.choices)}")
            return text
        case Kind.LIST:
            return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        case Kind.WHOLE | Kind.NUMBER | Kind.DURATION:
            number = _read_number(word.kind, text.strip())
            if number is None:
                raise WrongValueError(f"expected {_EXPECTED[word.kind]}")
            if number < word.least:
                least = format_duration(word.least) if word.kind is Kind.DURATION else f"{word.least:g}"
                raise WrongValueError(f"expected at least {least}")
            return number


def _read_number(kind: Kind, text: str) -> int | float | None:
    try:
        if kind is Kind.WHOLE:
            return int(text) if _WHOLE.fullmatch(text) else None
        number = parse_go_duration(text) if kind is Kind.DURATION else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
