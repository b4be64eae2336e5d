"""How fast tasks are enqueued, many at once and one after the other, each committed; no worker runs."""

import statistics
import time

from benchmarks.contenders.contender import Contender, Work
from benchmarks.stage import percentile
from tests.support.postgres import Cluster

SINGLES = 500


def bulk(cluster: Cluster, contender: Contender, tasks: int) -> dict[str, float]:
    """Return how many a second can be enqueued at once."""
    with contender.open(cluster) as queue:
        queue.enqueue_many([Work(n) for n in range(100)])  # connections and plans
        works = [Work(n) for n in range(tasks)]
        began = time.perf_counter()
        queue.enqueue_many(works)
        return {"enqueued_per_s": tasks / (time.perf_counter() - began)}


def single(cluster: Cluster, contender: Contender, tasks: int = SINGLES) -> dict[str, float]:
    """Return the milliseconds that a single enqueue takes."""
    with contender.open(cluster) as queue:
        for n in range(20):
            queue.enqueue_one(Work(n))
        took = []
        for n in range(tasks):
            began = time.perf_counter()
            queue.enqueue_one(Work(n))
            took.append((time.perf_counter() - began) * 1000)
    return {"median_ms": statistics.median(took), "p99_ms": percentile(took, 0.99), "singles_per_s": 1000 / statistics.fmean(took)}
