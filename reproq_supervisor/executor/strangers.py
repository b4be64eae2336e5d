"""Strangers: processes that escaped from an executor and fell to its nursery, a subreaper."""

import os
import signal
import time
from collections.abc import Callable, Collection

from reproq_supervisor.process import proctable

_SCAN_S = 1.0


class Strangers:
    """Kills and reaps what was adopted.

    Args:
      on_killed: a stranger is gone; its pid and the kernel's name of its command.
    """

    def __init__(self, on_killed: Callable[[int, str], None]) -> None:
        self._on_killed = on_killed
        self._next_scan_mono = 0.0

    def look_soon(self) -> None:
        """Something died: its children may have fallen to us."""
        self._next_scan_mono = 0.0

    def look(self, ours: Collection[int]) -> None:
        """Kill those that are there when a second has passed, or sooner for a reason; *ours* are children that are none."""
        if time.monotonic() >= self._next_scan_mono:
            self.kill(ours)

    def kill(self, ours: Collection[int]) -> int:
        """Kill and reap those that are there now; return how many there were."""
        killed = 0
        self._next_scan_mono = time.monotonic() + _SCAN_S
        for pid in [pid for pid in proctable.children_of_self() if pid not in ours]:
            command = proctable.command_name(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError, PermissionError):
                continue  # a program that changed its user may be beyond us: it falls to the shard when we leave
            killed += 1
            self._on_killed(pid, command)
        return killed
