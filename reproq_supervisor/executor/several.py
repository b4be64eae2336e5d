"""An executor whose tasks share it: `mode: thread` or `async`."""

import signal
from typing import TYPE_CHECKING

from reproq_supervisor.executor.inherit import inherit_contexts
from reproq_supervisor.executor.loop import LoopExecutor
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.streams import TaskStreams
from reproq_supervisor.executor.threads import serve_in_threads
from reproq_supervisor.process.deadlines import SOFT_SIGNAL
from reproq_supervisor.process.limits import impose
from reproq_supervisor.process.link import BlockingLink
from reproq_supervisor.process.masks import unblock_signals

if TYPE_CHECKING:
    from reproq_supervisor.executor.executor import ExecutorStart


def serve_several(start: "ExecutorStart") -> None:
    """Run handed-out work, several tasks at once, until the shard closes the socket."""
    plan = start.plan
    streams = TaskStreams()
    streams.lead(1, start.stdout_fd)
    streams.lead(2, start.stderr_fd)
    streams.restore()
    inherit_contexts()
    signal.signal(SOFT_SIGNAL, lambda *_: None)
    impose(plan.limits)
    unblock_signals()
    link, resolver = BlockingLink(start.work), Resolver(plan.allowed)
    if plan.mode == "thread":
        serve_in_threads(link, start.tokens_fd, resolver, streams, slots=plan.slots, keep_output=plan.keep_output, database=plan.database)
    else:
        table, row = start.table, start.row
        loop = LoopExecutor(link, start.tokens_fd, resolver, streams, table, row, slots=plan.slots, database=plan.database)
        loop.serve(keep_output=plan.keep_output)
