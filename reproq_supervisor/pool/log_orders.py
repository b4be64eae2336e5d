"""Orders about the log, which a shard carries out and passes on to all below it."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from reproq_supervisor.pool.nursery_link import NurseryLink
from reproq_supervisor.process import stacks
from reproq_supervisor.process.own_log import follow_log_of
from reproq_supervisor.telemetry.state_lines import write_state


def reopen(supervisor_pid: int, nursery: NurseryLink | None) -> None:
    """Follow the log that the supervisor has opened again. Executors that run keep the old one; those to be forked get the nursery's."""
    follow_log_of(supervisor_pid)
    if nursery is not None:
        nursery.send({"type": "reopen"})


def dump(child: str, snapshot: Mapping[str, Any], nursery: NurseryLink | None, executors: Iterable[int]) -> None:
    """Write the shard's state, and let everything below write its stacks, with a stuck main thread too."""
    write_state(child, snapshot)
    stacks.ask_for_stacks(os.getpid())
    if nursery is not None and nursery.status is None:
        stacks.ask_for_stacks(nursery.pid)
    for pid in executors:
        stacks.ask_for_stacks(pid)
