"""Children that we did not start: as a subreaper we inherit every descendant whose parent dies.

Nobody else can reap them, nobody waits for them, and nothing may be concluded from how they exit.
"""

import os
import signal

from reproq_supervisor.core.supervision.facts import Fact, Orphan, OrphanReaped, OrphansFound
from reproq_supervisor.process.proctable import children_of_self, command_name


class Orphans:
    """Finds, kills and reaps them. Their pids are safe to use as long as they are our unreaped children."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._known: set[int] = set()

    def know(self, pid: int) -> None:
        """Note a child that we started ourselves."""
        self._ours.add(pid)

    def forget(self, pid: int) -> None:
        """Note that a child that we started was reaped."""
        self._ours.discard(pid)

    def find_new(self) -> tuple[Orphan, ...]:
        """Return the orphans that were not told of before."""
        fresh = [pid for pid in children_of_self() if pid not in self._ours and pid not in self._known]
        self._known.update(fresh)
        return tuple(Orphan(pid, command_name(pid)) for pid in fresh)

    def look(self) -> list[Fact]:
        """Return the orphans that turned up without anything of ours having died."""
        fresh = self.find_new()
        return [OrphansFound(fresh)] if fresh else []

    def kill(self, pid: int) -> None:
        """Kill an orphan, after making sure that it still is our child."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(pid, signal.SIGKILL)
        except (ChildProcessError, ProcessLookupError):
            return

    def reap(self) -> list[Fact]:
        """Collect every dead orphan. Children that we started are left for their pidfd."""
        facts: list[Fact] = []
        while (pid := self._next_dead()) is not None:
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                continue
            self._known.discard(pid)
            facts.append(OrphanReaped(pid, self.find_new()))
        return facts

    def _next_dead(self) -> int | None:
        """Return a dead orphan's pid, None when there is none."""
        for pid in children_of_self():
            if pid in self._ours:
                continue
            try:
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return pid
            except ChildProcessError:
                continue
        return None
