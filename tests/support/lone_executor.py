"""One real executor process without nursery and shard: the test holds the shard's end of it."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.core.work import Result
from reproq_supervisor.executor.capture import new_capture_file
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.worker import Executor, Output
from reproq_supervisor.process.deadlines import DeadlineTable
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import socket, sys
from functools import partial
from reproq_supervisor.core.work import MAX_RESULT_BYTES
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.capture import Capture
from reproq_supervisor.executor.executor import serve
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import BlockingLink

work, tokens, table, out, err = map(int, sys.argv[1:6])
soft = SoftSignal(DeadlineTable.attach(table), 0)
soft.install()
run = partial(run_attempt, resolver=Resolver(["*"]), soft=soft, max_result_bytes=MAX_RESULT_BYTES)
capture = Capture(keep=True)
capture.start(out, err)
serve(BlockingLink(socket.socket(fileno=work)), tokens, run, capture)
"""
_SHARED_PROGRAM = """
import os, socket, sys
from reproq_supervisor.executor.inherit import inherit_contexts
from reproq_supervisor.executor.loop import LoopExecutor
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.streams import TaskStreams
from reproq_supervisor.executor.threads import serve_in_threads
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import BlockingLink

work, tokens, table, out, err = map(int, sys.argv[1:6])
mode, slots = sys.argv[6], int(sys.argv[7])
inherit_contexts()
streams = TaskStreams()
streams.lead(1, out)
streams.lead(2, err)
streams.restore()
link, resolver = BlockingLink(socket.socket(fileno=work)), Resolver(["*"])
if mode == "thread":
    serve_in_threads(link, tokens, resolver, streams, slots=slots, keep_output=True)
else:
    LoopExecutor(link, tokens, resolver, streams, DeadlineTable.attach(table), 0, slots=slots).serve(keep_output=True)
sys.stdout.flush()
os._exit(0)
"""


@dataclass
class LoneExecutor:
    """The process, our end of it, and what it said so far."""

    process: "subprocess.Popen[bytes]"
    end: Executor
    table: DeadlineTable
    results: list[tuple[Held, Result]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    _next_seq: int = 1

    def hand(self, runs: Sequence[Held], *, spec: bytes | None = None) -> bool:
        """Hand these runs out, each with a new sequence number; False when a part of the frame waits for `end.flush`."""
        for held in runs:
            held.seq = self._next_seq
            self._next_seq += 1
            if spec is not None:
                held.claimed = held.claimed._replace(spec=spec)
        return self.end.hand_out(list(runs))

    def read(self, wait_s: float = 0.0) -> None:
        """Take in what it says."""
        while not self.end.eof and select.select([self.end.work], [], [], wait_s)[0]:
            wait_s = 0.0
            for held, result, output in self.end.read_results():
                self.results.append((held, result))
                if output is not None:
                    output.close()

    def wait_unstarted(self, count: int) -> None:
        """Wait until just *count* of the runs in its hands have not started."""
        eventually(lambda: self.end.unstarted() == count, what=f"{count} unstarted", interval=0.001)

    def wait_results(self, count: int, *, flush: bool = True, timeout: float = 10.0) -> list[tuple[Held, Result]]:
        """Wait until it has said *count* results, and return all of them; without *flush* what waits to be sent goes on waiting."""

        def enough() -> bool:
            if flush:
                self.end.flush()
            self.read()
            return len(self.results) >= count

        eventually(enough, timeout=timeout, what=f"{count} results", interval=0.001)
        return self.results

    def wait_exit(self) -> int:
        """Return its exit status once it has ended."""
        return self.process.wait(10)


def held_run(number: int, path: str, spec: str) -> Held:
    """Return a run as a shard holds it."""
    claimed = Claimed(RunId(number), LeaseNo(1), 1, "default", 0, path, 60.0, 3, spec.encode())
    return Held(claimed, lease_until=0.0, claimed_mono=0.0)


@contextmanager
def lone_executor(mode: str = "process", slots: int = 1) -> Iterator[LoneExecutor]:
    """Start one of this *mode*; at the end it is killed and everything closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    tokens_read, tokens_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    table = DeadlineTable.create(1)
    capture = (new_capture_file("out"), new_capture_file("err"))
    given = (theirs.fileno(), tokens_read, table.fd, *capture)
    program = _PROGRAM if mode == "process" else _SHARED_PROGRAM
    argv = [sys.executable, "-P", "-c", program, *map(str, given), mode, str(slots)]
    process = subprocess.Popen(argv, pass_fds=given, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    theirs.close()
    ours.setblocking(False)
    pidfd = os.pidfd_open(process.pid)
    end = Executor(0, process.pid, ours, pidfd, tokens_write, tokens_read, capture, most_slots=slots, shared=mode != "process")
    try:
        yield LoneExecutor(process, end, table)
    finally:
        process.kill()
        process.wait()
        end.close()
        os.close(table.fd)
