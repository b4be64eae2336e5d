"""Procrastinate: a worker whose coroutines run in its own process, each job fetched and finished by statements of its own."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import procrastinate

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter
from benchmarks.contenders.tasks import coroutine_probe
from tests.support.postgres import Cluster, Database

DSN = "REPROQ_BENCH_DSN"
CONCURRENCY = 10
ROWS = 1000
"""Jobs of one statement."""


def make_app(dsn: str) -> procrastinate.App:
    """Return the application with its only task."""
    made = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=CONCURRENCY + 2))
    made.task(coroutine_probe, name="probe", pass_context=False)
    return made


def __getattr__(name: str) -> procrastinate.App:
    # Only a worker's command line asks for it, and only there the environment says where the database is.
    if name == "app":
        return make_app(os.environ[DSN])
    raise AttributeError(name)


class ProcrastinateQueue(Queue):
    """A database with its schema, and an application that is open."""

    def __init__(self, database: Database, loop: asyncio.Runner, app: procrastinate.App) -> None:
        self.database: Database = database
        self._loop = loop
        self._task = app.tasks["probe"]

    def enqueue_many(self, works: Sequence[Work]) -> None:
        async def all_of_them() -> None:
            for at in range(0, len(works), ROWS):
                await self._task.batch_defer_async(*(work.arguments() for work in works[at : at + ROWS]))

        self._loop.run(all_of_them())

    def enqueue_one(self, work: Work) -> None:
        self._loop.run(self._task.defer_async(**work.arguments()))

    def is_drained(self) -> bool:
        return not self.database.query("SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        argv = ["procrastinate", "--app", "benchmarks.contenders.procrastinate.app", "worker", "--concurrency", str(CONCURRENCY)]
        with running_commands(argv, {**meter.environment, DSN: self.database.dsn}) as workers:
            yield workers


@dataclass(frozen=True)
class Procrastinate(Contender):
    """Procrastinate with one worker."""

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[Queue]:
        with cluster.new_database() as database, asyncio.Runner() as loop:
            app = make_app(database.dsn)
            loop.run(_opened(app))
            try:
                yield ProcrastinateQueue(database, loop, app)
            finally:
                loop.run(app.close_async())


async def _opened(app: procrastinate.App) -> None:
    await app.open_async()
    await app.schema_manager.apply_schema_async()


CONTENDERS = {"procrastinate": Procrastinate("procrastinate", f"one process, {CONCURRENCY} coroutines at once", share=0.03)}
