"""Functions as tasks: `@task` keeps how a function is to be run, and enqueues it with its arguments checked.

    @task(queue="mail", max_attempts=5, lock_key="account:{account_id}")
    def send(account_id, subject): ...

    send.enqueue(7, "Welcome")

The function stays callable as before. Its task path is where executors import it from: module and name, as the module is imported there.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

from reproq_supervisor.client.arguments import ArgumentsError, check_run
from reproq_supervisor.client.default import default_async_client, default_client
from reproq_supervisor.client.options import GivenOptions, TaskOptions, key_of, seconds
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.executor.context import TaskContext

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import AsyncConnection, Connection

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function with how it is to be run.

    Attributes:
      func: the function itself: what executors call.
      path: its task path.
      takes_context: its first argument is the `TaskContext` of its run, which whoever enqueues it does not give.
    """

    def __init__(self, func: Callable[..., R], options: TaskOptions, *, takes_context: bool) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.options = options
        self.takes_context = takes_context
        self._signature = _enqueued_signature(func, takes_context=takes_context)

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the function, here and now; one that takes a context wants it first."""
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.func.__module__}.{self.func.__qualname__}>"

    @property
    def path(self) -> str:
        """Where executors find it.

        Raises:
          ArgumentsError: nowhere: it was made inside a function, or in a script that nobody can import.
        """
        return _path_of(self.func)

    def using(self, **options: Unpack[GivenOptions]) -> "Task[P, R]":
        """Return the same task with other options: `send.using(queue="bulk", delay=60).enqueue(7)`."""
        return Task(self.func, dataclasses.replace(self.options, **options), takes_context=self.takes_context)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> NewRun:
        """Return the run that `enqueue` would insert: for `client.enqueue_many`, and for workflows.

        Raises:
          ArgumentsError: the function cannot be called so, or an argument is no JSON; the message names it.
        """
        path, options = self.path, self.options
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(f"{path}: expected arguments for {_shown(self._signature)}, got another call: {error}") from error
        bound.apply_defaults()
        keys = {
            name: key_of(key, f"{path}: {name}", args, kwargs, bound.arguments)
            for name, key in (("lock_key", options.lock_key), ("concurrency_key", options.concurrency_key))
        }
        run = NewRun(
            path,
            args=args,
            kwargs=dict(kwargs),
            queue_name=options.queue,
            priority=options.priority,
            run_after=options.run_after,
            delay_s=seconds(options.delay),
            expires_in_s=seconds(options.expires_in),
            max_attempts=options.max_attempts,
            timeout_seconds=_whole_seconds(options.timeout, path),
            takes_context=self.takes_context,
            lock_key=keys["lock_key"],
            concurrency_key=keys["concurrency_key"],
            concurrency_limit=options.concurrency_limit if keys["concurrency_key"] else 0,
            dedupe=options.dedupe,
        )
        check_run(run)
        return run

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> RunId:
        """Insert a run with these arguments, by the default client; return its id. Raises as `call` and as `Client`."""
        return default_client().enqueue(self.call(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> RunId:
        """As `enqueue`, for coroutines."""
        return await default_async_client().enqueue(self.call(*args, **kwargs))

    def enqueue_in(self, connection: "Connection", *args: P.args, **kwargs: P.kwargs) -> RunId:
        """As `enqueue`, in the transaction of the caller's own psycopg *connection*."""
        return default_client().enqueue(self.call(*args, **kwargs), connection=connection)

    async def aenqueue_in(self, connection: "AsyncConnection", *args: P.args, **kwargs: P.kwargs) -> RunId:
        """As `enqueue_in`, for coroutines."""
        return await default_async_client().enqueue(self.call(*args, **kwargs), connection=connection)

    def enqueue_many(self, calls: Iterable[tuple[Any, ...] | dict[str, Any]]) -> list[RunId]:
        """Insert a run for each of *calls*: a tuple of arguments, or a dict of arguments by name; all of them or none."""
        return default_client().enqueue_many([self._called_with(call) for call in calls])

    def _called_with(self, call: object) -> NewRun:
        match call:
            case tuple():
                return self.call(*call)  # type: ignore[call-arg]  # checked as it is called
            case dict():
                return self.call(**call)  # type: ignore[call-arg]
            case _:
                raise ArgumentsError(f"{self.path}: expected a tuple of arguments, or a dict of arguments by name, got {call!r}")


@overload
def task(func: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, takes_context: Literal[True], **options: Unpack[GivenOptions]
) -> Callable[[Callable[Concatenate[TaskContext, P], R]], Task[P, R]]: ...
@overload
def task(**options: Unpack[GivenOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(func: Any = None, /, *, takes_context: bool = False, **options: Any) -> Any:
    """Make a function a task, with the options of `TaskOptions`.

    Args:
      takes_context: the function's first argument is the `TaskContext` of its run.
    """
    known = TaskOptions(**options)
    if func is not None:
        return Task(func, known, takes_context=takes_context)
    return functools.partial(Task, options=known, takes_context=takes_context)


def _enqueued_signature(func: Callable[..., Any], *, takes_context: bool) -> inspect.Signature:
    """Return the signature that whoever enqueues sees: without the context."""
    signature = inspect.signature(func)
    parameters = list(signature.parameters.values())
    if not takes_context:
        return signature
    if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        raise TypeError(f"{func.__qualname__}: expected the context as its first argument, got {_shown(signature)}")
    return signature.replace(parameters=parameters[1:])


def _path_of(func: Callable[..., Any]) -> str:
    module = func.__module__
    if module == "__main__":
        # `python -m app.tasks` is that module under another name.
        module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None) or module
    path = f"{module}.{func.__qualname__}"
    if module == "__main__" or "<" in path:
        where = "in a script" if module == "__main__" else "inside a function"
        raise ArgumentsError(f"{path}: expected a function that executors can import, got one made {where}; move it into a module")
    return path


def _shown(signature: inspect.Signature) -> str:
    return str(signature.replace(return_annotation=inspect.Signature.empty))


def _whole_seconds(timeout: float | timedelta, path: str) -> int:
    given = seconds(timeout)
    if not isinstance(given, int | float) or given != given // 1:
        raise ArgumentsError(f"{path}: timeout: expected whole seconds, got {timeout!r}")
    return int(given)
