"""The soft signal: how a running task is asked to stop.

The shard writes the hand-out it means and the reason into the deadline table, then signals the executor. The handler acts only while that
very hand-out is running, so a signal that comes late can never hit the next task; one that comes early is found in the table at its begin.

A plain task has `SoftTimeout` raised in the main thread. In a coroutine an exception out of the blue would often meet the loop instead, or
another task of it, and be lost: there the coroutine is cancelled, and the exception is raised only in the task that keeps the loop busy.
"""

import contextlib
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.executor.interrupt import is_inside
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason
from reproq_supervisor.process.handlers import handle

if TYPE_CHECKING:
    import asyncio


class SoftSignal:
    """Knows which hand-out runs now and stops it when asked."""

    def __init__(self, table: DeadlineTable, row: int) -> None:
        self._table = table
        self._row = row
        self._running = 0  # hand-out that runs; 0 = none
        self._coroutine: asyncio.Task[Any] | None = None
        self._asked: SoftReason | None = None
        self._held_back = False
        self._is_due = False

    def install(self) -> None:
        """Handle `SOFT_SIGNAL` in this process; `siginterrupt` stays on, so blocking calls end."""
        handle(SOFT_SIGNAL, self.handle)

    def begin(self, seq: int) -> None:
        """Hand-out *seq* runs from now on; raise `SoftTimeout` if it was asked to stop before it began."""
        self._asked = None
        self._running = seq
        reason = self._table.soft_reason(self._row, seq)
        if reason is not None:
            self._running = 0
            raise SoftTimeout(reason.name.lower())

    def end(self) -> None:
        """Nothing runs."""
        self._running = 0

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* in a loop of its own; asked to stop, cancel it and raise `SoftTimeout` unless it ends otherwise."""
        import asyncio  # here, because it takes longer than the start of the program that runs one plain task

        try:
            return asyncio.run(self._as_main(coroutine))
        except asyncio.CancelledError as error:
            if self._asked is None:
                raise
            raise SoftTimeout(self._asked.name.lower()) from error

    async def _as_main(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        self._coroutine = asyncio.current_task()
        try:
            return await coroutine
        finally:
            self._coroutine = None

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Stop nothing before the end of the block, and then what should have been; for the main thread."""
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False
            if self._is_due:
                self._is_due = False
                self.handle(SOFT_SIGNAL, None)

    def asked(self, seq: int) -> SoftReason | None:
        """Return why hand-out *seq* was asked to stop, None if it was not."""
        return self._table.soft_reason(self._row, seq)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Stop what runs, if it is what the table says."""
        if self._held_back:
            self._is_due = True
            return
        reason = self._table.soft_reason(self._row, self._running) if self._running else None
        if reason is None:
            return
        # Once for each hand-out: a second exception could leave the very code that deals with the first.
        self._running = 0
        self._asked = reason
        if self._coroutine is not None:
            import asyncio

            loop = self._coroutine.get_loop()
            busy = asyncio.current_task(loop)
            is_busy = busy is not None and is_inside(busy)
            if busy is not self._coroutine or not is_busy:
                loop.call_soon_threadsafe(self._coroutine.cancel)
            if not is_busy:
                return
        raise SoftTimeout(reason.name.lower())
