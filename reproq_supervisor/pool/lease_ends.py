"""Until when an executor may run what it has in hand: what the shard tells its nursery through the deadline table."""

from collections.abc import Iterable

from reproq_supervisor.core.policy.lease import nursery_margin_s, start_margin_s
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import clock
from reproq_supervisor.process.deadlines import DeadlineTable


class LeaseEnds:
    """Writes the ends of leases into *table*."""

    def __init__(self, table: DeadlineTable, lease_s: float) -> None:
        self._table = table
        self._kill_before_s = nursery_margin_s(lease_s)
        self._start_before_s = start_margin_s(lease_s)

    def startable_until(self) -> float:
        """Return the end of a lease, in boot time, of which too little is left now to start anything."""
        return clock.boot_time_s() + self._start_before_s

    def tell(self, executor: Executor, batch: Iterable[Held] = ()) -> None:
        """Tell of what *executor* has in hand, and of the *batch* that it is about to be given.

        Told before the work is: frozen between the two, the shard would leave an execution behind that nobody ends.
        """
        ends = [held.lease_until for held in (*executor.in_hand, *batch)]
        self._table.set_kill_at(executor.row, min(ends) - self._kill_before_s if ends else 0.0)
