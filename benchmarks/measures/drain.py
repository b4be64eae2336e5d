"""How fast a backlog is worked off, and what that costs.

The backlog is there before the workers start. The rate counts from when a tenth of it has started (before that somebody's workers are
still starting, and that is another question) until the queue knows the end of the last one.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.contenders.contender import Contender, Queue, Work
from benchmarks.contenders.meter import Meter, new_meter
from benchmarks.measures.usage import memory_mib, processor_s, writes
from tests.support.postgres import Cluster

LONGEST_S = 20.0
"""So long a backlog is worked off; what is left then is not counted."""
BOOT_S = 60.0


class Load(NamedTuple):
    """A backlog of equal tasks."""

    tasks: int
    nap_ms: float = 0
    payload_bytes: int = 0

    def works(self) -> list[Work]:
        payload = "x" * self.payload_bytes
        return [Work(n, self.nap_ms, payload) for n in range(self.tasks)]


def drain(cluster: Cluster, contender: Contender, load: Load) -> dict[str, float]:
    """Return tasks/s, and what each task cost."""
    with contender.open(cluster) as queue, new_meter(load.tasks) as meter:
        queue.enqueue_many(load.works())
        settle(queue)
        before = writes(queue.database) if queue.database else None
        with queue.workers(meter) as workers:
            if not meter.wait(load.tasks // 10, BOOT_S):
                raise TimeoutError(
                    f"{contender.name}: expected a tenth of {load.tasks} tasks to start within {BOOT_S:g} s, got {meter.seen()}"
                )
            spent, seen = processor_s(workers, cluster), meter.seen()
            drained_at = _wait_drained(queue, meter)
            spent_after, seen_after = processor_s(workers, cluster), meter.seen()
            figures = memory_mib(workers)
        starts = sorted(start for start in meter.starts() if start)
        # Whoever has not ended all of them in time is judged by those that it started.
        figures["tasks_per_s"] = rate_of([*starts, drained_at] if drained_at else starts)
        measured = max(1, seen_after - seen)
        kinds = ("cpu_us_workers", "cpu_us_server")
        figures |= {kind: (late - early) / measured * 1e6 for kind, late, early in zip(kinds, spent_after, spent, strict=True)}
        if queue.database and before:
            each = zip(("commits", "wal_bytes", "dead_rows"), writes(queue.database), before, strict=True)
            figures |= {f"{kind}_per_task": (late - early) / meter.seen() for kind, late, early in each}
        return figures


def _wait_drained(queue: Queue, meter: Meter) -> float | None:
    """Return when all had ended, or None if that takes too long."""
    until = time.monotonic() + LONGEST_S
    if not meter.wait(meter.size, LONGEST_S):
        return None
    while not queue.is_drained():
        if time.monotonic() > until:
            return None
        time.sleep(0.01)
    return time.monotonic()


def settle(queue: Queue) -> None:
    """Do for everybody what autovacuum would do soon after many rows came."""
    if queue.database:
        queue.database.query("VACUUM (ANALYZE)")


def rate_of(starts: Sequence[float]) -> float:
    """Return the rate of ordered starts, the first tenth of them left out."""
    first = len(starts) // 10
    return (len(starts) - 1 - first) / max(1e-9, starts[-1] - starts[first])
