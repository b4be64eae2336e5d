"""Where a signal may raise an exception in the task of an event loop, and where it must not."""

import inspect
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def is_inside(task: "asyncio.Task[Any]") -> bool:
    """Answer whether the code of *task*, the current one of its loop, is what runs now.

    It is still the current one while the loop schedules its next step. An exception that is raised there meets nobody who knows of it: it
    is logged, the step is never scheduled, and the task waits for ever.
    """
    return bool(getattr(task.get_coro(), "cr_running", False))


def may_raise_in(task: "asyncio.Task[Any]", frame: FrameType | None) -> bool:
    """Answer whether an exception that is raised in *frame*, which a signal interrupted, does no harm but to *task*.

    Code of asyncio that the task calls may be waking others: half done, it would leave them, or a lock that they share, waiting for ever.
    """
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "asyncio":
            return False
        if frame.f_code.co_flags & inspect.CO_COROUTINE:
            break
        frame = frame.f_back
    return is_inside(task)
