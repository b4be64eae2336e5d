"""How executors call the tasks of Django: with their arguments made again, the framework's context, and its signals.

    spec ──► arguments (models read from the queue's database) ──► started ──► the task ──► finished

Installed by the application's `ready`, so before an executor is forked.
"""

import functools
import inspect
import os
import socket
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async

from reproq_django import signals
from reproq_django.calls import changed
from reproq_django.context import TaskContext
from reproq_django.framework import Task, TaskError, TaskResultStatus, task_finished, task_started
from reproq_django.results import ReproqTaskResult
from reproq_django.routing import resolve_queue_db, result_id_of
from reproq_django.serialization import TYPE, decode_args
from reproq_supervisor.core.work import MAX_RESULT_BYTES
from reproq_supervisor.executor.encode import BadResultError, encode_result
from reproq_supervisor.executor.entry import Invocation, use_entry

SENDER = "reproq_django.executor"


def install() -> None:
    """Have the tasks of this process called as here, should it be an executor."""
    use_entry(enter)


def enter(invocation: Invocation) -> "functools.partial[Any]":
    """Return the call to make for a task."""
    run = _Run(invocation, resolve_queue_db(invocation.context.queue_name))
    return functools.partial(_acall if inspect.iscoroutinefunction(invocation.call) else _call, run)


@dataclass(slots=True)
class _Run:
    """A task that is about to be called, and the alias of the database of its queue."""

    invocation: Invocation
    alias: str
    context: TaskContext | None = None

    def begin(self) -> TaskContext:
        """Make its context."""
        self.context = TaskContext.of(self.invocation.context, _result_of(self.invocation, self.alias), self.alias)
        return self.context

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return what the task is called with.

        Raises:
          DeserializationError: an argument cannot be made.
        """
        args, kwargs = decode_args(self.invocation.args, self.invocation.kwargs, self.alias)
        return [self.context, *args] if self.invocation.takes_context else args, kwargs

    @property
    def sender(self) -> type | None:
        """The class of the task's backend, None for a plain function."""
        task = self.invocation.task
        return type(task.get_backend()) if isinstance(task, Task) else None


def _call(run: _Run) -> Any:
    context = run.begin()
    _tell_started(run, context)
    try:
        args, kwargs = run.arguments()
        value = run.invocation.call(*args, **kwargs)
    except BaseException as error:  # boundary: who listens is told of whatever ends a task; it goes on from here
        _tell_finished(run, context, error)
        raise
    _tell_finished(run, context, _refusal_of(value))
    return value


async def _acall(run: _Run) -> Any:
    context = run.begin()
    await _aside(_tell_started, run, context)
    try:
        reads = _has_models(run.invocation.args) or _has_models(run.invocation.kwargs)
        args, kwargs = await _aside(run.arguments) if reads else run.arguments()
        value = await run.invocation.call(*args, **kwargs)
    except BaseException as error:  # boundary: who listens is told of whatever ends a task; it goes on from here
        await _aside(_tell_finished, run, context, error)
        raise
    await _aside(_tell_finished, run, context, _refusal_of(value))
    return value


def _refusal_of(value: Any) -> BadResultError | None:
    """Return what the executor will say of a result that cannot be stored: who listens shall not hear of a success."""
    try:
        encode_result(value, MAX_RESULT_BYTES)
    except BadResultError as error:
        return error
    return None


async def _aside(call: Any, *args: Any) -> Any:
    """Make a call that may ask a database in the thread that Django's connections of coroutines belong to."""
    return await sync_to_async(call, thread_sensitive=True)(*args)


def _tell_started(run: _Run, context: TaskContext) -> None:
    # What a receiver raises is logged by Django; it is no reason to fail a task.
    signals.task_started.send_robust(SENDER, task_context=context)
    if run.sender is not None:
        task_started.send_robust(run.sender, task_result=context.task_result)


def _tell_finished(run: _Run, context: TaskContext, error: BaseException | None) -> None:
    signals.task_finished.send_robust(SENDER, task_context=context, ok=error is None, error=error)
    if run.sender is None:
        return
    result = context.task_result
    object.__setattr__(result, "finished_at", datetime.now(UTC))
    object.__setattr__(result, "status", TaskResultStatus.SUCCESSFUL if error is None else TaskResultStatus.FAILED)
    if error is not None:
        name = type(error)
        trace = "".join(traceback.format_exception(error))
        result.errors.append(TaskError(exception_class_path=f"{name.__module__}.{name.__qualname__}", traceback=trace))
    task_finished.send_robust(run.sender, task_result=result)


def _result_of(invocation: Invocation, alias: str) -> ReproqTaskResult | None:
    """Return the result of a run that begins, from what the executor knows: when it was enqueued is not among it."""
    task, context = invocation.task, invocation.context
    if not isinstance(task, Task):
        return None
    now = datetime.now(UTC)
    result = ReproqTaskResult(
        task=changed(task, priority=context.priority, queue_name=context.queue_name),
        id=result_id_of(alias, int(context.result_id)),
        status=TaskResultStatus.RUNNING,
        enqueued_at=None,
        started_at=now,
        finished_at=None,
        last_attempted_at=now,
        args=invocation.args,
        kwargs=invocation.kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[f"{socket.gethostname()}-{os.getpid()}"] * context.attempt,
    )
    object.__setattr__(result, "db_alias", alias)
    object.__setattr__(result, "raw_status", "RUNNING")
    object.__setattr__(result, "metadata", context.metadata)
    return result


def _has_models(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get(TYPE) == "model" or any(map(_has_models, value.values()))
    return isinstance(value, list) and any(map(_has_models, value))
