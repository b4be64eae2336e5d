"""What a task can ask and say about its own run, in every mode and isolation.

    def report(context, month):                     # takes_context
        for done, page in enumerate(pages, 1):
            context.progress(done, len(pages), page.title)

    current().metadata                               # anywhere below a task

What it notes down goes through the shard to `metadata_json` of its record, at most once a second, and once more before its end; so no task
needs a database for it. A retry finds what the attempt before it had noted. In `isolation: exec` nobody takes notes: the executor protocol
has no place for them, so there they are readable, and lost at the end.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from reproq_supervisor.core.work import MAX_METADATA_BYTES, Result, Verdict, Work
from reproq_supervisor.executor.completing import Completion
from reproq_supervisor.executor.encode import BadResultError, encode_value
from reproq_supervisor.executor.host import Host
from reproq_supervisor.executor.task_database import ContextError
from reproq_supervisor.process.deadlines import SoftReason

__all__ = ["ContextError", "TaskContext", "current"]

# Progress in a row that is told at once; then so many a second. What is left out is told with the next one, or at the end.
_BURST = 10
_PER_S = 5.0


class TaskContext:
    """The run that a task belongs to. First argument of a task that takes a context (`takes_context` of the task or its spec).

    Attributes:
      result_id: id of the run, as text.
      attempt: number of this attempt, from 1; max_attempts: how many there may be.
      metadata: what is noted down about the run: change it, then `save_metadata`; at the end it is saved in any case. JSON, at most 64 KiB.
    """

    def __init__(self, work: Work, task_path: str, metadata: Mapping[str, Any], host: Host) -> None:
        self.result_id = str(work.result_id)
        self.attempt = work.attempt
        self.max_attempts = work.max_attempts
        self.task_path = task_path
        self.queue_name = work.queue_name
        self.priority = work.priority
        self.metadata: dict[str, Any] = dict(metadata)
        self._work = work
        self._host = host
        self._began_mono = time.monotonic()
        self._saved = self._encoded() if metadata else b"{}"
        self._tokens = float(_BURST)
        self._refilled_mono = self._began_mono
        self._has_ended = False
        self._completion: Completion | None = None

    def __repr__(self) -> str:
        return f"<run {self.result_id} of {self.task_path}, attempt {self.attempt} of {self.max_attempts}>"

    @property
    def remaining(self) -> float:
        """Seconds until the time limit of this attempt; negative after it, infinite where there is none."""
        limit_s = self._work.limit_s
        return self._began_mono + limit_s - time.monotonic() if limit_s > 0 else math.inf

    @property
    def deadline(self) -> datetime | None:
        """When the time limit of this attempt is reached, by this host's clock; None where there is none."""
        remaining = self.remaining
        return None if math.isinf(remaining) else datetime.now(UTC) + timedelta(seconds=remaining)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked to cancel the run; the task was then sent `SoftTimeout`, and is killed after the pool's `grace`."""
        return self._host.asked(self._work.seq) is SoftReason.CANCEL

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Note how far the task has come, in units of its own; cheap enough for every step of a loop.

        Raises:
          ValueError: no finite number, or what `save_metadata` refuses.
        """
        for name, number in (("done", done), ("total", total)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number)):
                raise ValueError(f"progress: {name}: expected a finite number, got {number!r}")
        said = {"done": done, "total": total, "message": message}
        self.metadata["progress"] = {name: value for name, value in said.items() if value is not None}
        if self._may_tell():
            self.save_metadata()

    def save_metadata(self) -> None:
        """Have `metadata` written to the record, if it has changed; what the database had there is replaced.

        Raises:
          BadResultError: a ValueError: it is no JSON, or longer than 64 KiB.
          ContextError: the run has ended.
        """
        if self._has_ended:
            raise ContextError(f"run {self.result_id}: expected a running task, but it has ended; nobody takes notes of it any more")
        encoded = self._encoded()
        if encoded != self._saved and self._host.tell(self._work.seq, encoded):
            self._saved = encoded

    async def asave_metadata(self) -> None:
        """As `save_metadata`, which waits for nothing, for coroutines."""
        self.save_metadata()

    def completing(self) -> Completion:
        """Return the block whose writes are committed together with the result of this run, once the task has returned.

            with context.completing() as connection:           # async with, for a coroutine
                connection.execute(...)

        *connection* is psycopg's, to the database of the queue or what `task_database` of the pool says, in a transaction of its own. Put
        the block last: the transaction stays open until the task has returned. If the block, the rest of the task, or the end itself fails,
        or another attempt has begun meanwhile, everything is undone.

        Raises:
          ContextError: tasks of this pool have no database, or there was such a block before.
        """
        if self._completion is not None:
            raise ContextError(f"run {self.result_id}: expected one block `completing` in an attempt, got another")
        self._completion = Completion(self._host.database(), self._work.result_id, self._work.lease_no, self._began_mono)
        return self._completion

    def complete(self, result: Result) -> Result:
        """Write the end if a block waits for that, and return *result* as it then stands. Not for tasks; raises as `finish`."""
        completion = self._completion
        if completion is None:
            return result
        if completion.waits and not completion.waits_for_loop:
            completion.finish(result.body, self._last_words())
        return result._replace(verdict=Verdict.COMPLETED) if completion.is_done else result

    @property
    def waits_for_thread(self) -> bool:
        """Whether `complete` would wait for the database. Not for tasks."""
        return self._completion is not None and self._completion.waits

    async def complete_on_loop(self, encode: Callable[[], bytes]) -> None:
        """Write the end, if the block of a coroutine waits for that. Not for tasks; raises as `complete`, and what *encode* raises."""
        if self._completion is not None and self._completion.waits_for_loop:
            await self._completion.finish_on_loop(encode(), self._last_words())

    def _last_words(self) -> bytes | None:
        """Return the metadata that goes with the end, None for what was never any; what cannot be stored is left to `end` to tell."""
        if not self.metadata and self._saved == b"{}":
            return None
        try:
            self._saved = self._encoded()
        except BadResultError:
            return None
        return self._saved

    def end(self) -> None:
        """The attempt is over: save what has changed, and undo what is not committed. Not for tasks."""
        if self._completion is not None:
            self._completion.abandon()
        if self.metadata or self._saved != b"{}":
            try:
                self.save_metadata()
            except (BadResultError, ContextError) as error:
                # It may not fail a task that has done its work; where its output is kept, this is seen.
                sys.stderr.write(f"reproq: run {self.result_id}: not saved: {error}\n")
        self._has_ended = True

    def _encoded(self) -> bytes:
        return encode_value(self.metadata, MAX_METADATA_BYTES, "metadata")

    def _may_tell(self) -> bool:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled_mono) * _PER_S)
        self._refilled_mono = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


_CURRENT: ContextVar[TaskContext | None] = ContextVar("reproq_context", default=None)
# Of an executor that runs one task at a time: threads that a task starts there begin with an empty context.
_ONLY: list[TaskContext] = []


def current() -> TaskContext:
    """Return the context of the run that the caller is a part of.

    Raises:
      ContextError: there is none: the caller was not called by a task, or in a thread that is none of its task's.
    """
    context = _CURRENT.get() or (_ONLY[-1] if _ONLY else None)
    if context is None:
        raise ContextError("expected a running task, found none: only what an executor runs has a context")
    return context


def enter(context: TaskContext) -> None:
    """From now on *context* is the current one, until the end of the caller's own `contextvars` context. Not for tasks."""
    _CURRENT.set(context)


def entered(context: TaskContext, *, is_alone: bool) -> "_Entered":
    """Make *context* the current one for the length of the block. Not for tasks."""
    return _Entered(context, is_alone)


class _Entered:
    """A class, since a generator would take 1 us more of every task."""

    __slots__ = ("_context", "_is_alone", "_token")

    def __init__(self, context: TaskContext, is_alone: bool) -> None:
        self._context = context
        self._is_alone = is_alone

    def __enter__(self) -> None:
        self._token = _CURRENT.set(self._context)
        if self._is_alone:
            _ONLY.append(self._context)

    def __exit__(self, *_: object) -> None:
        if self._is_alone:
            _ONLY.remove(self._context)
        _CURRENT.reset(self._token)
