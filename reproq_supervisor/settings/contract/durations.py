"""Durations as Go programs write them: "1h30m", "100ms", "1.5s". A number alone is none."""

import re
from decimal import Decimal

_SECONDS = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"\+?({_PART.pattern})+")


def parse_go_duration(text: str) -> float:
    """Return the seconds.

    Raises:
      ValueError: it is not a duration, or negative.
    """
    if text == "0":
        return 0.0
    if len(text) > 40 or not _WHOLE.fullmatch(text):
        raise ValueError("not a duration")
    return float(sum(Decimal(number) * Decimal(_SECONDS[unit]) for number, unit in _PART.findall(text)))
