"""Run one attempt: from the bytes of a spec to a verdict and its JSON."""

import functools
import inspect
import json
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol

from reproq_supervisor.core.policy.retry import asked_delay_s
from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import Result, Verdict, Work
from reproq_supervisor.executor import django_state
from reproq_supervisor.executor.api import Fail, Retry, SoftTimeout
from reproq_supervisor.executor.context import TaskContext, entered
from reproq_supervisor.executor.encode import BadResultError, encode_error, encode_result, message_of
from reproq_supervisor.executor.entry import Invocation, enter_by
from reproq_supervisor.executor.host import Host
from reproq_supervisor.executor.resolve import ForbiddenTaskError, Resolver, TaskNotFoundError

_NOBODY = Host()
_DECODER = json.JSONDecoder()
_JSON_BLANKS = " \t\r\n"


class InvalidSpecError(ValueError):
    """The record's spec cannot be run."""


class Call(NamedTuple):
    """What a spec asks for.

    Attributes:
      is_named_by_spec: false when only the record names the task.
      metadata: what earlier attempts, or who enqueued it, noted down about the run.
    """

    path: str
    args: list[Any]
    kwargs: dict[str, Any]
    takes_context: bool
    is_named_by_spec: bool
    metadata: dict[str, Any]


class Prepared(NamedTuple):
    """A task with its arguments, and the context of its run."""

    call: functools.partial[Any]
    context: TaskContext


class Soft(Protocol):
    """How a task that runs in this thread is asked to stop."""

    def begin(self, seq: int) -> None:
        """Hand-out *seq* runs here from now on; raise `SoftTimeout` if it was asked to stop before it began."""

    def end(self) -> None:
        """Nothing runs here."""

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* to its end, in a loop of its own."""


def run_attempt(work: Work, resolver: Resolver, soft: Soft, max_result_bytes: int, host: Host = _NOBODY) -> Result:
    """Run *work* to its end, whatever the task does short of killing the process."""
    prepared: Prepared | None = None
    host.open(work.seq)
    try:
        django_state.begin_task()
        prepared = prepare(work, resolver, host)
        with entered(prepared.context, is_alone=host.is_alone):
            value = _invoke(work.seq, prepared, soft, max_result_bytes)
        return prepared.context.complete(returned(work, value, max_result_bytes))
    except BaseException as error:  # boundary: user code may raise anything, SystemExit and KeyboardInterrupt included
        return raised(work, error)
    finally:
        if prepared is not None:
            prepared.context.end()
        host.close(work.seq)
        django_state.end_task()


def prepare(work: Work, resolver: Resolver, host: Host) -> Prepared:
    """Return the task's callable with its arguments; whatever is wrong with them is raised."""
    call = read_call(work)
    target = resolver.resolve(call.path)
    context = TaskContext(work, call.path, call.metadata, host)
    takes_context = call.takes_context or target.takes_context
    return Prepared(enter_by(Invocation(target.task, target.call, context, call.args, call.kwargs, takes_context)), context)


def returned(work: Work, value: Any, max_result_bytes: int) -> Result:
    """Return the result of a task that returned *value*.

    Raises:
      BadResultError: it cannot be stored.
    """
    return Result(work.seq, Verdict.SUCCEED, encode_result(value, max_result_bytes))


def raised(work: Work, error: BaseException) -> Result:
    """Return the result of an attempt that ended by *error*."""
    match error:
        case InvalidSpecError():
            return _failed(work, ErrorKind.INVALID_SPEC, str(error), final=True)
        case ForbiddenTaskError():
            return _failed(work, ErrorKind.SECURITY_VIOLATION, str(error), final=True)
        case TaskNotFoundError():
            # The contract reports a missing task as an application error of class ImportError.
            missing = ImportError(str(error))
            missing.__cause__ = error.__cause__
            return _failed(work, ErrorKind.APP_ERROR, str(error), missing, final=True)
        case BadResultError():
            return _failed(work, ErrorKind.BAD_RESULT, str(error), final=True)
        case SoftTimeout():
            kind = ErrorKind.CANCELLED if error.reason == "cancel" else ErrorKind.TIMEOUT
            return Result(work.seq, Verdict.STOPPED, encode_error(kind, f"stopped: {error.reason}", error))
        case Retry():
            body = encode_error(ErrorKind.APP_ERROR, message_of(error), error)
            return Result(work.seq, Verdict.FAIL, body, delay_s=asked_delay_s(error.delay_s))
        case Fail():
            return _failed(work, ErrorKind.APP_ERROR, message_of(error), error, final=True)
        case _:
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
        spec = _read_json(work.spec)
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
    metadata = spec.get("metadata")
    return Call(path, args, kwargs, bool(spec.get("takes_context")), bool(named), metadata if isinstance(metadata, dict) else {})


def _read_json(text: bytes) -> Any:
    """Return what UTF-8 JSON says: in 0.5 us, where `json.loads` takes 1.6 to look for other encodings first, and for white space twice."""
    document = text.decode().strip(_JSON_BLANKS)
    value, end = _DECODER.raw_decode(document)
    if end != len(document):
        raise json.JSONDecodeError("Extra data", document, end)
    return value


async def completed(coroutine: Coroutine[Any, Any, Any], context: TaskContext, max_result_bytes: int) -> Any:
    """Return what *coroutine* returns, after the end of its run was written where it asked for that on its loop."""
    value = await coroutine
    await context.complete_on_loop(lambda: encode_result(value, max_result_bytes))
    return value


def _invoke(seq: int, prepared: Prepared, soft: Soft, max_result_bytes: int) -> Any:
    try:
        soft.begin(seq)
        value = prepared.call()
        return _run_coroutine(value, prepared.context, soft, max_result_bytes) if inspect.iscoroutine(value) else value
    finally:
        soft.end()


def _run_coroutine(coroutine: Coroutine[Any, Any, Any], context: TaskContext, soft: Soft, max_result_bytes: int) -> Any:
    try:
        return soft.run_coroutine(completed(coroutine, context, max_result_bytes))
    finally:
        coroutine.close()  # of a run that was asked to stop before it began
