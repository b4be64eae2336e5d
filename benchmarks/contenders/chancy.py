"""Chancy: coroutines in the worker's process, polled eagerly; ends of jobs are written once a second, in batches."""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import chancy

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Work, Workers
from benchmarks.contenders.contender import Queue as ContenderQueue
from benchmarks.contenders.meter import Meter
from benchmarks.contenders.tasks import coroutine_probe
from tests.support.postgres import Cluster, Database

DSN = "REPROQ_BENCH_DSN"
CONCURRENCY = 1000


def make_app(dsn: str) -> chancy.Chancy:
    """Return the application; it says a line for each job at the level INFO."""
    log = logging.getLogger("benchmarks.chancy")
    log.setLevel(logging.ERROR)
    return chancy.Chancy(dsn, log=log)


def __getattr__(name: str) -> chancy.Chancy:
    # Only a worker's command line asks for it, and only there the environment says where the database is.
    if name == "app":
        return make_app(os.environ[DSN])
    raise AttributeError(name)


class ChancyQueue(ContenderQueue):
    """A database with its schema and one queue."""

    def __init__(self, database: Database, loop: asyncio.Runner, app: chancy.Chancy) -> None:
        self.database: Database = database
        self._loop = loop
        self._app = app

    def enqueue_many(self, works: Sequence[Work]) -> None:
        async def all_of_them() -> None:
            async for _ in self._app.push_many([_job(work) for work in works]):
                pass

        self._loop.run(all_of_them())

    def enqueue_one(self, work: Work) -> None:
        self._loop.run(self._app.push(_job(work)))

    def is_drained(self) -> bool:
        return not self.database.query("SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying') LIMIT 1")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        argv = ["chancy.cli.cli", "--app", "benchmarks.contenders.chancy.app", "worker", "start"]
        with running_commands(argv, {**meter.environment, DSN: self.database.dsn}) as workers:
            yield workers


def _job(work: Work) -> chancy.Job:
    return chancy.Job.from_func(coroutine_probe, queue="default", kwargs=work.arguments())


@dataclass(frozen=True)
class Chancy(Contender):
    """Chancy with one worker."""

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[ContenderQueue]:
        with cluster.new_database() as database, asyncio.Runner() as loop:
            app = make_app(database.dsn)
            loop.run(app.__aenter__())
            try:
                loop.run(app.migrate())
                executor = chancy.Chancy.Executor.Async
                queue = chancy.Queue("default", concurrency=CONCURRENCY, executor=executor, polling_interval=1, eager_polling=True)
                loop.run(app.declare(queue, upsert=True))
                yield ChancyQueue(database, loop, app)
            finally:
                loop.run(app.__aexit__(None, None, None))


CONTENDERS = {"chancy": Chancy("chancy", f"one process, {CONCURRENCY} coroutines at once, eager polling", share=0.4)}
