"""Files with what tasks printed: how they are called, and their end."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"task-([0-9]{1,19})-attempt-([0-9]{1,10})\.log")
# A run is tried a few times; a row that says more is not worth more looks.
_MOST_ATTEMPTS = 1000


def log_name(result_id: int, attempt: int) -> str:
    """Return the name of the file with what an attempt printed."""
    return f"task-{result_id}-attempt-{attempt}.log"


def is_log(name: str) -> bool:
    """Answer whether a file of this name has what some attempt printed."""
    return _NAME.fullmatch(name) is not None


def logs_of(result_id: int, logs_uri: str | None) -> Iterator[Path]:
    """Yield where the attempts of a run printed to, where *logs_uri*, of the last of them, is a file of this host; not all need be there.

    Only files of that run by their own names: whoever can write a row must not be able to have any other file deleted.
    """
    path = Path((logs_uri or "").removeprefix("file://"))
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[1]) != result_id or not path.is_absolute():
        return
    for attempt in range(1, min(int(match[2]), _MOST_ATTEMPTS) + 1):
        yield path.with_name(log_name(result_id, attempt))


def count_logs(result_id: int, logs_uri: str | None) -> int:
    """Return how many files `remove_logs` would delete."""
    return sum(path.exists() for path in logs_of(result_id, logs_uri))


def remove_logs(result_id: int, logs_uri: str | None) -> int:
    """Delete what the attempts of a run printed on this host; return how many files."""
    removed = 0
    for path in logs_of(result_id, logs_uri):
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed
