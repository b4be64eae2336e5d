"""The result envelope of the executor protocol: what a program says about its one attempt, as one JSON document on its standard output.

    {"ok": true, "return": <json>}
    {"ok": false, "exception_class": str, "message": str, "traceback": str or null}

Beside the contract's keys a failure may have `"retry": false` (no attempt is left), `"retry_after_s": number`, and as `kind` one of
`bad_result`, `invalid_spec` and `security_violation` instead of `app_error`. A program that knows nothing of these needs none of them.
"""

import json
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.policy.retry import asked_delay_s
from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import Result, Verdict

_KINDS = frozenset({ErrorKind.APP_ERROR, ErrorKind.BAD_RESULT, ErrorKind.INVALID_SPEC, ErrorKind.SECURITY_VIOLATION})
_CLASS_BY_KIND = {
    ErrorKind.INVALID_SPEC: "PayloadError",
    ErrorKind.SECURITY_VIOLATION: "ForbiddenTaskError",
    ErrorKind.BAD_RESULT: "BadResultError",
}
_MISTAKES = frozenset({"PayloadError", "ImportError"})


class NoEnvelopeError(ValueError):
    """What a program wrote is no envelope; the message is the contract's."""


@dataclass(frozen=True, slots=True)
class Success:
    """The task returned *value*, which is still to be checked."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """The task failed.

    Attributes:
      is_final: no attempt is left.
      delay_s: what the task asked for before its retry, None for the policy's.
    """

    kind: ErrorKind
    exception_class: str
    message: str
    traceback: str
    is_final: bool
    delay_s: float | None


def read_envelope(stdout: bytes) -> Success | Failure:
    """Return what the program said.

    Raises:
      NoEnvelopeError: *stdout* is anything but one envelope.
    """
    try:
        envelope = json.loads(stdout.decode())
    except (ValueError, RecursionError) as error:
        raise NoEnvelopeError(f"Invalid JSON on stdout: {error}") from error
    if not isinstance(envelope, dict) or not isinstance(envelope.get("ok"), bool):
        raise NoEnvelopeError(f'Invalid JSON on stdout: expected an object with "ok", true or false, got {type(envelope).__name__}')
    return Success(envelope.get("return")) if envelope["ok"] else _read_failure(envelope)


def _read_failure(envelope: dict[str, Any]) -> Failure:
    named = envelope.get("kind")
    kind = ErrorKind(named) if isinstance(named, str) and named in _KINDS else ErrorKind.APP_ERROR
    exception_class, traceback = _text(envelope.get("exception_class")), _text(envelope.get("traceback"))
    # The contract's executor says of a task that cannot be imported just this; an ImportError from inside a task has a traceback.
    is_mistake = exception_class in _MISTAKES and not traceback
    return Failure(
        kind,
        exception_class,
        _text(envelope.get("message")),
        traceback,
        is_final=kind is not ErrorKind.APP_ERROR or is_mistake or envelope.get("retry") is False,
        delay_s=asked_delay_s(envelope.get("retry_after_s")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def write_envelope(result: Result) -> bytes:
    """Return the envelope of an attempt that ended as *result* says."""
    if result.verdict is Verdict.SUCCEED:
        return b'{"ok":true,"return":' + result.body + b"}\n"
    error = json.loads(result.body)
    kind, exception_class = ErrorKind(error["kind"]), str(error.get("exception_class", ""))
    envelope: dict[str, object] = {
        "ok": False,
        "exception_class": _CLASS_BY_KIND.get(kind, exception_class),
        "message": error["message"],
        "traceback": error.get("traceback"),
    }
    match result.verdict:
        case Verdict.STOPPED:
            envelope["exception_class"] = "Terminated"
        case Verdict.FAIL_FINALLY:
            envelope["retry"] = False
            if kind is not ErrorKind.APP_ERROR:
                envelope["kind"] = kind
            elif exception_class == "ImportError":
                envelope["traceback"] = None  # the contract's way of saying that the task was not found
        case Verdict.FAIL if result.delay_s is not None:
            envelope["retry_after_s"] = result.delay_s
    return json.dumps(envelope).encode() + b"\n"
