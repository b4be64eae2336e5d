"""Run one attempt: from the bytes of a spec to a verdict and its JSON."""

import inspect
import json
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import Result, Verdict, Work
from reproq_supervisor.executor.api import Fail, Retry, SoftTimeout, TaskContext
from reproq_supervisor.executor.encode import BadResultError, encode_error, encode_result, message_of
from reproq_supervisor.executor.resolve import ForbiddenTaskError, Resolver, Target, TaskNotFoundError
from reproq_supervisor.executor.soft import SoftSignal


class InvalidSpecError(ValueError):
    """The record's spec cannot be run."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a spec asks for; `is_named_by_spec` is false when only the record names the task."""

    path: str
    args: list[Any]
    kwargs: dict[str, Any]
    takes_context: bool
    is_named_by_spec: bool


def run_attempt(work: Work, resolver: Resolver, soft: SoftSignal, max_result_bytes: int) -> Result:
    """Run *work* to its end, whatever the task does short of killing the process."""
    try:
        call = read_call(work)
        target = resolver.resolve(call.path)
        value = _invoke(work, call, target, soft)
        return Result(work.seq, Verdict.SUCCEED, encode_result(value, max_result_bytes))
    except InvalidSpecError as error:
        return _failed(work, ErrorKind.INVALID_SPEC, str(error), final=True)
    except ForbiddenTaskError as error:
        return _failed(work, ErrorKind.SECURITY_VIOLATION, str(error), final=True)
    except TaskNotFoundError as error:
        # The contract reports a missing task as an application error of class ImportError.
        missing = ImportError(str(error))
        missing.__cause__ = error.__cause__
        return _failed(work, ErrorKind.APP_ERROR, str(error), missing, final=True)
    except BadResultError as error:
        return _failed(work, ErrorKind.BAD_RESULT, str(error), final=True)
    except SoftTimeout as error:
        kind = ErrorKind.CANCELLED if error.reason == "cancel" else ErrorKind.TIMEOUT
        return Result(work.seq, Verdict.STOPPED, encode_error(kind, f"stopped: {error.reason}", error))
    except Retry as error:
        body = encode_error(ErrorKind.APP_ERROR, message_of(error), error)
        return Result(work.seq, Verdict.FAIL, body, delay_s=error.delay_s)
    except Fail as error:
        return _failed(work, ErrorKind.APP_ERROR, message_of(error), error, final=True)
    except BaseException as error:  # boundary: user code may raise anything, SystemExit and KeyboardInterrupt included
        return _failed(work, ErrorKind.APP_ERROR, message_of(error), error)


def _failed(work: Work, kind: ErrorKind, message: str, error: BaseException | None = None, *, final: bool = False) -> Result:
    verdict = Verdict.FAIL_FINALLY if final else Verdict.FAIL
    return Result(work.seq, verdict, encode_error(kind, message, error))


def read_call(work: Work) -> Call:
    """Return what the spec of *work* asks for.

    Raises:
      InvalidSpecError: it cannot be run.
    """
    try:
        spec = json.loads(work.spec)
    except (ValueError, RecursionError) as error:
        raise InvalidSpecError(f"spec_json: expected a JSON object, got text that does not parse: {error}") from error
    if not isinstance(spec, dict):
        raise InvalidSpecError(f"spec_json: expected an object, got {type(spec).__name__}")
    named = spec.get("task_path")
    path = named or work.task_path
    args, kwargs = spec.get("args") or [], spec.get("kwargs") or {}
    if not isinstance(path, str) or not path:
        raise InvalidSpecError("spec_json.task_path: expected a dotted path, got none")
    if not isinstance(args, list):
        raise InvalidSpecError(f"spec_json.args: expected an array, got {type(args).__name__}")
    if not isinstance(kwargs, dict):
        raise InvalidSpecError(f"spec_json.kwargs: expected an object, got {type(kwargs).__name__}")
    return Call(path, args, kwargs, bool(spec.get("takes_context")), bool(named))


def _invoke(work: Work, call: Call, target: Target, soft: SoftSignal) -> Any:
    args = call.args
    if call.takes_context or target.takes_context:
        context = TaskContext(str(work.result_id), work.attempt, work.max_attempts, call.path, work.queue_name, work.priority)
        args = [context, *args]
    try:
        soft.begin(work.seq)
        value = target.call(*args, **call.kwargs)
        return soft.run_coroutine(value) if inspect.iscoroutine(value) else value
    finally:
        soft.end()
