"""The first two thousand tasks of a deep backlog, beside those of a shallow one: what waits must not slow down what is claimed.

Both backlogs stay while the rounds take turns: workers start, work off what they can until two thousand have started, and end. Whoever
can hold its workers is measured in several such bursts a round, begun when they have settled.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter, new_meter
from benchmarks.measures.drain import BOOT_S, rate_of, settle
from benchmarks.measures.usage import processor_s
from tests.support.eventually import eventually
from tests.support.postgres import Cluster

SHALLOW = 10_000
FIRST = 2_000
BURSTS = 5
_ROOM = 400_000
"""More than anybody starts until he is stopped: numbers of tasks come again after so many."""
_PART = 50_000
_DEAD = 50_000
_SETTLE_S = 3.0
"""Workers look around when they start, and how long that takes is another question: who can, claims only then."""
_PAUSE_S = 0.5
"""So long after a burst everything that was claimed has ended."""


class Burst(NamedTuple):
    """Tasks a second, and the microseconds of processor that workers and server took for each, which a busy machine changes less."""

    per_s: float
    cpu_us: float | None


@dataclass
class Backlog:
    """A queue that is kept at a depth."""

    queue: Queue
    depth: int
    enqueued: int = 0

    def fill(self, tasks: int) -> None:
        """Enqueue *tasks* more, in parts that fit into memory."""
        for first in range(0, tasks, _PART):
            part = range(self.enqueued, self.enqueued + min(_PART, tasks - first))
            self.queue.enqueue_many([Work(n % _ROOM) for n in part])
            self.enqueued = part.stop

    def work_off(self, tasks: int) -> None:
        """Let so many run, and fill up again: their dead rows stay where a snapshot is held."""
        self.fill(tasks - self.depth)
        waiting = max(tasks, self.depth)
        with new_meter(_ROOM) as meter:
            with self.queue.workers(meter):
                _wait(meter, tasks)
                if tasks == waiting:
                    eventually(self.queue.is_drained, timeout=BOOT_S, what="all have ended")
            waiting -= meter.seen()
        self.fill(self.depth - waiting)

    def first(self, cluster: Cluster) -> Burst:
        """Return how the first of the backlog fare, the median of several bursts; it is full again afterwards."""
        with new_meter(_ROOM) as meter:
            if not self.queue.hold():
                with self.queue.workers(meter):
                    _wait(meter, FIRST)
                return Burst(self._rate_since(meter, 0.0), None)
            with self.queue.workers(meter) as workers:
                time.sleep(_SETTLE_S)
                bursts = [self._burst(cluster, workers, meter) for _ in range(BURSTS)]
        return Burst(statistics.median(each.per_s for each in bursts), statistics.median(each.cpu_us or 0.0 for each in bursts))

    def _burst(self, cluster: Cluster, workers: Workers, meter: Meter) -> Burst:
        began, seen, before = time.monotonic(), meter.seen(), sum(processor_s(workers, cluster))
        self.queue.let_go()
        _wait(meter, seen + FIRST)
        self.queue.hold()
        time.sleep(_PAUSE_S)
        cpu_us = (sum(processor_s(workers, cluster)) - before) / (meter.seen() - seen) * 1e6
        return Burst(self._rate_since(meter, began), cpu_us)

    def _rate_since(self, meter: Meter, began: float) -> float:
        starts = sorted(start for start in meter.starts() if start > began)
        self.fill(len(starts))
        return rate_of(starts[:FIRST])


def _wait(meter: Meter, tasks: int) -> None:
    if not meter.wait(tasks, BOOT_S):
        raise TimeoutError(f"expected {tasks} tasks to start within {BOOT_S:g} s, got {meter.seen()}")


@contextmanager
def _filled(cluster: Cluster, contender: Contender, depth: int, before: Callable[[Queue], None]) -> Iterator[Backlog]:
    with contender.open(cluster) as queue:
        before(queue)
        backlog = Backlog(queue, depth)
        backlog.fill(depth)
        settle(queue)
        yield backlog


@contextmanager
def _pinned(backlog: Backlog) -> Iterator[None]:
    """Hold a snapshot, as a report does that takes hours, and let many rows die behind it."""
    assert backlog.queue.database is not None, "a snapshot is PostgreSQL's"
    with backlog.queue.database.connect(autocommit=False) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT FROM pg_class LIMIT 1")
        backlog.work_off(_DEAD)
        yield


def nothing(_: Queue) -> None:
    """Put nothing beside the tasks that can run."""


def first_of_many(
    cluster: Cluster, contender: Contender, depth: int, rounds: int, *, before: Callable[[Queue], None] = nothing, pinned: bool = False
) -> list[dict[str, float]]:
    """Return for each round the rate of the deep backlog, that of a shallow one alone, and their ratio.

    Args:
      depth: how many tasks that can run the deep one has.
      before: what else it has.
      pinned: whether somebody holds a snapshot of its database.
    """
    with (
        _filled(cluster, contender, SHALLOW, nothing) as shallow,
        _filled(cluster, contender, depth, before) as deep,
        _pinned(deep) if pinned else nullcontext(),
    ):
        shallow.first(cluster), deep.first(cluster)  # files and plans in memory
        found = []
        for _ in range(rounds):
            alone, beside = shallow.first(cluster), deep.first(cluster)
            found.append({"shallow_per_s": alone.per_s, "deep_per_s": beside.per_s, "ratio": beside.per_s / alone.per_s})
            if alone.cpu_us and beside.cpu_us:
                found[-1] |= {"shallow_cpu_us": alone.cpu_us, "deep_cpu_us": beside.cpu_us, "cpu_ratio": alone.cpu_us / beside.cpu_us}
            print("  " + ", ".join(f"{name} {value:,.2f}" for name, value in found[-1].items()), file=sys.stderr, flush=True)
        return found
