"""Durations, sizes and percentages as people write them."""

import math
import re
from collections.abc import Callable
from decimal import Decimal

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern}\s*)+")
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


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
            if _NUMBER.fullmatch(text):
                return float(text)
            if _DURATION.fullmatch(text):
                # Rounded to the microsecond, so that "100ms" is 0.1 and not its nearest neighbour.
                return round(sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text)), 6)
        case _:
            pass
    raise ValueError("not a duration")


def format_duration(seconds: float) -> str:
    """Return the text that people would write and `parse_duration` reads back exactly: 5400.0 is "1h30m"."""
    if seconds == 0:
        return "0"
    if seconds < 1:
        text = f"{seconds * 1000:.6g}ms"
    elif seconds % 1:
        text = f"{seconds:.6f}".rstrip("0") + "s"
    else:
        text, rest = "", int(seconds)
        for unit in ("d", "h", "m", "s"):
            count, rest = divmod(rest, int(_SECONDS[unit]))
            text += f"{count}{unit}" if count else ""
    return text if _reads_back(parse_duration, text, seconds) else f"{Decimal(seconds):f}s"


def parse_size(value: object) -> int:
    """Return the bytes of "512MiB", "1MB", "1.5GiB", or of a bare number.

    Raises:
      ValueError: it is none of these, negative, or a fraction of a byte.
    """
    match value:
        case bool():
            pass
        case int() if value >= 0:
            return value
        case str():
            text = value.strip()
            if text.isascii() and text.isdigit():
                return int(text)
            if found := _SIZE.fullmatch(text):
                return round(float(found[1]) * _BYTES[found[2].lower()])
        case _:
            pass
    raise ValueError("not a size")


def format_size(size_bytes: int) -> str:
    """Return the text that people would write and `parse_size` reads back exactly: 536870912 is "512MiB"."""
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
                fraction = float(found[1]) / 100
            elif _NUMBER.fullmatch(text):
                fraction = float(text)
        case _:
            pass
    if fraction is None or not 0 <= fraction <= 1:
        raise ValueError("not a fraction")
    return fraction


def format_fraction(fraction: float) -> str:
    """Return the text that people would write and `parse_fraction` reads back exactly: 0.1 is "10%"."""
    text = f"{fraction * 100:.6g}%"
    return text if _reads_back(parse_fraction, text, fraction) else f"{Decimal(fraction):f}"


def _reads_back(parse: Callable[[object], float], text: str, value: float) -> bool:
    try:
        return parse(text) == value
    except ValueError:
        return False
