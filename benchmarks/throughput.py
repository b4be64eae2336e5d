"""No-op tasks per second beside the raw-SQL floor on the same schema, time from commit to start, memory per process.

    python -m benchmarks.throughput [--rounds 5] [--tasks 40000] [--json]

Floor and product take turns in one run, on one durable server: quote the ratio. The floor claims and completes in batches
of 100 (--batch), over one connection, as the product's one shard, and over as many as the product has open, its listener and its keeper
included; the product drains the same backlog through supervisor, shard and killable executors. Beside tasks/s stands the
processor time of each kind of process for a task, which a busy machine changes far less.
"""

import argparse
import json
import random
import statistics
import time
from contextlib import suppress

import psutil
import psycopg

from benchmarks import store_floor
from benchmarks.report import remember
from benchmarks.stage import at_least_one, describe_machine, durable_server, fresh_database, percentile, running_daemon
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

NOOP = "workers.demo.tasks.noop"
_CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'reproq%'"


def measure_floor(cluster: Cluster, tasks: int, connections: int, batch: int = 100) -> dict[str, float]:
    """Return the figures of the raw statements."""
    with fresh_database(cluster) as database:
        return store_floor.measure(database.dsn, tasks, batch=batch, connections=connections)


def measure_product(cluster: Cluster, tasks: int, executors: int, shards: int) -> dict[str, float]:
    """Return tasks/s, commits and WAL per task of the product, from the commit of the backlog to the end of its last task."""
    with fresh_database(cluster) as database, running_daemon(database, executors=executors, shards=shards) as daemon:
        with database.connect() as connection:
            enqueue(connection, [NewRun(NOOP) for _ in range(tasks)])
            before = _counters(database)
            spent_before = _processor_s(database, daemon)
            connection.commit()
            began = time.time()
        eventually(lambda: _left(database) == 0, timeout=300, interval=0.2, what="the backlog is worked off")
        ((finished,),) = database.query("SELECT extract(epoch FROM max(finished_at))::float8 FROM task_runs")
        after, spent_after = _counters(database), _processor_s(database, daemon)
        assert database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(tasks,)]
        wal, commits = (late - early for late, early in zip(after, before, strict=True))
        return {
            "tasks_per_s": tasks / (finished - began),
            "wal_bytes_per_task": wal / tasks,
            "commits_per_task": commits / tasks,
            "connections": float(len(database.query(_CONNECTIONS))),
            **{f"cpu_us_{kind}": (spent_after[kind] - spent_before.get(kind, 0.0)) / tasks * 1e6 for kind in spent_after},
            **measure_memory(daemon),
        }


def measure_latency(cluster: Cluster, runs: int) -> dict[str, float]:
    """Return milliseconds from the commit of a single task to its start, on an idle pool."""
    with fresh_database(cluster) as database, running_daemon(database, executors=2):
        commits: dict[int, float] = {}
        with database.connect() as connection:
            for _ in range(runs):
                time.sleep(random.uniform(0.02, 0.06))  # the pool is idle, and arrivals do not follow a beat
                (run,) = enqueue(connection, [NewRun(NOOP)])
                connection.commit()
                commits[run] = time.time()
        eventually(lambda: _left(database) == 0, timeout=60, what="all have run")
        rows = database.query("SELECT result_id, extract(epoch FROM started_at)::float8 FROM task_runs")
        waits = [(started - commits[run]) * 1000 for run, started in rows]
        return {"p50_ms": statistics.median(waits), "p95_ms": percentile(waits, 0.95), "p99_ms": percentile(waits, 0.99)}


def measure_memory(daemon: Daemon) -> dict[str, float]:
    """Return MiB by kind of process, all of that kind together: the proportional set, in which shared pages count once; and the sum."""
    sizes: dict[str, float] = {}
    for pid, kind in daemon.processes().items():
        if kind not in ("postgres", "other"):
            name = f"pss_mib_{kind}"
            sizes[name] = sizes.get(name, 0.0) + psutil.Process(pid).memory_full_info().pss / 2**20
    return {name: round(size, 1) for name, size in {**sizes, "pss_mib_all": sum(sizes.values())}.items()}


def _processor_s(database: Database, daemon: Daemon) -> dict[str, float]:
    """Return the processor seconds that each kind of process has used so far; of the server those of the product's sessions.

    Whoever enqueues is on the same database, and gone at the end: taken by the database's name it would be counted before and not after.
    """
    spent = dict.fromkeys(("shard", "executor", "server"), 0.0)
    processes = [(pid, kind) for pid, kind in daemon.processes().items() if kind in spent]
    for pid, kind in [*processes, *((pid, "server") for (pid,) in database.query(_CONNECTIONS))]:
        with suppress(psutil.NoSuchProcess):
            spent[kind] += sum(psutil.Process(pid).cpu_times()[:2])
    return spent


def _left(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*) FROM (SELECT FROM task_lane LIMIT 1) AS any_row")
    return int(count)


def _counters(database: Database) -> tuple[float, float]:
    # Statistics of a backend that is still at work reach the view with a delay; both ends of the measurement are idle.
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, xact_commit::float8"
            " FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return row


def _ratios(floors: list[dict[str, float]], products: list[dict[str, float]]) -> dict[str, float]:
    ratios = [product["tasks_per_s"] / floor["tasks_per_s"] for floor, product in zip(floors, products, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--tasks", type=int, default=40_000)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--batch", type=at_least_one, default=100, help="of the floor; the product's grow up to some hundreds")
    parser.add_argument("--latency-runs", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        floors, wide_floors, products = [], [], []
        for round_no in range(options.rounds):
            floors.append(measure_floor(cluster, options.tasks, 1, options.batch))
            products.append(measure_product(cluster, options.tasks, options.executors, options.shards))
            wide_floors.append(measure_floor(cluster, options.tasks, int(products[-1]["connections"]), options.batch))
            if not options.json:
                told = (f"{figures['tasks_per_s']:.0f}/s" for figures in (floors[-1], wide_floors[-1], products[-1]))
                print("round {}: floor {}, over all connections {}, product {}".format(round_no + 1, *told), flush=True)
        latency = measure_latency(cluster, options.latency_runs)
    ratios = _ratios(floors, products)
    wide_ratios = _ratios(wide_floors, products)
    medians = {name: statistics.median(product[name] for product in products if name in product) for name in products[-1]}
    result = {
        "machine": machine,
        "floor_tasks_per_s": statistics.median(floor["tasks_per_s"] for floor in floors),
        "wide_floor_tasks_per_s": statistics.median(floor["tasks_per_s"] for floor in wide_floors),
        "product": {name: round(value, 4) for name, value in medians.items()},
        "ratio_to_floor": ratios,
        "ratio_to_wide_floor": wide_ratios,
        "start_latency": {name: round(value, 2) for name, value in latency.items()},
    }
    remember(
        {
            "benchmark": "throughput",
            **result,
            **{name: getattr(options, name) for name in ("rounds", "tasks", "executors", "shards", "batch")},
        }
    )
    if options.json:
        print(json.dumps(result))
        return
    print(f"\n{machine}; {options.tasks} no-op tasks, {options.executors} executors, {options.shards} shards, median of {options.rounds}")
    print(f"  product                 {medians['tasks_per_s']:>10.0f} tasks/s")
    print(f"  raw SQL, 1 connection   {result['floor_tasks_per_s']:>10.0f} tasks/s   ratio {ratios['median']:.2f}")
    wide = f"raw SQL, {medians['connections']:.0f} connections"
    print(f"  {wide:<24}{result['wide_floor_tasks_per_s']:>10.0f} tasks/s   ratio {wide_ratios['median']:.2f}")
    for kind in ("server", "shard", "executor"):
        print(f"  processor, {kind:<13}{medians[f'cpu_us_{kind}']:>10.1f} us a task")
    print(f"  commits per task        {medians['commits_per_task']:>10.4f}")
    print(f"  WAL per task            {medians['wal_bytes_per_task']:>10.0f} bytes")
    print(f"  commit to start         {latency['p50_ms']:>10.1f} ms p50, {latency['p99_ms']:.1f} ms p99")
    for name, value in medians.items():
        if name.startswith("pss_mib_"):
            print(f"  memory {name.removeprefix('pss_mib_'):<17}{value:>10.1f} MiB (PSS)")


if __name__ == "__main__":
    main()
