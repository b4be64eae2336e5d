"""An installation that has run for long: ids and lease numbers beyond what four bytes hold."""

from collections.abc import Callable

import pytest

from reproq_supervisor.client import Client, NewRun, chain, chord
from reproq_supervisor.core.runs import Outcome, RunId, RunStatus
from reproq_supervisor.store.commands import CancelOutcome
from reproq_supervisor.store.triage import RetryOutcome
from tests.store.actors import Keeper, Shard, assert_invariant, every_look_is_dear
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
LARGE = 3 * 10**9


@pytest.fixture(autouse=True)
def old_installation(database: Database) -> None:
    for name in ("reproq_lease_seq", *(pg_sequence(database, table) for table in ("task_runs", "reproq_key_arrivals", "reproq_flow_ends"))):
        database.query(f"ALTER SEQUENCE {name} RESTART WITH {LARGE}")
    every_look_is_dear(database)


def pg_sequence(database: Database, table: str) -> str:
    ((name,),) = database.query(
        "SELECT pg_get_serial_sequence(%s, a.attname) FROM pg_attribute a"
        " WHERE a.attrelid = %s::regclass AND a.attname IN ('id', 'result_id') AND pg_get_serial_sequence(%s, a.attname) IS NOT NULL",
        table,
        table,
        table,
    )
    return str(name)


def test_a_run_with_keys_lives_through_every_way_to_end_an_attempt(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    first, second = put(2, lock_key="a", concurrency_key="b", concurrency_limit=1, max_attempts=9)
    assert first >= LARGE
    for end in (shard.release, lambda claimed: shard.fail(claimed, delay_s=0.0), lambda claimed: shard.end_run(claimed, Outcome.PUT_BACK)):
        claimed = shard.claim_one()
        assert claimed.lease_no >= LARGE
        assert shard.held(claimed) == {(claimed.result_id, claimed.lease_no)}
        assert shard.show(claimed).lost == shard.renew(claimed).lost == frozenset()
        end(claimed)
    claimed = shard.claim_one(lease_s=0)
    assert keeper.run(keeper.store.reclaim()) == 1
    assert shard.renew(claimed).lost == {claimed.result_id}
    for _ in range(2):
        shard.succeed(shard.claim_one())
    assert database.query("SELECT array_agg(result_id ORDER BY result_id) FROM task_runs WHERE status = 'SUCCESSFUL'") == [
        ([first, second],)
    ]
    assert_invariant(database)


def test_workflows_and_what_operators_do(shard: Shard, keeper: Keeper, database: Database) -> None:
    with Client(database.dsn) as client:
        parent, child = client.begin(chain(NewRun("app.task", max_attempts=1), NewRun("app.task")))
        shard.fail(shard.claim_one())
        shard.cycle()
        assert client.result(child).status is RunStatus.FAILED
        assert client.retry(parent).outcome is RetryOutcome.RETRIED
        for _ in range(2):
            shard.succeed(shard.claim_one())
            shard.cycle()
        assert client.result(child).status is RunStatus.SUCCESSFUL
        members, callback = client.begin(chord(NewRun("app.task"), NewRun("app.task"), callback=NewRun("app.task")))
        assert client.cancel(members[0]) is CancelOutcome.CANCELLED
        assert client.result(callback).status is RunStatus.FAILED
    keeper.run(keeper.store.sweep_flows())
    assert keeper.run(keeper.store.repair()).made == 0
    database.query("UPDATE task_runs SET finished_at = now() - interval '9 days' WHERE status = 'SUCCESSFUL'")
    pruned = keeper.run(keeper.store.prune({RunStatus.SUCCESSFUL: 86400.0}, 0, early=False))
    assert {gone.result_id for gone in pruned.gone} == {parent, child}
    assert_invariant(database)
