"""`context.completing()`: a task's own writes and its result in one commit.

    with context.completing() as connection:
        connection.execute(...)
        return {"moved": amount}

The block opens a connection and a transaction. It is committed when the task has returned, together with what it returned; if the block or
the task fails, or the run has become somebody else's meanwhile, all of it is undone. So the effects of the block on this database happen
exactly once, whatever dies, and however often the task is begun.

The connection is a psycopg one, asynchronous for `async with`. Nothing of it exists before the block: this room knows no driver, and a fork
meets no socket.
"""

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from reproq_supervisor.executor.task_database import ContextError, TaskDatabase

if TYPE_CHECKING:
    from reproq_supervisor.store.completing import AsyncCompleting, Completing, Ended, Lease


class Completion:
    """The block of one run; there may be one."""

    def __init__(self, database: TaskDatabase, result_id: int, lease_no: int, began_mono: float) -> None:
        self._database = database
        self._result_id = result_id
        self._lease_no = lease_no
        self._began_mono = began_mono
        self._pid = os.getpid()
        self._open: Completing | AsyncCompleting | None = None
        self._left = False
        self._is_async = False
        self.is_done = False
        """Whether the run has ended by it."""

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Any:
        from reproq_supervisor.store.completing import Completing

        opened = Completing(self._dsn(), self._lease())
        self._open = opened
        return opened.connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave(error)

    async def __aenter__(self) -> Any:
        from reproq_supervisor.store.completing import AsyncCompleting

        opened = await AsyncCompleting.begin(self._dsn(), self._lease())
        self._open, self._is_async = opened, True
        return opened.connection

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        self._left = True
        if error is not None:
            self.abandon()

    def _dsn(self) -> str:
        if self._open is not None or self._left:
            raise ContextError(f"run {self._result_id}: expected one block `completing` in an attempt, got another")
        return self._database.read_dsn()

    def _lease(self) -> "Lease":
        from reproq_supervisor.store.completing import Lease

        return Lease(self._database.leased_by, self._result_id, self._lease_no)

    # -- the end of the task ------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether the end is to be written: the block was left well."""
        return self._open is not None and self._left and os.getpid() == self._pid

    @property
    def waits_for_loop(self) -> bool:
        """Whether that must happen on the event loop of the block."""
        return self.waits and self._is_async

    def finish(self, value: bytes, metadata: bytes | None) -> None:
        """Commit, with *value* as the result; raises as `store.completing.Completing.finish`, and then nothing is left of the block."""
        opened: Any = self._open
        try:
            opened.finish(self._ended(value, metadata))
            self.is_done = True
        finally:
            self.abandon()

    async def finish_on_loop(self, value: bytes, metadata: bytes | None) -> None:
        """As `finish`, for a block of a coroutine."""
        opened: Any = self._open
        try:
            await opened.finish(self._ended(value, metadata))
            self.is_done = True
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Undo what has not been committed."""
        opened, self._open = self._open, None
        if opened is not None and os.getpid() == self._pid:
            opened.close()

    def _ended(self, value: bytes, metadata: bytes | None) -> "Ended":
        from reproq_supervisor.store.completing import Ended

        return Ended(value, time.monotonic() - self._began_mono, metadata)
