"""Strangers: processes that escaped from an executor and fell to its nursery, a subreaper.

They are killed at once and reaped when they are dead. That may take long where one waits for a disk or a network: the nursery does not wait
for it, or the deadlines of leases would.
"""

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
        self._dying: dict[int, str] = {}  # killed, by pid, with their names

    def look_soon(self) -> None:
        """Something died: its children may have fallen to us."""
        self._next_scan_mono = 0.0

    def look(self, ours: Collection[int]) -> None:
        """Reap those that are dead; kill those that are new when a second has passed, or sooner for a reason.

        Args:
          ours: children that are no strangers.
        """
        self._reap(os.WNOHANG)
        if time.monotonic() >= self._next_scan_mono:
            self.kill(ours)

    def kill(self, ours: Collection[int]) -> None:
        """Kill those that are new."""
        self._next_scan_mono = time.monotonic() + _SCAN_S
        for pid in proctable.children_of_self():
            if pid in ours or pid in self._dying:
                continue
            command = proctable.command_name(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # a program that changed its user may be beyond us: it falls to the shard when we leave
            self._dying[pid] = command
        self._reap(os.WNOHANG)

    def end(self) -> None:
        """Kill and reap until none is left, and wait for that; for the end of a nursery that owns nothing else."""
        self.kill(())
        while self._dying:
            self._reap(0)
            self.kill(())

    def _reap(self, options: int) -> None:
        for pid, command in list(self._dying.items()):
            try:
                if os.waitpid(pid, options)[0] == 0:
                    continue
            except ChildProcessError:
                pass
            del self._dying[pid]
            self._on_killed(pid, command)
