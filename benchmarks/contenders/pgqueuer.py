"""PgQueuer on asyncpg, its quicker driver: coroutines in the worker's own process, nothing of it can be killed."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg
import pgqueuer
import uvloop
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter
from benchmarks.contenders.tasks import coroutine_probe
from tests.support.postgres import Cluster, Database

DSN = "REPROQ_BENCH_DSN"
ROWS = 1000
"""Jobs of one statement."""


async def worker() -> AsyncIterator[pgqueuer.PgQueuer]:
    """Yield what its `run` runs."""
    async with asyncpg.create_pool(os.environ[DSN], min_size=2) as pool:
        queue = pgqueuer.PgQueuer(AsyncpgPoolDriver(pool))

        @queue.entrypoint("probe")
        async def run(job: Job) -> None:
            await coroutine_probe(**json.loads(job.payload or b"{}"))

        yield queue


class PgQueuerQueue(Queue):
    """A database with its schema, and a producer on one connection."""

    def __init__(self, database: Database, loop: asyncio.Runner, queries: Queries, batch: int, processes: int) -> None:
        self.database: Database = database
        self._loop = loop
        self._queries = queries
        self._batch = batch
        self._processes = processes

    def enqueue_many(self, works: Sequence[Work]) -> None:
        async def all_of_them() -> None:
            for at in range(0, len(works), ROWS):
                payloads = [json.dumps(work.arguments()).encode() for work in works[at : at + ROWS]]
                await self._queries.enqueue(["probe"] * len(payloads), payloads, [0] * len(payloads))

        self._loop.run(all_of_them())

    def enqueue_one(self, work: Work) -> None:
        self._loop.run(self._queries.enqueue("probe", json.dumps(work.arguments()).encode()))

    def is_drained(self) -> bool:
        return not self.database.query("SELECT FROM pgqueuer LIMIT 1")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        environment = {**meter.environment, DSN: self.database.dsn}
        argv = ["benchmarks.contenders.pgqueuer", str(self._batch)]
        with running_commands(argv, environment, count=self._processes) as workers:
            yield workers


@dataclass(frozen=True)
class PgQueuer(Contender):
    """PgQueuer with a size of its batches."""

    batch: int = 500
    processes: int = 2

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[Queue]:
        with cluster.new_database() as database, asyncio.Runner() as loop:
            connection = loop.run(asyncpg.connect(database.dsn))
            try:
                queries = Queries(AsyncpgDriver(connection))
                loop.run(queries.install())
                yield PgQueuerQueue(database, loop, queries, self.batch, self.processes)
            finally:
                loop.run(connection.close())


CONTENDERS = {"pgqueuer": PgQueuer("pgqueuer", "asyncpg and uvloop, two processes, batches of 500, coroutines")}

if __name__ == "__main__":
    uvloop.run(pgqueuer.run(asynccontextmanager(worker), batch_size=int(sys.argv[1])))
