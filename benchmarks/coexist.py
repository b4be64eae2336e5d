"""What co-existence with an older worker costs: enqueue, claim and complete with the mode off and on, side by side, durable.

    python -m benchmarks.coexist [--tasks 20000] [--rounds 3]

Prints the figures of each and their ratio, and how long the look takes by which a claim finds the mode off.
"""

import argparse
import statistics

from benchmarks.stage import describe_machine, durable_server
from benchmarks.store_floor import measure
from reproq_supervisor.store.migrate import migrate
from tests.support.postgres import Cluster

FIGURES = ("enqueued_per_s", "tasks_per_s", "wal_bytes_per_task")
LOOKS = 100_000
_LOOK = f"""
DO $$ BEGIN FOR i IN 1 .. {LOOKS} LOOP IF EXISTS (SELECT FROM reproq_coexistence) THEN RAISE 'on'; END IF; END LOOP; END $$
"""


def measure_mode(cluster: Cluster, tasks: int, *, coexist: bool) -> dict[str, float]:
    """Work off *tasks* in a fresh database, two connections in batches of 100."""
    with cluster.new_database() as database:
        with database.connect() as connection:
            migrate(connection, coexist=coexist)
        return measure(database.dsn, tasks, batch=100, connections=2)


def look_us(cluster: Cluster) -> float:
    """Return how many microseconds one look for the mode takes while it is off."""
    with cluster.new_database() as database, database.connect() as connection:
        migrate(connection)
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        connection.execute(_LOOK.encode())
        took = connection.execute("SELECT extract(epoch FROM clock_timestamp() - %s)::float8", row).fetchone()
        assert took is not None, "a SELECT without FROM has one row"
        return float(took[0]) / LOOKS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with durable_server() as cluster:
        print(describe_machine(cluster))
        # In turns, so that what else the machine does falls on both.
        rounds = [[measure_mode(cluster, options.tasks, coexist=on) for on in (False, True)] for _ in range(options.rounds)]
        print(f"{'':<20}{'off':>10}{'on':>10}{'on / off':>10}")
        for name in FIGURES:
            off, on = (statistics.median(pair[at][name] for pair in rounds) for at in (0, 1))
            print(f"{name:<20}{off:>10.0f}{on:>10.0f}{on / off:>10.2f}")
        print(f"a look for the mode, two or three for each claim: {look_us(cluster):.2f} us")


if __name__ == "__main__":
    main()
