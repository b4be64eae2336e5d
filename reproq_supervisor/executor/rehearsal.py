"""Our own part of a task's way, gone a few times in the nursery, before anything is forked or of the application imported.

Python settles code that runs: it notes in it where attributes and globals were found, links C functions, fills caches. Whatever the
nursery has settled no executor settles again, and a page that needs no write is not copied: 40 of the 680 pages of an executor that runs
one task.
"""

import os
import socket
from functools import partial

from reproq_supervisor.core.frames import encode
from reproq_supervisor.core.work import MAX_RESULT_BYTES, TOKEN, Work, encode_batch
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.capture import Capture
from reproq_supervisor.executor.executor import serve
from reproq_supervisor.executor.host import LoneHost
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import BlockingLink

_TIMES = 16
"""Python 3.11 settles code at its eighth run; more than 12 changed nothing."""
_SEQ = 2**64 - 1  # never handed out, so never asked to stop


class _NoCapture(Capture):
    """The nursery's streams, which stay where they lead."""

    def exchange_if_written(self) -> None:
        return None


def rehearse(table: DeadlineTable) -> None:
    """Run a task that does nothing as an executor for single use does."""
    for _ in range(_TIMES):
        _rehearse_once(table)


def do_nothing() -> None:
    """Be the task."""


def _rehearse_once(table: DeadlineTable) -> None:
    path = f"{__name__}.{do_nothing.__name__}"
    work = Work(_SEQ, 1, 1, 1, 0, "rehearsal", path, b'{"args":[],"kwargs":{}}')
    shard, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    tokens_read, tokens_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with shard, ours:
            os.write(tokens_write, TOKEN.pack(_SEQ))
            shard.sendall(encode(encode_batch([work])))
            link, soft = BlockingLink(ours), SoftSignal(table, row=0)
            run = partial(run_attempt, resolver=Resolver([path]), soft=soft, max_result_bytes=MAX_RESULT_BYTES, host=LoneHost(link, soft))
            serve(link, tokens_read, run, _NoCapture(keep=False), single_use=True)
    finally:
        os.close(tokens_read)
        os.close(tokens_write)
