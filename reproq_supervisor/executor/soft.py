"""The soft signal: how a running task is asked to stop.

The shard writes the hand-out it means and the reason into the deadline table, then signals the executor. The handler
raises `SoftTimeout` in the main thread, but only while that very hand-out is running, so a signal that comes late can
never hit the next task.
"""

import signal
from types import FrameType

from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable


class SoftSignal:
    """Knows which hand-out runs now and raises in it when asked."""

    def __init__(self, table: DeadlineTable, row: int) -> None:
        self._table = table
        self._row = row
        self.running = 0  # hand-out that runs; 0 = none

    def install(self) -> None:
        """Handle `SOFT_SIGNAL` in this process; `siginterrupt` stays on, so blocking calls end."""
        signal.signal(SOFT_SIGNAL, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        seq, reason = self._table.soft(self._row)
        if self.running and seq == self.running:
            raise SoftTimeout(reason.name.lower())
