"""The life of the keeper, from its first line to its exit code."""

import asyncio
import os
import signal
from typing import Any

from reproq_supervisor.keeper.keeper import Keeper
from reproq_supervisor.process import prctl, stacks
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.heap import give_back
from reproq_supervisor.process.spawn import adopt_channel


def main() -> int:
    """Keep one database until told to stop or the supervisor is gone."""
    # Until the loop runs nothing is owned: leaving at once is the right answer to TERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It owns no process, and its transactions are whole or nothing: it may die at any moment, even while it is frozen.
    prctl.set_pdeathsig(signal.SIGKILL, parent_pid=os.getppid())
    prctl.set_name("reproq-keeper")
    stacks.write_stacks_on_signal()
    channel = Channel(adopt_channel())
    start = channel.receive_start()
    give_back()
    return asyncio.run(_run(start, channel))


async def _run(start: dict[str, Any], channel: Channel) -> int:
    return await Keeper(start, channel).run()
