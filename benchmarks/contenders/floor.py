"""The floor: the store's own statement over as many connections as the product claims with, nobody runs what they claim."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Workers
from benchmarks.contenders.meter import Meter, open_for_notes
from benchmarks.contenders.product import PROBE, ProductQueue
from benchmarks.stage import fresh_database
from benchmarks.store_floor import cycles
from reproq_supervisor.client import Client
from tests.support.postgres import Cluster, Database


class FloorQueue(ProductQueue):
    """The product's queue, worked off by nothing but SQL."""

    def __init__(self, database: Database, client: Client, connections: int, batch: int) -> None:
        super().__init__(database, client, PROBE, {})
        self._connections = connections
        self._batch = batch

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        argv = ["benchmarks.contenders.floor", self.database.dsn, str(self._batch)]
        with running_commands(argv, meter.environment, count=self._connections) as workers:
            yield workers


@dataclass(frozen=True)
class Floor(Contender):
    """Claims and completes only."""

    connections: int = 2
    batch: int = 100

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[FloorQueue]:
        with fresh_database(cluster) as database, Client(database.dsn) as client:
            yield FloorQueue(database, client, self.connections, self.batch)


CONTENDERS = {
    each.name: each
    for each in (
        Floor("floor", "raw SQL of the store, two connections as two shards have, batches of 100", enqueues=False),
        Floor("floor-one", "the same over one connection, as one shard has", enqueues=False, connections=1),
        Floor("floor-500", "the same over two connections, batches of 500", enqueues=False, batch=500),
    )
}


def main() -> None:
    """Claim and complete until told to end; what is claimed counts as started."""
    notes, batch = open_for_notes(), int(sys.argv[2])
    with psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=0) as connection:
        # One client has enqueued all of them, so that their ids follow one another.
        ((first,),) = connection.execute("SELECT min(result_id) FROM task_runs").fetchall()
        for claimed in cycles(connection, f"floor-{os.getpid()}", batch):
            now = time.monotonic()
            for run in claimed:
                notes[run - first] = now
            if not claimed:
                time.sleep(0.01)


if __name__ == "__main__":
    main()
