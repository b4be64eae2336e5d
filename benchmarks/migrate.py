"""The migration of a large database of each older layout, beside producers that never stop: how long it takes, and how long they wait.

    python -m benchmarks.migrate [--ended 1000000] [--live 20000] [--producers 2] [--json]

Prints for each layout the time of every step that took a tenth of a second, and the longest that a producer waited for one insert with its
commit: while nothing else went on, and while the database was migrated. What the machine does meanwhile shows in both.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import multiprocess
import psycopg

from benchmarks.stage import SETTINGS, describe_machine, percentile
from reproq_supervisor.store.migrate import Step, migrate
from tests.store import layouts
from tests.support.postgres import Database, running_cluster

Layout = Callable[[psycopg.Connection[Any]], None]
LAYOUTS: dict[str, Layout] = {"go": layouts.go, "django": layouts.django, "django then worker": layouts.django_then_worker}
_QUIET_S = 10.0
_BATCH = 50_000
_NOTABLE_S = 0.1


def produce(dsn: str, number: int, over: Any, results: Any) -> None:
    """Insert runs one by one until it is over; put the seconds that each took."""
    waits: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not over.is_set():
            began = time.perf_counter()
            layouts.insert(connection, "READY", prefix=f"{time.time()}-{number}-{len(waits)}-")
            waits.append(time.perf_counter() - began)
    results.put(waits)


@contextmanager
def producing(dsn: str, producers: int, waits: list[float]) -> Iterator[None]:
    """Run *producers* for the length of the block; *waits* holds afterwards what each insert took."""
    context = multiprocess.get_context("spawn")
    over, results = context.Event(), context.Queue()
    processes = [context.Process(target=produce, args=(dsn, number, over, results)) for number in range(producers)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        over.set()
        for _ in processes:
            waits += results.get(timeout=60)
        for process in processes:
            process.join()


class Clock:
    """Times the steps of a migration as it is told of them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = ("", time.perf_counter())

    def __call__(self, step: Step, words: str) -> None:
        if not words:
            self.end()
            self._last = (step.name, time.perf_counter())

    def end(self) -> None:
        name, began = self._last
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def fill(database: Database, layout: Layout, ended: int, live: int) -> None:
    """Make the layout with its history."""
    with database.connect() as connection:
        layout(connection)
        for status, count in (("SUCCESSFUL", ended * 9 // 10), ("FAILED", ended // 10), ("READY", live * 9 // 10), ("WAITING", live // 10)):
            for part in range(0, count, _BATCH):
                layouts.insert(connection, status, min(_BATCH, count - part), prefix=f"{status}-{part}-")
        connection.execute("VACUUM ANALYZE")


def measure(layout: Layout, ended: int, live: int, producers: int) -> dict[str, Any]:
    """Migrate one database; return the figures."""
    with running_cluster(*SETTINGS, durable=True) as cluster, cluster.new_database() as database:
        machine = describe_machine(cluster)
        fill(database, layout, ended, live)
        quiet, busy = list[float](), list[float]()
        with producing(database.dsn, producers, quiet):
            time.sleep(_QUIET_S)
        clock = Clock()
        with database.connect() as connection, producing(database.dsn, producers, busy):
            time.sleep(1.0)
            began = time.perf_counter()
            migrate(connection, clock)
            seconds = time.perf_counter() - began
            clock.end()
        with database.connect() as connection:
            broken = connection.execute("SELECT count(*) FROM reproq_check_invariant(0)").fetchone()
    assert broken == (0,), f"expected every run in its place, got {broken}"
    return {
        "machine": machine,
        "ended": ended,
        "live": live,
        "migrate_s": round(seconds, 1),
        "steps_s": {name: round(spent, 1) for name, spent in clock.seconds.items() if spent >= _NOTABLE_S and name},
        "inserts": len(busy),
        "longest_wait_ms": {"quiet": _ms(max(quiet)), "migrating": _ms(max(busy))},
        "p99_wait_ms": {"quiet": _ms(percentile(quiet, 0.99)), "migrating": _ms(percentile(busy, 0.99))},
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ended", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=20_000)
    parser.add_argument("--producers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, layout in LAYOUTS.items():
        figures = measure(layout, options.ended, options.live, options.producers)
        if options.json:
            print(json.dumps({"layout": name, **figures}))
            continue
        waits = figures["longest_wait_ms"]
        print(f"{name}: {figures['ended']:,} ended and {figures['live']:,} live runs in {figures['migrate_s']} s ({figures['machine']})")
        print(f"  longest wait of a producer: {waits['migrating']} ms; with nothing else going on: {waits['quiet']} ms")
        print("  " + ", ".join(f"{step} {spent} s" for step, spent in figures["steps_s"].items()))


if __name__ == "__main__":
    main()
