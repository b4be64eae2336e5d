"""Results and errors as JSON text that PostgreSQL will take.

What cannot be stored is found here, in the process that made it, so that it becomes a clear failure instead of a lost completion.
"""

import datetime
import json
import pathlib
import re
import sys
import traceback
import types
from typing import Any

MAX_MESSAGE_CHARS = 4096
MAX_TRACEBACK_CHARS = 16384

_OUR_FOLDER = str(pathlib.Path(__file__).parent)

# An escaped NUL: an odd number of backslashes before u0000.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class BadResultError(ValueError):
    """A value cannot be stored; the message says which, and what is expected."""


def encode_result(value: Any, max_bytes: int) -> bytes:
    """Return *value* as JSON text; raises as `encode_value`."""
    if value is None:
        return b"null"  # what most tasks return: 1.3 us less for each of them
    return encode_value(value, max_bytes, "result")


def encode_value(value: Any, max_bytes: int, name: str) -> bytes:
    """Return *value*, called *name* in errors, as JSON text.

    Dates and times become ISO 8601; Decimal, UUID and paths become strings; tuples become lists.

    Raises:
      BadResultError: not serialisable, NaN or infinite, holds NUL or a lone surrogate, or longer than *max_bytes*.
    """
    try:
        text = _ENCODER.encode(value).encode()
    except UnicodeEncodeError as error:
        raise BadResultError(f"{name}: expected text in UTF-8, got a lone surrogate") from error
    except ValueError as error:
        raise BadResultError(f"{name}: expected JSON, got {_why_refused(error)}") from error
    except TypeError as error:
        raise BadResultError(f"{name}: expected JSON, got {error}") from error
    except RecursionError as error:
        raise BadResultError(f"{name}: expected JSON, got a value nested too deep") from error
    if len(text) > max_bytes:
        raise BadResultError(f"{name}: expected at most {max_bytes} bytes of JSON, got {len(text)}; store it elsewhere")
    if b"\\u0000" in text and _NUL.search(text):
        raise BadResultError(f"{name}: expected text that PostgreSQL can store, got the NUL character")
    return text


def _why_refused(error: ValueError) -> str:
    words = str(error)
    if "ircular" in words:
        return "a value that contains itself"
    return "NaN or an infinite number" if words.startswith("Out of range") else words


def _plain(value: object) -> object:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, pathlib.PurePath) or _is_a(value, "decimal", "Decimal") or _is_a(value, "uuid", "UUID"):
        return str(value)
    raise TypeError(f"an object of type {type(value).__module__}.{type(value).__qualname__}")


def _is_a(value: object, module: str, name: str) -> bool:
    """Answer whether *value* is of that class, without importing it: while nobody has, there is no such value. The two are 0.5 MiB."""
    home = sys.modules.get(module)
    return home is not None and isinstance(value, getattr(home, name, ()))


# Made once: `json.dumps` makes one for each call, which costs more than most results.
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)


def encode_error(kind: str, message: str, error: BaseException | None = None) -> bytes:
    """Return an error object of the contract (`kind`, `message`; with *error* its class, bare and with its module, and `traceback`)."""
    fields = {"kind": kind, "message": _storable(message, MAX_MESSAGE_CHARS)}
    if error is not None:
        kind_of = type(error)
        fields["exception_class"] = _storable(kind_of.__name__, 256)
        fields["exception_class_path"] = _storable(f"{kind_of.__module__}.{kind_of.__qualname__}", 512)
        fields["traceback"] = _storable(_traceback(error), MAX_TRACEBACK_CHARS)
    return json.dumps(fields, separators=(",", ":")).encode()


def encode_failure(kind: str, message: str, exception_class: str = "", trace: str = "", *, exit_code: int = 0) -> bytes:
    """Return the error object for what a program reported, or did not; an *exit_code* other than 0 is recorded."""
    fields: dict[str, object] = {
        "kind": kind,
        "message": _storable(message, MAX_MESSAGE_CHARS),
        "exception_class": _storable(exception_class, 256),
        "traceback": _storable(trace, MAX_TRACEBACK_CHARS),
    }
    if exit_code:
        fields["exit_code"] = exit_code
    return json.dumps(fields, separators=(",", ":")).encode()


def message_of(error: BaseException) -> str:
    """Return str(*error*), or a note when even that fails."""
    try:
        return str(error)
    except BaseException as second:  # boundary: __str__ is user code
        return f"({type(error).__name__} whose text failed with {type(second).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, _below_ours(error.__traceback__)))
    except BaseException as second:  # boundary: formatting calls user code
        return f"(no traceback: formatting failed with {type(second).__name__})"
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS + 1 :]


def _below_ours(frames: types.TracebackType | None) -> types.TracebackType | None:
    """Return *frames* from the first that is not ours: whoever reads it looks for the task's own code."""
    theirs = frames
    while theirs is not None and theirs.tb_frame.f_code.co_filename.startswith(_OUR_FOLDER):
        theirs = theirs.tb_next
    return theirs or frames


def _storable(text: str, most: int) -> str:
    """Cut *text* to *most* characters without NUL or lone surrogates, which JSONB refuses."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
