"""How a task is called: with the arguments of its spec, unless a framework has its own way in.

A framework that knows more about its tasks than a spec says (how their arguments are read, what they get as their context, who is told that
they begin) sets its entry once, while the application is imported: `use_entry`. Every executor then calls every task by it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from reproq_supervisor.executor.context import TaskContext


class Invocation(NamedTuple):
    """A task that is about to be called.

    Attributes:
      task: what was found at the path of the task: a function, or an object that has one.
      call: that function.
      args, kwargs: of the spec, as JSON has them.
      takes_context: whether the task wants its context as the first argument.
    """

    task: object
    call: Callable[..., Any]
    context: TaskContext
    args: list[Any]
    kwargs: dict[str, Any]
    takes_context: bool


class Entry(Protocol):
    """A way in."""

    def __call__(self, invocation: Invocation) -> "functools.partial[Any]":
        """Return the call to make. A function that is a coroutine function stays one: it is not called in the thread of others."""


def plain_entry(invocation: Invocation) -> "functools.partial[Any]":
    """Call the function with the arguments as they are."""
    args = [invocation.context, *invocation.args] if invocation.takes_context else invocation.args
    return functools.partial(invocation.call, *args, **invocation.kwargs)


_entry: Entry = plain_entry


def use_entry(entry: Entry) -> None:
    """From now on every task of this process is called by *entry*."""
    global _entry
    _entry = entry


def enter_by(invocation: Invocation) -> "functools.partial[Any]":
    """Return the call to make for a task."""
    return _entry(invocation)
