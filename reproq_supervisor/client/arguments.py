"""What may be stored with a run, JSON that PostgreSQL keeps and gives back equal and numbers within their columns; and what names a run."""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

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
    keys = (run.lock_key, run.concurrency_key, run.concurrency_limit, run.code_ref, run.pip_lock_hash)
    places = (name, run.queue_name, run.backend_alias, run.priority, run.max_attempts, run.timeout_seconds, *keys)
    try:
        _check_places(*places)
    except TypeError:  # not hashable, and so none of them
        _check_places.__wrapped__(*places)
    args, kwargs = run.args, run.kwargs
    if not isinstance(args, list | tuple | Sequence) or isinstance(args, str | bytes):
        raise ArgumentsError(f"{name}: args: expected a list or a tuple, got {args!r}")
    for at, value in enumerate(args):
        if not _is_plain(value):
            check_json(value, f"{name}: args[{at}]")
    if not isinstance(kwargs, dict):
        raise ArgumentsError(f"{name}: kwargs: expected a dict, got {kwargs!r}")
    if not (all(map(_is_plain_text, kwargs)) and all(map(_is_plain, kwargs.values()))):
        check_json(kwargs, f"{name}: kwargs")
    if run.run_after is not None and (not isinstance(run.run_after, datetime) or run.run_after.tzinfo is None):
        raise ArgumentsError(f"{name}: run_after: expected a time with a zone, got {run.run_after!r}; a duration is a delay")
    if run.delay_s is not None:
        _check_seconds(run.delay_s, f"{name}: delay_s")
    if run.expires_in_s is not None:
        _check_seconds(run.expires_in_s, f"{name}: expires_in_s")


# Runs that are enqueued at once differ by their arguments only, and to check the rest took half of the time. Typed, for 1 == True.
@lru_cache(maxsize=256, typed=True)
def _check_places(
    name: str,
    queue_name: str,
    backend_alias: str,
    priority: int,
    max_attempts: int,
    timeout_seconds: int,
    lock_key: str | None,
    concurrency_key: str | None,
    concurrency_limit: int,
    code_ref: str | None,
    pip_lock_hash: str | None,
) -> None:
    """Check what says where and how a run is to be run."""
    _check_text(name, "task_path")
    if not _PATH.fullmatch(name):
        raise ArgumentsError(f"task_path: expected the dotted name of a task such as app.tasks.send, got {name!r}")
    _check_text(queue_name, f"{name}: queue_name")
    _check_text(backend_alias, f"{name}: backend_alias")
    if not queue_name:
        raise ArgumentsError(f"{name}: queue_name: expected the name of a queue, got ''")
    _check_whole(priority, f"{name}: priority", -MOST_INT32 - 1)
    _check_whole(max_attempts, f"{name}: max_attempts", 1)
    _check_whole(timeout_seconds, f"{name}: timeout_seconds", 1)
    _check_whole(concurrency_limit, f"{name}: concurrency_limit", 0)
    names = {"lock_key": lock_key, "concurrency_key": concurrency_key, "code_ref": code_ref, "pip_lock_hash": pip_lock_hash}
    for what, words in names.items():
        if words is not None:
            _check_text(words, f"{name}: {what}")
    if concurrency_key and not concurrency_limit:
        raise ArgumentsError(f"{name}: concurrency_limit: expected how many runs with the key may run at once, got 0")


def _check_seconds(seconds: object, path: str) -> None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and abs(seconds) <= MOST_INT32):  # type: ignore[arg-type]
        raise ArgumentsError(f"{path}: expected seconds, at most {MOST_INT32}, got {seconds!r}")


def _is_plain(value: object) -> bool:
    """Answer whether *value* is clearly right, as nearly all are; what is not may be right as well."""
    kind = type(value)
    return _is_plain_text(value) if kind is str else value is None or kind is bool or (kind is int and -_MOST_INT64 <= value <= _MOST_INT64)  # type: ignore[operator]


def _is_plain_text(value: object) -> bool:
    return type(value) is str and value.isascii() and "\0" not in value


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
