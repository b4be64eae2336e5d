"""Durations, sizes and percentages as people write them.

What `format_` writes, `parse_` reads back exactly. Decimal arithmetic keeps "100ms" at 0.1.
"""

import math
import re
from decimal import Decimal

# Bounded, so that no text of a megabyte is taken for a number.
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,400})?"
_BARE = re.compile(_NUMBER)
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
    "w": Decimal(604800),
}
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d|w)\s*")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_DECIMAL_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES = _DECIMAL_BYTES | {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(rf"({_NUMBER})\s*([kmgt]i?b|b)", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,20}")
_PERCENT = re.compile(rf"({_NUMBER})\s*%")


def parse_duration(value: object) -> float:
    """Return the seconds of "30s", "1h30m", "500ms", or of a bare number.

    Raises:
      ValueError: it is none of these, negative or not finite.
    """
    match value:
        case bool():
            pass
        case int() | float() if math.isfinite(value) and value >= 0:
            return float(value)
        case str():
            text = value.strip()
            if _BARE.fullmatch(text):
                return float(text)
            if _DURATION.fullmatch(text):
                return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))
        case _:
            pass
    raise ValueError("not a duration")


def format_duration(seconds: float) -> str:
    """Return the text that people would write: 5400.0 is "1h30m"."""
    exact = Decimal(repr(seconds))
    if exact == 0:
        return "0"
    if exact < 1:
        return f"{(exact * 1000).normalize():f}ms"
    if exact % 1:
        return f"{exact.normalize():f}s"
    text, rest = "", int(exact)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    return text


def parse_size(value: object) -> int:
    """Return the bytes of "512MiB", "1MB", "1.5GiB", or of a bare number.

    Raises:
      ValueError: it is none of these, or negative.
    """
    match value:
        case bool():
            pass
        case int() if value >= 0:
            return value
        case str():
            text = value.strip()
            if _WHOLE.fullmatch(text):
                return int(text)
            if found := _SIZE.fullmatch(text):
                return round(Decimal(found[1]) * _BYTES[found[2].lower()])
        case _:
            pass
    raise ValueError("not a size")


def format_size(size_bytes: int) -> str:
    """Return the text that people would write: 536870912 is "512MiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "KB"):
        if size_bytes and size_bytes % _BYTES[unit.lower()] == 0:
            return f"{size_bytes // _BYTES[unit.lower()]}{unit}"
    return str(size_bytes)


def parse_fraction(value: object) -> float:
    """Return 0.1 for "10%" or 0.1.

    Raises:
      ValueError: it is neither a percentage from 0% to 100% nor a number from 0 to 1.
    """
    fraction: float | None = None
    match value:
        case bool():
            pass
        case int() | float():
            fraction = float(value)
        case str():
            text = value.strip()
            if found := _PERCENT.fullmatch(text):
                fraction = float(Decimal(found[1]) / 100)
            elif _BARE.fullmatch(text):
                fraction = float(text)
        case _:
            pass
    if fraction is None or not 0 <= fraction <= 1:
        raise ValueError("not a fraction")
    return fraction


def format_fraction(fraction: float) -> str:
    """Return the text that people would write: 0.1 is "10%"."""
    return f"{(Decimal(repr(fraction)) * 100).normalize():f}%"
