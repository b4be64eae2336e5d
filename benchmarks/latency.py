"""Milliseconds from the commit of a single task to its start on an idle pool, by stage, beside what the server alone takes.

    python -m benchmarks.latency [--runs 300] [--json]

* floor: one durable commit of one row; from a commit until another connection has heard its notification; a claim of one run by the
  product's own statement;
* claimed: from the commit of a task to its claim, which a shard on an idle pool is woken for;
* started: from the claim to the first line of the task;
* start: both together.

The claim is the time that the database notes for it, the start what the task itself reads from the clock; all clocks are of one machine.
"""

import argparse
import json
import random
import select
import time
from collections.abc import Sequence

import psycopg

from benchmarks.report import remember
from benchmarks.stage import describe_machine, durable_server, fresh_database, percentile, running_daemon
from reproq_supervisor.core.runs import Ending, Outcome
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Shard, ended
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

TELL_TIME = "workers.demo.tasks.tell_time"


def _pause() -> None:
    """Let everybody come to rest; arrivals do not follow a beat."""
    time.sleep(random.uniform(0.02, 0.06))


def measure_commits(database: Database, runs: int) -> list[float]:
    """Return the milliseconds of a statement that writes one narrow row, committed and flushed."""
    waits = []
    with psycopg.connect(database.dsn, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("CREATE TABLE floor (n int)")
        for n in range(runs):
            _pause()
            began = time.perf_counter()
            connection.execute("INSERT INTO floor VALUES (%s)", (n,))
            waits.append((time.perf_counter() - began) * 1000)
    return waits


def measure_notifications(database: Database, runs: int) -> list[float]:
    """Return the milliseconds from a commit until its notification was heard by a client that does nothing else."""
    waits = []
    with psycopg.connect(database.dsn, autocommit=True) as ear, psycopg.connect(database.dsn, autocommit=True) as mouth:
        ear.execute("LISTEN floor")
        for _ in range(runs):
            _pause()
            began = time.perf_counter()
            mouth.execute("NOTIFY floor")
            select.select([ear.fileno()], [], [], 10)
            waits.append((time.perf_counter() - began) * 1000)
            for _ in ear.notifies(timeout=10, stop_after=1):
                pass
    return waits


def measure_claims(database: Database, runs: int) -> list[float]:
    """Return the milliseconds that a shard's cycle takes which claims one run and says nothing else."""
    waits = []
    shard = Shard(database.dsn, "floor")
    with ended(shard), database.connect() as connection:
        for _ in range(runs):
            enqueue(connection, [NewRun(TELL_TIME)])
            connection.commit()
            began = time.perf_counter()
            (claimed,) = shard.cycle(claims=(("default", 2),)).claimed
            waits.append((time.perf_counter() - began) * 1000)
            shard.cycle(endings=(Ending(claimed.result_id, claimed.lease_no, Outcome.SUCCEED, b"null"),))
    return waits


def measure_starts(database: Database, runs: int, executors: int) -> dict[str, list[float]]:
    """Return the milliseconds from commit to claim, from claim to start and from commit to start, of single tasks."""
    commits: dict[int, float] = {}
    with running_daemon(database, executors=executors), database.connect() as connection:
        for _ in range(runs):
            _pause()
            (run,) = enqueue(connection, [NewRun(TELL_TIME)])
            connection.commit()
            commits[run] = time.time()
        left = "SELECT count(*) FROM (SELECT FROM task_lane LIMIT 1) AS any_row"
        eventually(lambda: database.query(left) == [(0,)], timeout=60, what="all have run")
    times = database.query(
        "SELECT result_id, extract(epoch FROM last_attempted_at)::float8, return_json::float8 FROM task_runs WHERE result_id = ANY (%s)",
        list(commits),
    )
    return {
        "claimed": [(claimed - commits[run]) * 1000 for run, claimed, _ in times],
        "started": [(started - claimed) * 1000 for _, claimed, started in times],
        "start": [(started - commits[run]) * 1000 for run, _, started in times],
    }


def measure(cluster: Cluster, runs: int, executors: int = 2) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 of every stage, in milliseconds."""
    with fresh_database(cluster) as database:
        floor = {
            "floor: commit": measure_commits(database, runs),
            "floor: notification": measure_notifications(database, runs),
            "floor: claim": measure_claims(database, runs),
        }
    with fresh_database(cluster) as database:
        stages = {**floor, **measure_starts(database, runs, executors)}
    return {name: _percentiles(waits) for name, waits in stages.items()}


def _percentiles(waits: Sequence[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(percentile(waits, share / 100), 3) for share in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        stages = measure(cluster, options.runs, options.executors)
    result = {"machine": machine, "runs": options.runs, "stages": stages}
    remember({"benchmark": "latency", **result})
    if options.json:
        print(json.dumps(result))
        return
    print(f"{machine}; {options.runs} tasks one by one, {options.executors} executors\n")
    for name, figures in stages.items():
        print(f"  {name:<22}" + "".join(f"{key.removesuffix('_ms')} {value:>8.2f} ms   " for key, value in figures.items()))


if __name__ == "__main__":
    main()
