"""The soft signal where tasks run in threads: an exception that Python raises in a thread at the next chance, which a blocked call is not.

Such an exception comes when it comes, so one that is sent late could hit the next task of its thread. What prevents it is a ticket for
every run: whoever takes it, the one who asks or the end of the run, decides. If the run was asked, its end waits until the exception was
sent, and takes it away again if it has not come by then. So at most one comes for each run, and none outlives it.

A coroutine that a thread runs is cancelled in its loop instead. No exception is sent once its loop may be at work: asyncio would swallow
it, and the callback that it came in the way of would be lost, and with it the end of the run.
"""

import asyncio
import concurrent.futures
import ctypes
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.process.deadlines import SoftReason

_MOST_EARLY = 1000


def _raised(reason: SoftReason) -> type[SoftTimeout]:
    """Return a class whose instances, made by the interpreter without arguments, know the reason."""

    def init(self: SoftTimeout) -> None:
        SoftTimeout.__init__(self, reason.name.lower())

    return type("SoftTimeout", (SoftTimeout,), {"__init__": init, "__module__": SoftTimeout.__module__})


_RAISED = {reason: _raised(reason) for reason in SoftReason}


@dataclass(slots=True, eq=False)
class _Run:
    seq: int
    thread: int
    asked: SoftReason | None = None
    sent: bool = False
    in_loop: bool = False  # it is stopped by its task, or before it has one
    coroutine: "asyncio.Task[Any] | None" = None


class ThreadSoft:
    """Knows what runs in which thread, and stops it when asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[int, _Run] = {}
        self._early: dict[int, SoftReason] = {}  # asked before they began, or after they had ended
        self._mine = threading.local()

    def begin(self, seq: int) -> None:
        """Hand-out *seq* runs in this thread from now on; raise `SoftTimeout` if it was asked to stop before it began."""
        run = _Run(seq, threading.get_ident())
        self._mine.run = run
        with self._lock:
            early = self._early.pop(seq, None)
            if early is None:
                self._tickets[seq] = run
        if early is not None:
            run.sent = True
            raise SoftTimeout(early.name.lower())

    def end(self) -> None:
        """Nothing runs in this thread; what was sent to it and has not come will not come any more."""
        run: _Run = self._mine.run
        try:
            # No lock: the exception may come in here, too.
            if self._tickets.pop(run.seq, None) is None:
                while not run.sent:
                    time.sleep(0)
                _set_exception(run.thread, None)
        except SoftTimeout:
            return  # too late to stop anything

    def stop(self, seq: int, reason: SoftReason) -> None:
        """Ask hand-out *seq* to stop, once; called in a thread that runs no tasks."""
        with self._lock:
            run = self._tickets.pop(seq, None)
            if run is None:
                self._early[seq] = reason
                if len(self._early) > _MOST_EARLY:
                    del self._early[next(iter(self._early))]
                return
            run.asked = reason
            in_loop = run.in_loop
        coroutine = run.coroutine
        try:
            if not in_loop:
                _set_exception(run.thread, _RAISED[reason])
            elif coroutine is not None:
                coroutine.get_loop().call_soon_threadsafe(coroutine.cancel)
        except RuntimeError:
            pass  # the loop is closed: it has ended
        finally:
            run.sent = True

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* in a loop of its own; asked to stop, cancel it and raise `SoftTimeout` unless it ends otherwise."""
        run = self._enter_loop(coroutine)
        try:
            return asyncio.run(self._as_main(run, coroutine))
        except asyncio.CancelledError as error:
            if run.asked is None:
                raise
            raise SoftTimeout(run.asked.name.lower()) from error

    def _enter_loop(self, coroutine: Coroutine[Any, Any, Any]) -> _Run:
        """Have this thread's run stopped by cancellation from now on; raise `SoftTimeout` if it was asked to stop before."""
        run: _Run = self._mine.run
        try:
            with self._lock:
                run.in_loop = True
                asked = run.asked
            if asked is not None:
                while not run.sent:
                    time.sleep(0)
                _set_exception(run.thread, None)
                raise SoftTimeout(asked.name.lower())
        except SoftTimeout:
            coroutine.close()
            raise
        return run

    async def _as_main(self, run: _Run, coroutine: Coroutine[Any, Any, Any]) -> Any:
        run.coroutine = asyncio.current_task()
        if run.asked is not None:
            coroutine.close()
            raise asyncio.CancelledError  # when it was not known yet whom to cancel
        try:
            return await coroutine
        finally:
            run.coroutine = None


class LoopThreadSoft(ThreadSoft):
    """The same beside a loop that all coroutines belong to: one that a plain function returned runs there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* on the loop, and wait for it here."""
        run = self._enter_loop(coroutine)
        try:
            return asyncio.run_coroutine_threadsafe(self._as_main(run, coroutine), self._loop).result()
        except concurrent.futures.CancelledError as error:
            if run.asked is None:
                raise
            raise SoftTimeout(run.asked.name.lower()) from error


def _set_exception(thread: int, error: type[BaseException] | None) -> None:
    """Have *error* raised in *thread* at its next chance, in place of one that has not been raised yet; None for none."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))
