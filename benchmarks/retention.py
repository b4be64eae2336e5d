"""What it costs to delete old history row by row, beside claims; what dropping a partition would cost; and what partitions cost all day.

    python -m benchmarks.retention [--runs 1000000] [--seconds 10] [--json]

One durable server, one run. *beside*: one connection claims and completes as fast as it can: alone, while the keeper's batches delete
that many ended runs, and while a partition with as many is dropped. Its tasks/s, how long its cycles took, the WAL of all, the dead
rows that are left. *records*: inserts and final writes into tables like the record that have no triggers: one table, one that is
partitioned by id, and one by whether the run has ended, where every end moves its row.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from benchmarks.stage import describe_machine, durable_server, fresh_database, percentile
from benchmarks.store_floor import NOTHING
from reproq_supervisor.core.runs import TERMINAL
from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.pruning import as_pruned, prune_parameters
from reproq_supervisor.store.statements import load
from tests.support.postgres import Database

BATCH = 100
BACKLOG = 4000
REST_S = 0.02
"""Between two batches, as the keeper rests."""
PARTITIONS = 30
RECORDS = 40_000
ROUNDS = 3
KINDS = {
    "one table": ("", "(result_id)", "true"),
    "by id": ("PARTITION BY RANGE (result_id)", "(result_id)", "true"),
    "by end": ("PARTITION BY LIST (ended)", "(result_id, ended)", "NOT t.ended"),
}
"""How each kind of table is partitioned, what its primary key must have, and how a final write names the partition that it writes to."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a claimer did in *seconds* while something else went on."""

    tasks_per_s: float
    cycle_median_ms: float
    cycle_p99_ms: float
    cycle_max_ms: float
    wal_mib: float
    seconds: float


class Claimer:
    """Claims and completes on one connection, in a thread, and enqueues more when the queue is empty."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self.cycles_s: list[float] = []
        self.done = 0

    def work(self) -> None:
        held: list[tuple[int, int]] = []
        with self._database.connect() as connection:
            connection.prepare_threshold = 0
            while not self._stop.is_set():
                began = time.perf_counter()
                rows = connection.execute(load("task_lane")["cycle"], _cycle(held)).fetchall()
                self.cycles_s.append(time.perf_counter() - began)
                self.done += sum(len(row[-1]) for row in rows if row[0] == "ended")
                held = [(row[1], row[3]) for row in rows if row[0] == "claimed"]
                if not held:
                    enqueue(connection, [NewRun("bench.noop")] * BACKLOG)

    def end(self) -> None:
        self._stop.set()


def _cycle(held: list[tuple[int, int]]) -> dict[str, Any]:
    n = len(held)
    endings = {
        "end_ids": [run for run, _ in held],
        "end_lease_nos": [no for _, no in held],
        "end_outcomes": ["succeed"] * n,
        "end_values": text_array(["null"] * n),
        "end_delays": [None] * n,
        "end_started_ago": [0.001] * n,
        "end_logs_uris": [None] * n,
    }
    return {**NOTHING, **endings, "leased_by": "bench", "queues": ["default"], "wanted": [BATCH]}


@contextmanager
def claiming(database: Database) -> Iterator[Claimer]:
    claimer = Claimer(database)
    thread = threading.Thread(target=claimer.work)
    thread.start()
    try:
        yield claimer
    finally:
        claimer.end()
        thread.join()


def beside(database: Database, act: Callable[[], None]) -> Beside:
    """Return what a claimer does while *act* goes on."""
    with claiming(database) as claimer:
        time.sleep(1)
        done, cycles, began = claimer.done, len(claimer.cycles_s), time.perf_counter()
        at = _wal(database)
        act()
        seconds = time.perf_counter() - began
        wal = _wal(database) - at
        took_ms = [each * 1000 for each in claimer.cycles_s[cycles:]]
        tasks = claimer.done - done
    return Beside(tasks / seconds, percentile(took_ms, 0.5), percentile(took_ms, 0.99), max(took_ms), wal / 2**20, seconds)


def fill(database: Database, runs: int) -> None:
    """Put in that many runs that ended sixty days ago, past the triggers: they would find nothing to do."""
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            """INSERT INTO task_runs (queue_name, spec_json, spec_hash, task_path, status, enqueued_at, started_at, finished_at, updated_at,
                                      attempts, return_json, dedupe_key)
               SELECT 'default', jsonb_build_object('v', 1, 'task_path', 'bench.noop', 'args', jsonb_build_array(n), 'kwargs', '{}'::jsonb),
                      encode(sha256(n::text::bytea), 'hex'), 'bench.noop', 'SUCCESSFUL', now() - interval '60 d', now() - interval '60 d',
                      now() - interval '60 d', now() - interval '60 d', 1, 'null', NULL
               FROM generate_series(1, %s) n""",
            (runs,),
        )
        connection.execute("RESET session_replication_role")
        connection.execute("VACUUM (ANALYZE) task_runs")


def prune(database: Database) -> int:
    """Delete as the keeper does, until all is gone; return how many."""
    ages_s = dict.fromkeys(sorted(TERMINAL), 30 * 86400.0)
    after: int | None = 0
    gone = 0
    with database.connect() as connection:
        connection.prepare_threshold = 0
        while after is not None:
            row = connection.execute(load("pruning")["prune"], prune_parameters(ages_s, after, early=True)).fetchone()
            assert row is not None
            pruned = as_pruned(row)
            gone += len(pruned.gone)
            after = pruned.looked_at
            time.sleep(REST_S)
    return gone


def partitioned_history(database: Database) -> None:
    """Copy the record into a table of its own, with its indexes, in one partition of thirty."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE history (LIKE task_runs INCLUDING DEFAULTS) PARTITION BY RANGE (finished_at)")
        connection.execute(
            "CREATE TABLE history_0 PARTITION OF history FOR VALUES FROM (MINVALUE) TO (date_trunc('day', now()) - interval '50 d')"
        )
        for age in range(50, 50 - PARTITIONS, -1):
            bounds = f"FROM (date_trunc('day', now()) - interval '{age} d') TO (date_trunc('day', now()) - interval '{age - 1} d')"
            connection.execute(f"CREATE TABLE history_{age} PARTITION OF history FOR VALUES {bounds}")
        connection.execute("CREATE INDEX ON history (result_id)")
        connection.execute("INSERT INTO history SELECT * FROM task_runs WHERE finished_at < now() - interval '30 d'")


def drop(database: Database, seconds: float) -> float:
    """Drop the partition that is full, in the middle of so many seconds; return milliseconds."""
    time.sleep(seconds / 2)
    with database.connect() as connection:
        began = time.perf_counter()
        connection.execute("DROP TABLE history_0")
        took_s = time.perf_counter() - began
    time.sleep(seconds / 2)
    return took_s * 1000


def records(database: Database) -> dict[str, dict[str, float]]:
    """Return rows/s and bytes of WAL a row of inserts and final writes, by kind of table: medians of rounds in turn."""
    rounds = [{kind: _of_kind(database, kind) for kind in KINDS} for _ in range(ROUNDS)]
    return {kind: {name: percentile([each[kind][name] for each in rounds], 0.5) for name in rounds[0][kind]} for kind in KINDS}


def _of_kind(database: Database, kind: str) -> dict[str, float]:
    partition, key, not_ended = KINDS[kind]
    with database.connect() as connection:
        connection.prepare_threshold = 0
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute(f"CREATE TABLE t (LIKE task_runs INCLUDING DEFAULTS, ended boolean NOT NULL DEFAULT false) {partition}")
        if kind == "by id":
            step = RECORDS // PARTITIONS + 1
            for n in range(PARTITIONS):
                connection.execute(f"CREATE TABLE t_{n} PARTITION OF t FOR VALUES FROM ({n * step}) TO ({(n + 1) * step})")
        if kind == "by end":
            connection.execute("CREATE TABLE t_live PARTITION OF t FOR VALUES IN (false)")
            connection.execute("CREATE TABLE t_ended PARTITION OF t FOR VALUES IN (true)")
        connection.execute(f"ALTER TABLE t ADD PRIMARY KEY {key}")
        wal, began = _wal(database), time.perf_counter()
        for first in range(0, RECORDS, BATCH):
            connection.execute(
                """INSERT INTO t (result_id, queue_name, spec_json, spec_hash, task_path, status)
                   SELECT n, 'default', '{"v": 1, "task_path": "bench.noop"}', repeat('0', 64), 'bench.noop', 'READY'
                   FROM generate_series(%s::bigint, %s::bigint) n""",
                (first, first + BATCH - 1),
            )
        inserted = _rates(began, wal, database)
        wal, began = _wal(database), time.perf_counter()
        for first in range(0, RECORDS, BATCH):
            connection.execute(
                f"""UPDATE t SET status = 'SUCCESSFUL', finished_at = now(), started_at = now(), return_json = 'null',
                                 ended = {kind == "by end"}
                    WHERE result_id = ANY (%s) AND {not_ended}""",
                (list(range(first, first + BATCH)),),
            )
        ended = _rates(began, wal, database)
    return {f"{name}_{key}": value for name, each in (("insert", inserted), ("end", ended)) for key, value in each.items()}


def _rates(began: float, wal: int, database: Database) -> dict[str, float]:
    return {"per_s": RECORDS / (time.perf_counter() - began), "wal_bytes": (_wal(database) - wal) / RECORDS}


def _wal(database: Database) -> int:
    return int(database.query("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


def _dead_rows(database: Database) -> int:
    with database.connect() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'task_runs'").fetchone()
    return int(row[0]) if row else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    with durable_server() as cluster, fresh_database(cluster) as database:
        machine = describe_machine(cluster)
        fill(database, options.runs)
        partitioned_history(database)
        alone = beside(database, lambda: time.sleep(options.seconds))
        dropped_ms: list[float] = []
        dropping = beside(database, lambda: dropped_ms.append(drop(database, options.seconds)))
        gone: list[int] = []
        before = _dead_rows(database)
        pruning = beside(database, lambda: gone.append(prune(database)))
        dead = _dead_rows(database) - before
        kinds = records(database)
    load_1m = psutil.getloadavg()[0]
    if options.json:
        result = {
            "alone": asdict(alone),
            "prune": asdict(pruning),
            "drop": asdict(dropping),
            "dropped_ms": dropped_ms[0],
            "pruned": gone[0],
        }
        print(json.dumps({"machine": machine, "load": load_1m, **result, "dead_rows": dead, "records": kinds}))
        return
    print(f"{'beside':<10}{'tasks/s':>10}{'cycle p50':>12}{'p99':>10}{'max':>10}{'WAL':>11}{'seconds':>10}")
    for name, each in (("nothing", alone), ("prune", pruning), ("drop", dropping)):
        print(
            f"{name:<10}{each.tasks_per_s:>10.0f}{each.cycle_median_ms:>9.1f} ms{each.cycle_p99_ms:>7.1f} ms{each.cycle_max_ms:>7.0f} ms"
            f"{each.wal_mib:>7.0f} MiB{each.seconds:>10.1f}"
        )
    print(
        f"pruned {gone[0]} runs, {gone[0] / pruning.seconds:.0f}/s; {dead:+} dead rows of the record; the drop took {dropped_ms[0]:.0f} ms"
    )
    print(f"\n{'records':<12}{'inserts/s':>11}{'WAL each':>10}{'ends/s':>10}{'WAL each':>10}")
    for kind, rate in kinds.items():
        inserts, ends = ((rate[f"{name}_per_s"], rate[f"{name}_wal_bytes"]) for name in ("insert", "end"))
        print(f"{kind:<12}{inserts[0]:>11.0f}{inserts[1]:>8.0f} B{ends[0]:>10.0f}{ends[1]:>8.0f} B")
    print(f"{machine}; load {load_1m:.1f}")


if __name__ == "__main__":
    main()
