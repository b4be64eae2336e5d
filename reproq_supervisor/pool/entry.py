"""The life of a shard, from its first line to its exit code."""

import asyncio
import gc
import os
import signal
import sys
from typing import Any

from reproq_supervisor.pool.shard import SOFTWARE, Shard
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.process import prctl, stacks
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.heap import give_back
from reproq_supervisor.process.spawn import adopt_channel
from reproq_supervisor.process.worker_mark import leave_mark


def main() -> int:
    """Run one shard until it is told to stop or its supervisor is gone."""
    # Until the loop runs nothing is owned: leaving at once is the right answer to TERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor_pid = os.getppid()
    prctl.set_pdeathsig(signal.SIGTERM, parent_pid=supervisor_pid)
    prctl.become_subreaper()
    prctl.set_name("reproq-shard")
    stacks.write_stacks_on_signal()
    channel = Channel(adopt_channel())
    start = ShardStart.from_message(channel.receive_start(), supervisor_pid)
    marks = _leave_mark(start)
    give_back()
    # What is loaded by now stays: no collection needs to look at it again. Runs make no cycles, so collections may be rare.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    return asyncio.run(_run(start, channel, marks))


def _leave_mark(start: ShardStart) -> tuple[int, ...]:
    """Make our mark before anything is claimed; without one a later daemon has to wait until our leases end."""
    if start.workers_dir is None:
        return ()
    try:
        return (leave_mark(start.workers_dir, start.worker_id),)
    except OSError as error:
        sys.stderr.write(f"reproq: shard {start.child}: no mark in {start.workers_dir}: {error}\n")
        return ()


async def _run(start: ShardStart, channel: Channel, marks: tuple[int, ...]) -> int:
    asyncio.get_running_loop().set_exception_handler(_on_bug)
    return await Shard(start, channel, marks).run()


def _on_bug(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback failed, and who knows what it left half done: end as by a crash, which everything around us is made for."""
    loop.default_exception_handler(context)
    if "handle" in context:
        os._exit(SOFTWARE)
