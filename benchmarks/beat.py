"""How accurately schedules fire, and what many of them cost while nothing is due.

    python -m benchmarks.beat [--seconds 30] [--schedules 10000] [--json]

A real keeper on a durable server. *accuracy*: a schedule every second; from its nominal time to the moment its run is entered, by the
database's clock. *many*: the processor that the keeper and its server process take with that many schedules of which a few a second are
due, beside the same keeper with none.
"""

import argparse
import json
import time

import psutil

from benchmarks.stage import describe_machine, durable_server, fresh_database, percentile
from tests.support.eventually import eventually
from tests.support.keepers import RunningKeeper, running_keeper
from tests.support.postgres import Cluster, Database

PROMISED_MS = 50.0


def accuracy(cluster: Cluster, seconds: float) -> dict[str, float]:
    """Return milliseconds late of one schedule that fires every second."""
    with fresh_database(cluster) as database, running_keeper(database) as keeper:
        eventually(lambda: listened(keeper) and keeper.acts(), timeout=30, interval=0.0, what="it acts")
        database.query(
            """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at)
               VALUES ('tick', '* * * * * *', 'app.task', date_trunc('second', now()) + interval '3 s')"""
        )
        work(keeper, seconds)
        rows = database.query("SELECT extract(epoch FROM fired_at - fire_at)::float8 * 1000 FROM reproq_firings ORDER BY fire_at")
    late_ms = [ms for (ms,) in rows]
    return {"median": percentile(late_ms, 0.5), "p99": percentile(late_ms, 0.99), "max": max(late_ms), "firings": len(late_ms)}


def processor_share(cluster: Cluster, seconds: float, schedules: int) -> float:
    """Return the share of one processor that keeper and server process take with that many hourly schedules, spread over the hour."""
    with fresh_database(cluster) as database:
        database.query(
            """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at)
               SELECT 's' || n, (n / 60 %% 60) || ' * * * * ' || (n %% 60), 'app.task', now() + (n %% 3600) * interval '1 s'
               FROM generate_series(1, %s) n""",
            schedules,
        )
        with running_keeper(database) as keeper:
            eventually(lambda: listened(keeper) and keeper.ran("beat") >= min(1, schedules), timeout=60, interval=0.0, what="it beats")
            processes = [psutil.Process(keeper.pid), *backends(cluster, database)]
            before = sum(used(process) for process in processes)
            began = time.perf_counter()
            work(keeper, seconds)
            return (sum(used(process) for process in processes) - before) / (time.perf_counter() - began)


def backends(cluster: Cluster, database: Database) -> list[psutil.Process]:
    """Return the server processes of keepers."""
    pids = {pid for (pid,) in database.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'reproq keeper'")}
    return [process for process in cluster.processes() if process.pid in pids]


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def listened(keeper: RunningKeeper) -> bool:
    keeper.listen()
    return True


def work(keeper: RunningKeeper, seconds: float) -> None:
    """Take in what the keeper says for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        keeper.listen()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        late = accuracy(cluster, options.seconds)
        none, many = (processor_share(cluster, options.seconds, count) for count in (0, options.schedules))
    load = psutil.getloadavg()[0]
    if options.json:
        print(
            json.dumps(
                {"machine": machine, "load": load, "late_ms": late, "promised_ms": PROMISED_MS, "processor": {"none": none, "many": many}}
            )
        )
        return
    print(f"late        median {late['median']:.1f} ms   p99 {late['p99']:.1f} ms   max {late['max']:.1f} ms   promised {PROMISED_MS:g} ms")
    print(f"processor   without schedules {none:.1%}   with {options.schedules} {many:.1%} of one core")
    print(f"{machine}; load {load:.1f}")


if __name__ == "__main__":
    main()
