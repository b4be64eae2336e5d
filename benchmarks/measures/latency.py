"""How soon a task starts on an idle pool, counted from when its enqueue has returned."""

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
        waits = []
        for n in range(runs + WARM_UPS):
            time.sleep(random.uniform(0.02, 0.06))  # arrivals do not follow a beat
            queue.enqueue_one(Work(n))
            returned = time.monotonic()
            waits.append((meter.wait_one(n, BOOT_S) - returned) * 1000)
        waits = waits[WARM_UPS:]
    return {"p50_ms": statistics.median(waits), "p95_ms": percentile(waits, 0.95), "p99_ms": percentile(waits, 0.99)}
