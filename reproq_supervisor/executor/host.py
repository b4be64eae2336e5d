"""What stands behind the context of a task: whom it tells what it notes down, and who knows whether it was asked to stop."""

import contextlib
import os
import threading

from reproq_supervisor.core.work import encode_note
from reproq_supervisor.executor.outbox import Outbox
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.executor.task_database import NO_DATABASE, ContextError, TaskDatabase
from reproq_supervisor.process.deadlines import SoftReason
from reproq_supervisor.process.link import BlockingLink


class Host:
    """Nobody: a task in a program of its own, whose protocol has no place for more than a result."""

    is_alone = True
    """Whether only one task runs here at a time."""

    def open(self, seq: int) -> None:
        """The run of hand-out *seq* begins."""

    def close(self, seq: int) -> None:
        """The run of hand-out *seq* has ended: what it tells from now on is not told."""

    def tell(self, seq: int, metadata: bytes) -> bool:
        """Have the metadata of a run written to its record; answer whether somebody will."""
        return False

    def asked(self, seq: int) -> SoftReason | None:
        """Return why a run was asked to stop, None if it was not."""
        return None

    def database(self) -> TaskDatabase:
        """Return where runs complete themselves.

        Raises:
          ContextError: nowhere.
        """
        raise ContextError(
            "completing: expected an executor that holds a lease, got a program of its own (isolation: exec), which has none"
        )


class LoneHost(Host):
    """The shard, for an executor that runs one task at a time in its main thread."""

    def __init__(self, link: BlockingLink, soft: SoftSignal, database: TaskDatabase = NO_DATABASE) -> None:
        self._database = database
        self._link = link
        self._soft = soft
        self._lock = threading.Lock()
        self._open = 0
        self._pid = os.getpid()

    def open(self, seq: int) -> None:
        self._open = seq

    def close(self, seq: int) -> None:
        self._open = 0  # before the look at the lock: who takes it from now on sees this
        # A thread is in the middle of its frame. In a process that the task forked there is none, and nobody to give the lock back.
        if self._lock.locked() and os.getpid() == self._pid:
            with self._lock:
                pass

    def tell(self, seq: int, metadata: bytes) -> bool:
        if os.getpid() != self._pid:
            raise ContextError(f"expected the process that runs the task ({self._pid}), got {os.getpid()}, which was forked from it")
        # An exception in the middle of a frame would leave half of it behind; only the main thread is ever stopped by one.
        is_main = threading.current_thread() is threading.main_thread()
        with self._soft.held_back() if is_main else contextlib.nullcontext(), self._lock:
            if self._open == seq:
                # The shard is gone when this fails; the end of the socket says so where work is taken from it.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._link.send(encode_note(seq, metadata))
        return True

    def asked(self, seq: int) -> SoftReason | None:
        return self._soft.asked(seq)

    def database(self) -> TaskDatabase:
        return self._database


class SharedHost(Host):
    """The shard, for an executor whose tasks run beside each other."""

    is_alone = False

    def __init__(self, outbox: Outbox, database: TaskDatabase = NO_DATABASE) -> None:
        self._database = database
        self._outbox = outbox
        self._stops: dict[int, SoftReason | None] = {}

    def open(self, seq: int) -> None:
        self._stops.setdefault(seq, None)

    def close(self, seq: int) -> None:
        self._stops.pop(seq, None)

    def note_stop(self, seq: int, reason: SoftReason) -> None:
        """A run was asked to stop."""
        if seq in self._stops:
            self._stops[seq] = reason

    def tell(self, seq: int, metadata: bytes) -> bool:
        if seq in self._stops:
            self._outbox.tell_note(seq, metadata)
        return True

    def asked(self, seq: int) -> SoftReason | None:
        return self._stops.get(seq)

    def database(self) -> TaskDatabase:
        return self._database
