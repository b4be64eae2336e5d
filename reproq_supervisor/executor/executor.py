"""The executor: takes work from its socket and runs it: one task at a time, or several, by the pool's mode.

It is forked by the nursery, leads its own session, and may be killed at any moment. It ends when the shard closes the socket, or after its
first task when it is for single use.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from reproq_supervisor.core.work import MAX_RESULT_BYTES, Result, Work, decode_batch, encode_result
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.capture import Capture
from reproq_supervisor.executor.command import Command
from reproq_supervisor.executor.command_attempt import CommandAttempt
from reproq_supervisor.executor.host import LoneHost
from reproq_supervisor.executor.intake import read_token
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.executor.task_database import TaskDatabase
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.handlers import reset_handlers
from reproq_supervisor.process.limits import impose
from reproq_supervisor.process.link import BlockingLink
from reproq_supervisor.process.masks import unblock_signals
from reproq_supervisor.process.prctl import allow_inspection, set_name, set_pdeathsig
from reproq_supervisor.process.title import ProcessTitle

Runner = Callable[[Work], Result]


@dataclass(frozen=True, slots=True)
class ExecutorPlan:
    """What all executors of a nursery have in common.

    Attributes:
      command: the program that runs their tasks; None: they do.
      heartbeat_s: how long such a program may be stopped.
    """

    title: ProcessTitle
    child: str
    keep_output: bool
    mode: str
    slots: int
    allowed: Sequence[str]
    single_use: bool
    command: Command | None
    heartbeat_s: float
    limits: Mapping[str, float | None]
    database: TaskDatabase


@dataclass(frozen=True, slots=True)
class ExecutorStart:
    """What a new executor is given; the descriptors are its own."""

    plan: ExecutorPlan
    row: int
    table: DeadlineTable
    work: socket.socket
    tokens_fd: int
    stdout_fd: int
    stderr_fd: int
    nursery_pid: int


def executor_main(start: ExecutorStart) -> int:
    """Become an executor, straight after the fork with every signal still masked; return its exit status."""
    os.setsid()
    plan = start.plan
    _reset_signals()
    set_pdeathsig(signal.SIGKILL, parent_pid=start.nursery_pid)
    allow_inspection()
    set_name("reproq-executor")
    plan.title.set(f"reproq: executor {plan.child}/{start.row}")
    gc.enable()
    _reseed()
    if plan.mode == "process":
        _serve_alone(start)
    else:
        # Event loop and thread pools are more than a whole executor of `mode: process` takes; the nursery of such a pool has them.
        from reproq_supervisor.executor.several import serve_several

        serve_several(start)
    return 0


def _serve_alone(start: ExecutorStart) -> None:
    plan = start.plan
    soft = SoftSignal(start.table, start.row)
    soft.install()
    capture = Capture(keep=plan.keep_output)
    capture.start(start.stdout_fd, start.stderr_fd)
    os.close(start.stdout_fd)
    os.close(start.stderr_fd)
    impose(plan.limits)
    link = BlockingLink(start.work)
    serve(link, start.tokens_fd, _runner(start, link, soft), capture, single_use=plan.single_use)


def _runner(start: ExecutorStart, link: BlockingLink, soft: SoftSignal) -> Runner:
    """Return what runs an attempt, with the signals that it wants let through."""
    resolver = Resolver(start.plan.allowed)
    if start.plan.command is not None:
        return CommandAttempt(start.plan.command, resolver, start.table, start.row, heartbeat_s=start.plan.heartbeat_s).run
    unblock_signals()
    return partial(
        run_attempt, resolver=resolver, soft=soft, max_result_bytes=MAX_RESULT_BYTES, host=LoneHost(link, soft, start.plan.database)
    )


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    reset_handlers((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR2))


def _reseed() -> None:
    # The standard library's own generator sees to that by itself, at every fork.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def serve(link: BlockingLink, tokens_fd: int, run: Runner, capture: Capture, *, single_use: bool = False) -> None:
    """Run handed-out work until the shard closes the socket; when for single use, the first task only.

    A task starts only after its token was read; what the shard took back in the meantime is dropped.
    """
    own_pid = os.getpid()
    waiting: deque[Work] = deque()
    while True:
        seq = read_token(tokens_fd)
        if seq is None:
            waiting.clear()  # every token is gone: the shard took the rest back
        while not waiting or (seq is not None and waiting[-1].seq < seq):
            batch = link.receive()
            if batch is None:
                return
            waiting.extend(decode_batch(batch))
        if seq is None:
            continue
        while waiting[0].seq != seq:
            waiting.popleft()
        work = waiting.popleft()
        started = time.perf_counter()
        result = run(work)
        if os.getpid() != own_pid:
            os._exit(0)  # the task forked and came back twice: only the parent is an executor
        _report(link, capture, result, time.perf_counter() - started)
        if single_use:
            return


def _report(link: BlockingLink, capture: Capture, result: Result, elapsed_s: float) -> None:
    fresh = capture.exchange_if_written()
    payload = encode_result(result.told(elapsed_s, output_follows=fresh is not None))
    # The shard is gone when this fails; the end of the socket says so again in `serve`.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        link.send(payload, fresh or ())
    if fresh is not None:
        os.close(fresh[0])
        os.close(fresh[1])
