"""The floor: the store's own statement over one connection, a hundred runs a cycle, nobody runs them."""

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
from tests.support.postgres import Cluster

BATCH = 100


class FloorQueue(ProductQueue):
    """The product's queue, worked off by nothing but SQL."""

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        with running_commands(["benchmarks.contenders.floor", self.database.dsn], meter.environment) as workers:
            yield workers


@dataclass(frozen=True)
class Floor(Contender):
    """Claims and completes only."""

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[FloorQueue]:
        with fresh_database(cluster) as database, Client(database.dsn) as client:
            yield FloorQueue(database, client, PROBE, {})


CONTENDERS = {"floor": Floor("floor", f"raw SQL of the store, one connection, batches of {BATCH}", enqueues=False)}


def main() -> None:
    """Claim and complete until told to end; what is claimed counts as started, in the order in which it comes."""
    notes, n = open_for_notes(), 0
    with psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=0) as connection:
        for claimed in cycles(connection, f"floor-{os.getpid()}", BATCH):
            now = time.monotonic()
            for _ in range(claimed):
                notes[n] = now
                n += 1
            if not claimed:
                time.sleep(0.01)


if __name__ == "__main__":
    main()
