"""`mode: async`: coroutine tasks run beside each other on one loop in the main thread; other tasks each take a thread, and a slot.

    listening thread ──work──► loop: takes a token for each free slot ──► coroutine, or a thread
                     ──stop──► thread: as in mode thread; loop: the task is cancelled
                                  └──0.1 s──► if that very task keeps the loop busy, `SoftTimeout` is raised in it, by a signal

When it fails: raised in code of asyncio itself, such an exception would be lost, and with it the next step of a task: see `may_raise_in`. A
listening thread that ends otherwise than by the end of its socket takes the executor along, which would be deaf without it.

Asked by a signal of the shard, who keeps the loop busy is written to the deadline table: the shard asks when nothing starts any more.
"""

import asyncio
import contextlib
import contextvars
import inspect
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TypeVar

from reproq_supervisor.core.work import MAX_RESULT_BYTES, Result, Work
from reproq_supervisor.executor import django_state
from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.executor.attempt import Prepared, completed, prepare, raised, returned
from reproq_supervisor.executor.context import enter
from reproq_supervisor.executor.host import SharedHost
from reproq_supervisor.executor.intake import Intake
from reproq_supervisor.executor.interrupt import may_raise_in
from reproq_supervisor.executor.outbox import Outbox
from reproq_supervisor.executor.reception import receive_all
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft_threads import LoopThreadSoft
from reproq_supervisor.executor.streams import OUTPUT, TaskStreams
from reproq_supervisor.executor.task_database import NO_DATABASE, TaskDatabase
from reproq_supervisor.executor.threads import ThreadRuns, start_thread
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason
from reproq_supervisor.process.link import BlockingLink

_T = TypeVar("_T")

_MOST_ASKED = 1000
_NUDGE_AFTER_S = 0.1
_NUDGES = 3
"""One may come when no exception can be raised."""


@dataclass(slots=True, eq=False)
class _Run:
    """A run on the loop; *open* while an exception may be raised in its task."""

    seq: int
    task: "asyncio.Task[None] | None" = None
    open: bool = False


_RUN: contextvars.ContextVar[_Run | None] = contextvars.ContextVar("reproq_run", default=None)


class LoopExecutor:
    """An executor on an event loop."""

    def __init__(
        self,
        link: BlockingLink,
        tokens_fd: int,
        resolver: Resolver,
        streams: TaskStreams,
        table: DeadlineTable,
        row: int,
        *,
        slots: int,
        database: TaskDatabase = NO_DATABASE,
    ) -> None:
        self._link = link
        self._intake = Intake(tokens_fd, slots)
        self._outbox = Outbox(link)
        self._host = SharedHost(self._outbox, database)
        self._resolver = resolver
        self._streams = streams
        self._table = table
        self._row = row
        self._slots = slots
        self._loop = asyncio.new_event_loop()
        self._soft = LoopThreadSoft(self._loop)
        self._threads = ThreadPoolExecutor(slots, "slot")
        self._context = contextvars.copy_context()
        self._running: dict[int, _Run] = {}
        self._asked: dict[int, SoftReason] = {}
        self._ended = False
        self._closing = False
        self._nudging = False
        self._own_pid = os.getpid()

    def serve(self, *, keep_output: bool) -> None:
        """Run handed-out work until the shard closes the socket. What tasks left behind on the loop is dropped then."""
        self._runs = ThreadRuns(self._resolver, self._soft, self._outbox, self._host, self._streams, keep_output=keep_output)
        signal.signal(SOFT_SIGNAL, self._on_signal)
        asyncio.set_event_loop(self._loop)
        start_thread("reception", self._receive)
        while not self._ended:
            # A task may stop the loop, and one of its own tasks may end by `sys.exit`: both must not take the others along.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    # -- in the listening thread --------------------------------------------------------------------------------------

    def _receive(self) -> None:
        heard_all = False
        try:
            receive_all(
                self._link,
                self._intake,
                self._outbox,
                on_work=lambda: self._call(self._start),
                on_stop=self._stop,
                on_slots=self._use_slots,
            )
            heard_all = True
        finally:
            if not heard_all:
                traceback.print_exc()
                os._exit(70)
        self._call(self._close)

    def _call(self, what: Callable[..., None], *args: object) -> None:
        self._loop.call_soon_threadsafe(what, *args)

    def _stop(self, seq: int, reason: SoftReason) -> None:
        self._asked[seq] = reason
        if len(self._asked) > _MOST_ASKED:
            # It ended before it was asked. Copied in one step: the loop's thread takes out of it meanwhile.
            self._asked.pop(list(self._asked)[0], None)  # noqa: RUF015
        self._host.note_stop(seq, reason)
        self._soft.stop(seq, reason)
        self._call(self._cancel, seq)
        if not self._nudging:
            self._nudging = True
            start_thread("nudge", self._nudge)

    def _nudge(self) -> None:
        # A cancelled coroutine is stopped where it waits; an exception out of the blue only where nothing else helps.
        main = threading.main_thread().ident
        assert main is not None
        for left in reversed(range(_NUDGES)):
            time.sleep(_NUDGE_AFTER_S)
            if not left:
                self._nudging = False
            signal.pthread_kill(main, SOFT_SIGNAL)

    # -- on the loop --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what there is a slot for."""
        while len(self._running) < self._slots and (work := self._intake.take_nowait()) is not None:
            run = self._running[work.seq] = _Run(work.seq)
            self._launch(work, run)

    def _use_slots(self, slots: int) -> None:
        self._slots = slots  # before a request to stop that came behind it frees a slot
        self._call(self._start)

    def _launch(self, work: Work, run: _Run) -> None:
        run.task = self._loop.create_task(self._serve(work, run), context=self._context.copy())
        run.task.add_done_callback(partial(self._launch_again, work, run))

    def _launch_again(self, work: Work, run: _Run, task: "asyncio.Task[None]") -> None:
        # Some task cancels whatever it finds on the loop, and one that has not begun has nobody to catch that.
        if task.cancelled() and self._running.get(work.seq) is run:
            self._launch(work, run)

    async def _serve(self, work: Work, run: _Run) -> None:
        result = await self._run(work, run)
        if os.getpid() != self._own_pid:
            os._exit(0)  # the task forked and came back twice: only the parent is an executor
        # The slot is free when the result is sent: the shard counts on that.
        self._outbox.send(result)
        del self._running[work.seq]
        self._asked.pop(work.seq, None)
        self._start()
        self._leave_when_done()

    async def _run(self, work: Work, run: _Run) -> Result:
        started = time.perf_counter()
        try:
            # An import would keep the loop from all others.
            find = partial(prepare, work, self._resolver, self._host)
            prepared = find() if self._resolver.knows(work.task_path) else await self._in_thread(find)
        except BaseException as error:  # boundary: importing runs user code
            return raised(work, error)
        if not inspect.iscoroutinefunction(prepared.call.func):
            return await self._in_thread(partial(self._runs.run, work))
        self._host.open(work.seq)
        enter(prepared.context)
        output = self._runs.new_output(work.seq)
        OUTPUT.set(output)
        _RUN.set(run)
        django_state.begin_task()
        result = await self._attempt(work, run, prepared)
        prepared.context.end()
        self._host.close(work.seq)
        django_state.end_task()
        self._runs.end_output(output)
        return result.told(time.perf_counter() - started)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        # Whoever cancels us cannot stop the thread: without its result the run would never end.
        called = asyncio.wrap_future(self._threads.submit(call))
        while not called.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(called)
        return called.result()

    async def _attempt(self, work: Work, run: _Run, prepared: Prepared) -> Result:
        try:
            try:
                run.open = True
                if work.seq in self._asked:
                    raise asyncio.CancelledError  # before it began
                value = await completed(prepared.call(), prepared.context, MAX_RESULT_BYTES)
            finally:
                run.open = False
            complete = partial(prepared.context.complete, returned(work, value, MAX_RESULT_BYTES))
            return await self._in_thread(complete) if prepared.context.waits_for_thread else complete()
        except BaseException as error:  # boundary: user code may raise anything
            reason = self._asked.get(work.seq)
            if isinstance(error, asyncio.CancelledError) and reason is not None:
                stopped = SoftTimeout(reason.name.lower())
                stopped.__cause__ = error
                return raised(work, stopped)
            return raised(work, error)

    def _cancel(self, seq: int) -> None:
        run = self._running.get(seq)
        if run is not None and run.open and run.task is not None:
            # Once for each hand-out: a second exception could leave the very code that deals with the first.
            run.open = False
            run.task.cancel()

    def _close(self) -> None:
        self._closing = True
        self._leave_when_done()

    def _leave_when_done(self) -> None:
        if self._closing and not self._running:
            self._ended = True
            self._loop.stop()

    # -- in the main thread, in the middle of whatever runs there -----------------------------------------------------

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        task = asyncio.current_task(self._loop)
        run = None if task is None else _RUN.get()
        self._table.set_busy(self._row, 0 if run is None else run.seq)
        reason = None if run is None else self._asked.get(run.seq)
        if task is not None and run is not None and run.open and reason is not None and may_raise_in(task, frame):
            run.open = False
            raise SoftTimeout(reason.name.lower())
