"""Operators who retry, prune, expire, cancel and reclaim at once, beside workers and producers: nobody deadlocks, nothing is lost."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from reproq_supervisor.core.runs import Ending, Outcome, RunStatus
from reproq_supervisor.store.commands import cancel
from reproq_supervisor.store.filters import Filter
from reproq_supervisor.store.pruning import expire, prune, prune_expired
from reproq_supervisor.store.reclaiming import ReclaimAction, expired_leases, reclaim
from reproq_supervisor.store.triage import active, matching, replay, retry
from tests.store.actors import Shard, assert_invariant, ended
from tests.support.postgres import Database

ROUNDS = 12
KEPT_S = {RunStatus.SUCCESSFUL: 0.2, RunStatus.FAILED: 1.0, RunStatus.CANCELLED: 0.5}
ROW = """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, workflow_id, parent_id, wait_count, lock_key, expires_at,
                                max_attempts)
         VALUES ('{"task_path": "a.b"}', %s, 'a.b', %s, %s, %s, %s, %s, now() + %s * interval '1 s', 2)
         ON CONFLICT DO NOTHING RETURNING result_id"""
DUE = """UPDATE task_lane SET due_at = CASE WHEN state = 'parked' THEN now() ELSE due_at END,
                              leased_until = CASE WHEN state = 'running' THEN now() - interval '1 s' END
         WHERE state = 'running' OR park_reason = 'due'"""
CARE = """SELECT reproq_wake_due(10000), reproq_reclaim(1000), reproq_settle_wishes(1000), reproq_sweep_flows(0, 10000),
                 reproq_sweep_keys('', 1000), reproq_settle_flows(1000), reproq_settle_keys(1000)"""
Connection = psycopg.Connection[tuple[object, ...]]


def produce(connection: Connection, rng: random.Random) -> None:
    """Insert a chord, a chain, or some runs with keys, twins and little time."""
    workflow, kind = uuid4(), rng.randrange(3)
    with connection.transaction():
        if kind == 0:
            size = rng.randrange(1, 5)
            for _ in range(size):
                connection.execute(ROW, (uuid4().hex, "READY", workflow, None, 0, None, None))
            row = connection.execute(ROW, (uuid4().hex, "WAITING", workflow, None, size, None, None)).fetchone()
            assert row is not None
            chord = "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)"
            connection.execute(chord, (workflow, size, row[0]))
        elif kind == 1:
            parent = None
            for _ in range(4):
                status, waits = ("WAITING", 1) if parent else ("READY", 0)
                row = connection.execute(ROW, (uuid4().hex, status, workflow, parent, waits, None, None)).fetchone()
                assert row is not None
                parent = row[0]
        else:
            for _ in range(5):
                key, time_s = rng.choice((None, "l1", "l2")), rng.choice((None, None, rng.random()))
                connection.execute(ROW, (str(rng.randrange(30)), "READY", None, None, 0, key, time_s))


def retry_all(connection: Connection, _: random.Random) -> None:
    runs = matching(connection, Filter((RunStatus.FAILED, RunStatus.CANCELLED)))
    for start in range(0, len(runs), 50):
        retry(connection, runs[start : start + 50])


def prune_all(connection: Connection, _: random.Random) -> None:
    for _batch in prune(connection, KEPT_S):
        pass


def expire_all(connection: Connection, _: random.Random) -> None:
    sum(expire(connection))
    for _batch in prune_expired(connection):
        pass


def cancel_some(connection: Connection, rng: random.Random) -> None:
    runs = active(connection, Filter((RunStatus.READY, RunStatus.WAITING, RunStatus.RUNNING)))
    some = rng.sample(runs, min(3, len(runs)))
    cancel(connection, some)
    replay(connection, some[:1])


def take_care(connection: Connection, _: random.Random) -> None:
    reclaim(connection, expired_leases(connection, 0, None), 0, ReclaimAction.REQUEUE)
    connection.execute(CARE)


DEEDS: tuple[Callable[[Connection, random.Random], None], ...] = (produce, retry_all, prune_all, expire_all, cancel_some, take_care)


def repeat(dsn: str, deed: Callable[[Connection, random.Random], None], seed: int) -> None:
    rng = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(ROUNDS):
            deed(connection, rng)


def work(dsn: str, worker_id: str, seed: int, is_over: threading.Event) -> None:
    """Claim, and end most of it one way or another; the rest is left to its lease."""
    rng, shard = random.Random(seed), Shard(dsn, worker_id)
    outcomes = (Outcome.SUCCEED, Outcome.SUCCEED, Outcome.FAIL, Outcome.FAIL_FINALLY)
    with ended(shard):
        endings: tuple[Ending, ...] = ()
        while not is_over.is_set():
            claimed = shard.cycle(lease_s=0.5, endings=endings, claims=(("default", 20),)).claimed
            kept = [each for each in claimed if rng.random() > 0.05]
            endings = tuple(
                Ending(each.result_id, each.lease_no, rng.choice(outcomes), b'{"kind": "app_error", "message": "x"}', 0.0, 0.01)
                for each in kept
            )


@pytest.mark.slow
def test_everything_that_operators_do_at_once_leaves_every_run_with_an_end(database: Database) -> None:
    is_over = threading.Event()
    with ThreadPoolExecutor(2 * len(DEEDS) + 2) as pool:
        workers = [pool.submit(work, database.dsn, f"worker-{n}", n, is_over) for n in range(2)]
        deeds = [pool.submit(repeat, database.dsn, deed, seed) for seed, deed in enumerate(DEEDS * 2)]
        try:
            for done in deeds:
                done.result(timeout=240)  # a deadlock, or anything else that goes wrong, is raised here
        finally:
            is_over.set()
        for done in workers:
            done.result(timeout=240)
    assert_invariant(database)
    finish_everything(database)
    assert database.query("SELECT state, park_reason, count(*) FROM task_lane GROUP BY 1, 2") == []
    assert database.query("SELECT dedupe_key FROM task_runs WHERE dedupe_key IS NOT NULL") == []


def finish_everything(database: Database) -> None:
    """Let what is left succeed: whatever is then still in the lane was forgotten."""
    shard = Shard(database.dsn, "last")
    with ended(shard):
        for _ in range(100):
            database.query(DUE)
            database.query(CARE)
            claimed = shard.claim(200)
            shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.SUCCEED, b"1", None, 0.01) for each in claimed))
            if database.query("SELECT count(*) FROM task_lane") == [(0,)]:
                return
