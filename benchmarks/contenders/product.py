"""This product: the real daemon with one pool, and its client; variants differ by a key of the pool."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter
from benchmarks.stage import fresh_database
from reproq_supervisor.client import Client
from reproq_supervisor.store.controls import pause, resume
from reproq_supervisor.store.enqueue import NewRun
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.postgres import Cluster, Database

PROBE = "benchmarks.contenders.tasks.probe"
COROUTINE = "benchmarks.contenders.tasks.coroutine_probe"


class DaemonWorkers(Workers):
    """Every process of a daemon: supervisor, shard, nursery, executors, keeper."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def processes(self) -> list[psutil.Process]:
        found = []
        for pid, kind in self._daemon.processes().items():
            with suppress(psutil.NoSuchProcess):
                if kind != "postgres":
                    found.append(psutil.Process(pid))
        return found


class ProductQueue(Queue):
    """A migrated database, and a client of it."""

    def __init__(self, database: Database, client: Client, task: str, pool: Mapping[str, Any]) -> None:
        self.database: Database = database
        self.client = client
        self._task = task
        self._pool = pool

    def run_of(self, work: Work, **options: Any) -> NewRun:
        """Return the run of *work*; *options* are further fields of it."""
        return NewRun(self._task, kwargs=work.arguments(), **options)

    def enqueue_many(self, works: Sequence[Work]) -> None:
        self.client.enqueue_many([self.run_of(work) for work in works])

    def enqueue_one(self, work: Work) -> None:
        self.client.enqueue(self.run_of(work))

    def hold(self) -> bool:
        with self.database.connect() as connection:
            pause(connection, "default", "benchmark")
        return True

    def let_go(self) -> None:
        with self.database.connect() as connection:
            resume(connection, "default")

    def is_drained(self) -> bool:
        return not self.database.query("SELECT FROM task_lane LIMIT 1")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        app = {"path": [str(CHECKOUT)], "preload": ["benchmarks.contenders.tasks"], "allowed_task_modules": ["benchmarks.contenders."]}
        daemon = Daemon(demo_config(self.database.dsn, pool={**self._pool, "env": meter.environment}, app=app))
        try:
            daemon.start()
            yield DaemonWorkers(daemon)
        finally:
            daemon.close()


@dataclass(frozen=True)
class Product(Contender):
    """The product with one pool."""

    task: str = PROBE
    pool: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[ProductQueue]:
        with fresh_database(cluster) as database, Client(database.dsn) as client:
            yield ProductQueue(database, client, self.task, self.pool)


_SHARED = {"executors": 1, "slots": 50}
CONTENDERS = {
    each.name: each
    for each in (
        Product("product", "two shards of one executor each, mode process", slots=2, pool={"shards": 2, "executors": 2}),
        Product("product-shard", "one shard of two executors, mode process", slots=2, pool={"executors": 2}),
        Product("product-thread", "one executor, mode thread, 50 slots", slots=50, pool={"mode": "thread", **_SHARED}),
        Product(
            "product-async", "one executor, mode async, 50 slots, coroutines", 1.0, 50, task=COROUTINE, pool={"mode": "async", **_SHARED}
        ),
        Product("product-fork", "two executors, isolation fork", 0.1, 2, pool={"executors": 2, "isolation": "fork"}),
        Product("product-exec", "two executors, isolation exec", 0.004, 2, pool={"executors": 2, "isolation": "exec"}),
    )
}
