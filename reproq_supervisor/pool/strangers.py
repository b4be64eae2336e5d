"""Processes that fell to the shard because their parents died: it is a subreaper, and its only own child is the nursery."""

import os
import signal

from reproq_supervisor.process import proctable


def kill_strangers() -> None:
    """Kill and reap every child we have, until there is none; call it only when the nursery is gone."""
    while strangers := proctable.children_of_self():
        for pid in strangers:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
