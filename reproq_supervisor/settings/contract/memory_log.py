"""REPROQ_MEMORY_LOG_INTERVAL: how often the supervisor logs the memory of its processes."""

from collections.abc import Mapping

from reproq_supervisor.settings.contract.durations import parse_go_duration

NAME = "REPROQ_MEMORY_LOG_INTERVAL"
SHORTEST_S = 1.0
_OFF = ("", "0", "off", "false", "no")


def memory_log_interval(environ: Mapping[str, str]) -> float | None:
    """Return the seconds of a duration, or of a bare whole number; None when memory is not logged.

    Raises:
      ValueError: it is neither.
    """
    text = environ.get(NAME, "").strip()
    if text.lower() in _OFF:
        return None
    seconds = float(text) if text.isascii() and text.isdecimal() else parse_go_duration(text)
    return max(seconds, SHORTEST_S) if seconds else None
