"""Many claimers and workflows inserted row by row, failures, cancellations, deletions, deaths: each workflow ends, and as it must."""

import random
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.store.actors import Keeper, assert_invariant, ended
from tests.store.test_concurrency import in_processes
from tests.store.test_keys_concurrency import call
from tests.support.eventually import eventually
from tests.support.postgres import Database

CLAIMERS = 6
_INSERT = """
INSERT INTO task_runs (spec_json, spec_hash, task_path, status, workflow_id, parent_id, wait_count, max_attempts, dedupe_key, lock_key)
VALUES ('{"task_path": "app.task"}', %s, 'app.task', %s, %s, %s, %s, %s, NULL, %s) RETURNING result_id
"""
# A member of a chord that is whole; what is taken from one that is still being inserted is missed by nobody.
_ANY = """
SELECT r.result_id FROM task_runs r JOIN workflow_runs w USING (workflow_id)
WHERE r.status = %s AND r.result_id <> w.callback_result_id AND coalesce(r.errors_json #>> '{-1,kind}', '') <> 'parent_failed'
  AND w.expected_count < (SELECT count(*) FROM task_runs m WHERE m.workflow_id = w.workflow_id)
ORDER BY random() LIMIT 1
"""


def insert_flow(connection: Any, rng: random.Random) -> None:
    """Insert a chain, or a chord whose members are chains of up to three, in any order: callback and its row first, in between or last."""
    workflow = uuid4()

    def run(status: str, parent: int | None = None, waits: int = 0) -> int:
        lock = f"l{rng.randrange(4)}" if rng.random() < 0.2 else None
        row = connection.execute(_INSERT, (uuid4().hex, status, workflow, parent, waits, rng.choice((1, 50)), lock)).fetchone()
        return int(row[0])

    def chain(length: int) -> None:
        parent = None
        for at in range(length):
            parent = run("WAITING" if at else "READY", parent, 1 if at else 0)

    if rng.random() < 0.4:
        chain(rng.randint(1, 6))
        return
    lengths = [rng.choice((1, 1, 1, 2, 3)) for _ in range(rng.randint(1, 8))]
    steps: list[Callable[[], object]] = [lambda length=length: chain(length) for length in lengths]  # type: ignore[misc]

    def callback() -> None:
        made = run("WAITING", None, sum(lengths))
        connection.execute(
            "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)",
            (workflow, sum(lengths), made),
        )

    steps.insert(rng.randint(0, len(steps)), callback)
    for step in steps:
        step()


def produce(dsn: str, count: int, seed: int) -> list[tuple[int, float]]:
    """Insert workflows, some in a transaction, some row by row, and meanwhile cancel, delete or revive a run here and there."""
    import random
    from contextlib import nullcontext

    import psycopg

    from tests.store.test_flows_concurrency import _ANY, insert_flow

    rng = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(count):
            with connection.transaction() if rng.random() < 0.5 else nullcontext():
                insert_flow(connection, rng)
            whim = rng.random()
            if whim < 0.08:
                connection.execute(f"SELECT * FROM reproq_cancel(ARRAY({_ANY}))", ("READY",))
            elif whim < 0.14:
                connection.execute(f"DELETE FROM task_runs WHERE result_id = ({_ANY}) AND status = 'READY'", ("READY",))
            elif whim < 0.2:
                connection.execute(
                    f"UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = ({_ANY}) AND status = 'WAITING'", ("WAITING",)
                )
            elif whim < 0.4:
                connection.execute(f"UPDATE task_runs SET status = 'READY' WHERE result_id = ({_ANY})", ("FAILED",))
    return []


def work(dsn: str, worker_id: str, seed: int, dies: bool) -> list[tuple[int, float]]:
    """Claim and end until nothing has been left for a while; return (run, when it was claimed) of every claim."""
    import random
    import time

    from reproq_supervisor.core.runs import Ending, Outcome
    from tests.store.actors import Keeper, Shard, ended

    rng, claims, idle = random.Random(seed), [], 0
    endings: list[Ending] = []
    shard, keeper = Shard(dsn, worker_id), Keeper(dsn)
    with ended(shard, keeper):
        while idle < 100:
            reply = shard.cycle(1.0 if dies else 60.0, endings=tuple(endings), claims=(("default", rng.randint(1, 8)),))
            endings = []
            claims += [(int(claimed.result_id), time.monotonic()) for claimed in reply.claimed]
            if dies and len(claims) > 30 and reply.claimed:
                # As after kill -9: the connection ends, and the leases stay until they are reclaimed.
                return claims
            idle = 0 if reply.claimed else idle + 1
            if not reply.claimed:
                for duty in (keeper.store.reclaim, keeper.store.wake_due, keeper.store.settle_flows, keeper.store.settle_keys):
                    keeper.run(duty())
                time.sleep(0.01)  # the pause between two polls
            for claimed in reply.claimed:
                outcome = rng.choice((*[Outcome.SUCCEED] * 12, Outcome.FAIL, Outcome.PUT_BACK))
                value = None if outcome is Outcome.PUT_BACK else b'{"kind": "app_error"}'
                endings.append(Ending(claimed.result_id, claimed.lease_no, outcome, value, 0.0, 0.001))
    return claims


_FAULTS = """
SELECT 'waits for a parent that has ended', c.result_id FROM task_runs c JOIN task_runs p ON p.result_id = c.parent_id
WHERE c.status = 'WAITING' AND p.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
UNION ALL
SELECT 'waits for nobody', w.callback_result_id FROM workflow_runs w JOIN task_runs c ON c.result_id = w.callback_result_id
WHERE c.status = 'WAITING'
UNION ALL
SELECT 'ran although its parent did not succeed', c.result_id FROM task_runs c JOIN task_runs p ON p.result_id = c.parent_id
WHERE c.status = 'SUCCESSFUL' AND p.status <> 'SUCCESSFUL'
UNION ALL
SELECT 'ran although a member did not succeed', c.result_id FROM workflow_runs w JOIN task_runs c ON c.result_id = w.callback_result_id
WHERE c.status = 'SUCCESSFUL' AND EXISTS (SELECT FROM task_runs m WHERE m.workflow_id = w.workflow_id AND m.status <> 'SUCCESSFUL')
UNION ALL
SELECT 'ran before a member', c.result_id FROM workflow_runs w JOIN task_runs c ON c.result_id = w.callback_result_id
WHERE c.status = 'SUCCESSFUL'
  AND c.started_at < (SELECT max(m.finished_at) FROM task_runs m WHERE m.workflow_id = w.workflow_id AND m.result_id <> c.result_id)
                     - interval '1 s'
UNION ALL
SELECT 'did not run although all members succeeded', c.result_id FROM workflow_runs w JOIN task_runs c ON c.result_id = w.callback_result_id
WHERE c.errors_json #>> '{-1,kind}' = 'workflow_failed' AND c.status = 'FAILED'
  AND w.expected_count = (SELECT count(*) FROM task_runs m
                          WHERE m.workflow_id = w.workflow_id AND m.result_id <> c.result_id AND m.status = 'SUCCESSFUL')
UNION ALL
SELECT 'differs from its callback', c.result_id FROM workflow_runs w JOIN task_runs c ON c.result_id = w.callback_result_id
WHERE w.status <> c.status
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workflows_end_whoever_fails_dies_or_is_deleted(database: Database) -> None:
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(produce, (database.dsn, 60, seed)) for seed in (1, 2, 3)]
    calls += [(work, (database.dsn, f"worker-{n}", n, n % 3 == 0)) for n in range(CLAIMERS)]
    claims = [claim for share in in_processes(call, calls) for claim in share]
    assert len(claims) > 300

    keeper = Keeper(database.dsn)

    def is_over() -> bool:
        for duty in (keeper.store.reclaim, keeper.store.settle_keys, keeper.store.sweep_flows, keeper.store.settle_flows):
            keeper.run(duty())
        work(database.dsn, "last", 99, dies=False)
        return database.query("SELECT count(*) FROM task_lane") == [(0,)]

    with ended(keeper):
        eventually(is_over, timeout=120, what="every run has ended")
    assert database.query(_FAULTS) == []
    assert database.query("SELECT count(*) FROM reproq_flow_ends") == [(0,)]
    assert_invariant(database)
