"""`mode: thread`: a thread for each slot, each of which runs one task at a time; the main thread listens to the shard."""

import contextvars
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from reproq_supervisor.core.work import MAX_RESULT_BYTES, Result, Work
from reproq_supervisor.executor.attempt import Soft, run_attempt
from reproq_supervisor.executor.host import SharedHost
from reproq_supervisor.executor.intake import Intake
from reproq_supervisor.executor.outbox import Outbox
from reproq_supervisor.executor.reception import receive_all
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft_threads import ThreadSoft
from reproq_supervisor.executor.streams import OUTPUT, RunOutput, TaskStreams
from reproq_supervisor.executor.task_database import NO_DATABASE, TaskDatabase
from reproq_supervisor.process.deadlines import SoftReason
from reproq_supervisor.process.link import BlockingLink


class ThreadRuns:
    """Runs attempts in whatever thread asks, each in a context of its own.

    Args:
      keep_output: whether what tasks write is kept.
    """

    def __init__(
        self, resolver: Resolver, soft: Soft, outbox: Outbox, host: SharedHost, streams: TaskStreams, *, keep_output: bool
    ) -> None:
        self._resolver = resolver
        self._soft = soft
        self._outbox = outbox
        self._host = host
        self._streams = streams
        self._keep_output = keep_output
        self._own_pid = os.getpid()

    def run(self, work: Work) -> Result:
        """Run *work* to its end."""
        return contextvars.copy_context().run(self._run, work)

    def _run(self, work: Work) -> Result:
        output = self.new_output(work.seq)
        OUTPUT.set(output)
        started = time.perf_counter()
        result = run_attempt(work, self._resolver, self._soft, MAX_RESULT_BYTES, self._host)
        if os.getpid() != self._own_pid:
            os._exit(0)  # the task forked and came back twice: only the parent is an executor
        self.end_output(output)
        return result.told(time.perf_counter() - started)

    def new_output(self, seq: int) -> RunOutput | None:
        """Return where the run of hand-out *seq* writes to, None where nothing is kept."""
        return RunOutput(partial(self._outbox.tell_output, seq)) if self._keep_output else None

    def end_output(self, output: RunOutput | None) -> None:
        """A run has ended: what is written in its context from now on is nobody's."""
        if output is not None:
            output.ended = True
        self._streams.restore()


def serve_in_threads(
    link: BlockingLink,
    tokens_fd: int,
    resolver: Resolver,
    streams: TaskStreams,
    *,
    slots: int,
    keep_output: bool,
    database: TaskDatabase = NO_DATABASE,
) -> None:
    """Run handed-out work in *slots* threads, or as many of them as the shard says, until it closes the socket."""
    intake, outbox, soft = Intake(tokens_fd, slots), Outbox(link), ThreadSoft()
    host = SharedHost(outbox, database)
    runs = ThreadRuns(resolver, soft, outbox, host, streams, keep_output=keep_output)

    def stop(seq: int, reason: SoftReason) -> None:
        host.note_stop(seq, reason)
        soft.stop(seq, reason)

    threads = [start_thread(f"slot {number}", partial(_work_off, intake, outbox, runs)) for number in range(slots)]
    receive_all(link, intake, outbox, on_work=lambda: None, on_stop=stop, on_slots=intake.use_slots)
    for thread in threads:
        thread.join()


def start_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a thread that is no reason to stay alive."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _work_off(intake: Intake, outbox: Outbox, runs: ThreadRuns) -> None:
    work = intake.take()
    while work is not None:
        outbox.send(runs.run(work))
        work = intake.take_next()
