"""The floor of the store: claim and complete with nothing in between, through the store's own statement, durable.

    python -m benchmarks.store_floor postgresql://... [--tasks 40000] [--batch 100] [--connections 2]

Creates a database of its own beside the one of the URL, prints one JSON line, and drops it. What a task costs here no pool can save:
the product is measured against these figures in the same run.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import multiprocess
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.migrate import migrate
from reproq_supervisor.store.statements import load

DATABASE = "reproq_store_floor"
NOTHING: dict[str, Any] = {
    **{name: [] for name in ("end_ids", "end_lease_nos", "end_outcomes", "end_values", "end_delays", "end_started_ago", "end_logs_uris")},
    **{name: [] for name in ("show_ids", "show_lease_nos", "show_started_ago", "renew_ids", "renew_lease_nos", "watch_ids")},
    "lease_s": 60.0,
    **dict.fromkeys(("after_keys", "after_dues", "after_ids")),
    "is_idle": False,
    "claim_bytes": 64 * 1024 * 1024,
}


def work_off(dsn: str, worker_id: str, batch: int, start_at: float) -> int:
    """Claim and complete until the queue is empty; return how many."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        time.sleep(max(0.0, start_at - time.time()))
        done = 0
        for claimed in cycles(connection, worker_id, batch):
            if not claimed:
                return done
            done += len(claimed)
    return done


def cycles(connection: psycopg.Connection[Any], worker_id: str, batch: int) -> Iterator[list[int]]:
    """Claim again and again, and complete with each claim what the last one brought; yield the runs that each claim brought."""
    claimed: list[tuple[int, int]] = []
    while True:
        n = len(claimed)
        endings = {
            "end_ids": [run for run, _ in claimed],
            "end_lease_nos": [no for _, no in claimed],
            "end_outcomes": ["succeed"] * n,
            "end_values": text_array(["null"] * n),
            "end_delays": [None] * n,
            "end_started_ago": [0.001] * n,
            "end_logs_uris": [None] * n,
        }
        parameters = {**NOTHING, **endings, "leased_by": worker_id, "queues": ["default"], "wanted": [batch]}
        rows = connection.execute(load("task_lane")["cycle"], parameters).fetchall()
        ended = sum(len(row[-1]) for row in rows if row[0] == "ended")
        assert ended == n, f"expected {n} runs to end, got {ended}"
        claimed = [(row[1], row[3]) for row in rows if row[0] == "claimed"]
        yield [run for run, _ in claimed]


def measure(dsn: str, tasks: int, batch: int, connections: int) -> dict[str, float]:
    """Enqueue *tasks* and work them off; return the figures per second and per task."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        migrate(admin)
        began = time.perf_counter()
        enqueue(admin, [NewRun("benchmarks.noop", [i]) for i in range(tasks)])
        enqueue_s = time.perf_counter() - began
        before = _counters(admin)
        start_at = time.time() + 1.0
        with multiprocess.get_context("spawn").Pool(connections) as pool:
            jobs = [pool.apply_async(work_off, (dsn, f"floor-{i}", batch, start_at)) for i in range(connections)]
            done = sum(job.get() for job in jobs)
            seconds = time.time() - start_at
        after = _counters(admin)
    assert done == tasks, f"expected {tasks} tasks done, got {done}"
    wal, commits = (late - early for late, early in zip(after, before, strict=True))
    return {
        "tasks_per_s": round(tasks / seconds),
        "wal_bytes_per_task": round(wal / tasks),
        "commits_per_task": round(commits / tasks, 4),
        "enqueued_per_s": round(tasks / enqueue_s),
    }


def _counters(connection: psycopg.Connection[Any]) -> tuple[float, float]:
    row = connection.execute(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, xact_commit::float8"
        " FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dsn")
    parser.add_argument("--tasks", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args()
    name = sql.Identifier(DATABASE)
    with psycopg.connect(options.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            print(json.dumps(measure(make_conninfo(options.dsn, dbname=DATABASE), options.tasks, options.batch, options.connections)))
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


if __name__ == "__main__":
    main()
