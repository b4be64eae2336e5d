"""How soon a task starts on an idle pool, counted from when its enqueue has returned, and from when it was called.

The server wakes those who listen before it answers who has committed: a task can have started when the enqueue returns.
"""

import random
import statistics
import time

from benchmarks.contenders.contender import Contender, Work
from benchmarks.contenders.meter import new_meter
from benchmarks.stage import percentile
from tests.support.postgres import Cluster

WARM_UPS = 20
BOOT_S = 60.0


def latency(cluster: Cluster, contender: Contender, runs: int) -> dict[str, float]:
    """Return percentiles of milliseconds."""
    with contender.open(cluster) as queue, new_meter(runs + WARM_UPS) as meter, queue.workers(meter):
        waits, from_call = [], []
        for n in range(runs + WARM_UPS):
            time.sleep(random.uniform(0.02, 0.06))  # arrivals do not follow a beat
            called = time.monotonic()
            queue.enqueue_one(Work(n))
            returned = time.monotonic()
            started = meter.wait_one(n, BOOT_S)
            waits.append((started - returned) * 1000)
            from_call.append((started - called) * 1000)
        waits, from_call = waits[WARM_UPS:], from_call[WARM_UPS:]
    return {
        "p50_ms": statistics.median(waits),
        "p95_ms": percentile(waits, 0.95),
        "p99_ms": percentile(waits, 0.99),
        "call_p50_ms": statistics.median(from_call),
        "call_p99_ms": percentile(from_call, 0.99),
    }
