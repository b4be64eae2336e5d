"""What may be stored with a run, JSON that PostgreSQL keeps and gives back equal and numbers within their columns; and what names a run."""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from reproq_supervisor.client.errors import ClientError
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId

MOST_INT32 = 2**31 - 1
_MOST_INT64 = 2**63 - 1
_MOST_DEPTH = 200
_MOST_BITS = 4000 * 3  # Python reads no longer ones from text, in decimal digits
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


class ArgumentsError(ClientError, ValueError):
    """A run cannot be enqueued as it was given, or is not named by what was given; the message names the place."""


def check_ids(runs: Iterable[int]) -> list[RunId]:
    """Return the ids of runs, none of which the database would take for another.

    Raises:
      ArgumentsError: one is no whole number: text, say, as a URL has it, which would be found and then not be recognised.
    """
    return [_check_id(run) for run in runs]


def _check_id(run: object) -> RunId:
    if hasattr(run, "__index__") and not isinstance(run, bool) and abs(number := operator.index(run)) <= _MOST_INT64:
        return RunId(number)
    raise ArgumentsError(f"id of a run: expected a whole number, got {run!r}")


def check_run(run: NewRun) -> None:
    """Refuse what the database would refuse, or would give back as something else.

    Raises:
      ArgumentsError: with the path of the first value that is not right.
    """
    name = run.task_path
    _check_text(name, "task_path")
    if not _PATH.fullmatch(name):
        raise ArgumentsError(f"task_path: expected the dotted name of a task such as app.tasks.send, got {name!r}")
    if not isinstance(run.args, Sequence) or isinstance(run.args, str | bytes):
        raise ArgumentsError(f"{name}: args: expected a list or a tuple, got {run.args!r}")
    for at, value in enumerate(run.args):
        check_json(value, f"{name}: args[{at}]")
    if not isinstance(run.kwargs, dict):
        raise ArgumentsError(f"{name}: kwargs: expected a dict, got {run.kwargs!r}")
    check_json(run.kwargs, f"{name}: kwargs")
    _check_text(run.queue_name, f"{name}: queue_name")
    _check_text(run.backend_alias, f"{name}: backend_alias")
    if not run.queue_name:
        raise ArgumentsError(f"{name}: queue_name: expected the name of a queue, got ''")
    _check_whole(run.priority, f"{name}: priority", -MOST_INT32 - 1)
    _check_whole(run.max_attempts, f"{name}: max_attempts", 1)
    _check_whole(run.timeout_seconds, f"{name}: timeout_seconds", 1)
    _check_whole(run.concurrency_limit, f"{name}: concurrency_limit", 0)
    for what in ("lock_key", "concurrency_key", "code_ref", "pip_lock_hash"):
        if (words := getattr(run, what)) is not None:
            _check_text(words, f"{name}: {what}")
    if run.concurrency_key and not run.concurrency_limit:
        raise ArgumentsError(f"{name}: concurrency_limit: expected how many runs with the key may run at once, got 0")
    if run.run_after is not None and (not isinstance(run.run_after, datetime) or run.run_after.tzinfo is None):
        raise ArgumentsError(f"{name}: run_after: expected a time with a zone, got {run.run_after!r}; a duration is a delay")
    for what, seconds in (("delay_s", run.delay_s), ("expires_in_s", run.expires_in_s)):
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and abs(seconds) <= MOST_INT32):
            raise ArgumentsError(f"{name}: {what}: expected seconds, at most {MOST_INT32}, got {seconds!r}")


def check_json(value: object, path: str) -> None:
    """Refuse *value* if it is no JSON that comes back equal; a tuple comes back as a list, a float like 3e16 as a whole number.

    Raises:
      ArgumentsError: with the path of the value that is not, as in `kwargs.order.lines[2]`.
    """
    try:
        _check(value, path, 0)
    except RecursionError as error:
        raise ArgumentsError(f"{path}: expected at most {_MOST_DEPTH} levels, got more") from error


def _check(value: object, path: str, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ArgumentsError(f"{path}: expected at most {_MOST_DEPTH} levels of lists and objects, got more, or one that contains itself")
    match value:
        case None | bool():
            return
        case str():
            _check_text(value, path)
        case int():
            if value.bit_length() > _MOST_BITS:
                raise ArgumentsError(f"{path}: expected a number of at most {_MOST_BITS} bits, got {value.bit_length()}")
        case float():
            if not math.isfinite(value):
                raise ArgumentsError(f"{path}: expected a finite number, got {value!r}, which JSON has not")
        case list() | tuple():
            for at, item in enumerate(value):
                _check(item, f"{path}[{at}]", depth + 1)
        case Mapping() if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ArgumentsError(f"{path}: expected names of type str, got {key!r}, which would come back as text")
                _check_text(key, path)
                _check(item, f"{path}.{key}", depth + 1)
        case _:
            kind = type(value)
            raise ArgumentsError(
                f"{path}: expected JSON (null, true, false, number, text, list, object), got {kind.__module__}.{kind.__qualname__}; "
                "pass what identifies it, as text or number"
            )


def _check_text(value: object, path: str) -> None:
    if not isinstance(value, str):
        raise ArgumentsError(f"{path}: expected text, got {type(value).__name__}")
    if "\0" in value:
        raise ArgumentsError(f"{path}: expected text that PostgreSQL can store, got the NUL character at {value.index(chr(0))}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentsError(f"{path}: expected text in UTF-8, got a lone surrogate at {error.start}") from error


def _check_whole(value: object, path: str, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_INT32:
        raise ArgumentsError(f"{path}: expected a whole number from {least} to {MOST_INT32}, got {value!r}")
