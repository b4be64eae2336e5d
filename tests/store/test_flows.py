"""Chains and chords, as the older Django package inserts them: plain rows with parent_id, wait_count and workflow_id."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from reproq_supervisor.core.runs import Outcome, RunId
from tests.store.actors import Keeper, Shard, assert_invariant, record
from tests.support.postgres import Database

INSERT = """
INSERT INTO task_runs (spec_json, spec_hash, task_path, status, workflow_id, parent_id, wait_count, max_attempts, queue_name, dedupe_key)
VALUES ('{"task_path": "app.task"}', %s, 'app.task', %s, %s, %s, %s, 1, %s, NULL) RETURNING result_id
"""


def insert(
    database: Database, status: str, workflow: UUID | None, parent: RunId | None = None, waits: int = 0, queue: str = "default"
) -> RunId:
    ((run,),) = database.query(INSERT, uuid4().hex, status, workflow, parent, waits, queue)
    return RunId(run)


def chain(database: Database, length: int) -> list[RunId]:
    workflow, runs = uuid4(), []
    for at in range(length):
        runs.append(insert(database, "WAITING" if at else "READY", workflow, runs[-1] if at else None, 1 if at else 0))
    return runs


def chord(database: Database, members: int) -> tuple[UUID, list[RunId], RunId]:
    workflow = uuid4()
    runs = [insert(database, "READY", workflow) for _ in range(members)]
    callback = insert(database, "WAITING", workflow, None, members)
    database.query(
        "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)", workflow, members, callback
    )
    return workflow, runs, callback


def statuses(database: Database, runs: list[RunId]) -> list[str]:
    return [record(database, run)["status"] for run in runs]


def flow(database: Database, workflow: UUID) -> tuple[str, int, int]:
    ((*row,),) = database.query("SELECT status, success_count, failure_count FROM workflow_runs WHERE workflow_id = %s", workflow)
    return tuple(row)  # type: ignore[return-value]


def last_kind(database: Database, run: RunId) -> Any:
    return record(database, run)["errors_json"][-1]["kind"]


def fail_finally(shard: Shard, claimed: Any) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, b'{"kind": "app_error", "message": "no"}')


def test_a_chain_runs_in_order(shard: Shard, database: Database) -> None:
    runs = chain(database, 4)
    done = []
    for _ in runs:
        (claimed,) = shard.claim(9)
        done.append(claimed.result_id)
        shard.succeed(claimed)
    assert done == runs
    assert statuses(database, runs) == ["SUCCESSFUL"] * 4
    assert_invariant(database)


def test_a_child_starts_with_the_commit_that_ends_its_parent(shard: Shard, database: Database) -> None:
    first, second, _ = chain(database, 3)
    shard.succeed(shard.claim_one())
    assert record(database, second)["status"] == "READY"
    assert record(database, first)["status"] == "SUCCESSFUL"


def test_a_retry_does_not_wake_the_child(shard: Shard, database: Database) -> None:
    runs = chain(database, 2)
    database.query("UPDATE task_runs SET max_attempts = 3")
    shard.fail(shard.claim_one(), delay_s=0.0)
    assert statuses(database, runs) == ["READY", "WAITING"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "expired", "cancelled by an admin page"])
def test_an_end_without_success_reaches_every_descendant_at_once(shard: Shard, database: Database, how: str) -> None:
    runs = chain(database, 5)
    match how:
        case "failed":
            fail_finally(shard, shard.claim_one())
        case "cancelled":
            database.query(f"SELECT * FROM reproq_cancel('{{{runs[0]}}}')")
        case "expired":
            database.query("UPDATE task_runs SET expires_at = now() - interval '1 s' WHERE result_id = %s", runs[0])
            assert shard.claim(9) == ()
        case _:
            database.query("UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = %s", runs[0])
            assert shard.claim(9) == ()
    assert statuses(database, runs[1:]) == ["FAILED"] * 4
    assert {last_kind(database, run) for run in runs[1:]} == {"parent_failed"}
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]
    assert database.query("SELECT count(*) FROM reproq_flow_ends") == [(0,)]


def test_a_retried_parent_repairs_its_chain(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    fail_finally(shard, shard.claim_one())
    database.query("UPDATE task_runs SET status = 'READY' WHERE result_id = %s", runs[0])
    for run in runs:
        claimed = shard.claim_one()
        assert claimed.result_id == run
        shard.succeed(claimed)
    assert statuses(database, runs) == ["SUCCESSFUL"] * 3


def test_a_chord_calls_back_once_all_members_have_succeeded(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 3)
    claimed = shard.claim(9)
    assert [c.result_id for c in claimed] == members
    for each in claimed[:2]:
        shard.succeed(each)
    assert record(database, callback)["status"] == "WAITING"
    shard.succeed(claimed[2])
    assert flow(database, workflow) == ("WAITING_CALLBACK", 3, 0)
    last = shard.claim_one()
    assert last.result_id == callback
    shard.succeed(last)
    assert flow(database, workflow) == ("SUCCESSFUL", 3, 0)
    assert_invariant(database)


def test_members_that_end_at_once_in_two_transactions_call_back_once(shard_of: Callable[..., Shard], database: Database) -> None:
    """Neither sees the end of the other; whoever commits second must."""
    workflow, _, callback = chord(database, 2)
    shard = shard_of("w")
    first, second = shard.claim(9)
    ending = "SELECT * FROM reproq_end('w', %s, %s, '{succeed}', '{1}')"
    with database.connect() as a, database.connect() as b:
        with a.transaction():
            a.execute(ending, ([first.result_id], [first.lease_no]))
            a.execute("SELECT reproq_settle_flows(100)")
            with b.transaction():
                b.execute(ending, ([second.result_id], [second.lease_no]))
                b.execute("SELECT reproq_settle_flows(100)")
        assert record(database, callback)["status"] == "WAITING"
    assert [c.result_id for c in shard.claim(9) or shard.claim(9)] == [callback]
    assert flow(database, workflow)[0] == "WAITING_CALLBACK"


def test_a_failed_member_fails_the_workflow_and_its_callback(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 3)
    claimed = shard.claim(9)
    fail_finally(shard, claimed[0])
    assert flow(database, workflow)[0] == "FAILED"
    row = record(database, callback)
    assert (row["status"], row["last_error"]) == ("FAILED", "Workflow failed due to task failure")
    assert row["errors_json"][-1]["kind"] == "workflow_failed"
    assert row["errors_json"][-1]["failed_result_id"] == members[0]
    for each in claimed[1:]:
        shard.succeed(each)
    assert record(database, callback)["status"] == "FAILED"


def test_a_retried_member_repairs_its_workflow(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 2)
    bad, good = shard.claim(9)
    fail_finally(shard, bad)
    shard.succeed(good)
    database.query("UPDATE task_runs SET status = 'READY' WHERE result_id = %s", members[0])
    shard.succeed(shard.claim_one())
    assert flow(database, workflow) == ("WAITING_CALLBACK", 2, 0)
    last = shard.claim_one()
    assert last.result_id == callback
    shard.succeed(last)
    assert flow(database, workflow)[0] == "SUCCESSFUL"


def test_a_callback_waits_for_members_that_are_still_to_be_inserted(shard: Shard, database: Database) -> None:
    workflow = uuid4()
    insert(database, "READY", workflow)
    callback = insert(database, "WAITING", workflow, None, 2)
    database.query("INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, 2, %s)", workflow, callback)
    shard.succeed(shard.claim_one())
    assert record(database, callback)["status"] == "WAITING"
    insert(database, "READY", workflow)
    shard.succeed(shard.claim_one())
    assert shard.claim_one().result_id == callback


def test_the_sweep_finds_a_child_whose_parent_had_ended_before_it_came(shard: Shard, keeper: Keeper, database: Database) -> None:
    parent = insert(database, "READY", uuid4())
    shard.succeed(shard.claim_one())
    child = insert(database, "WAITING", None, parent, 1)
    keeper.run(keeper.store.sweep_flows())
    assert keeper.run(keeper.store.settle_flows()) is False
    assert shard.claim_one().result_id == child


def test_the_sweep_finds_a_workflow_whose_row_came_after_its_members_had_ended(shard: Shard, keeper: Keeper, database: Database) -> None:
    workflow = uuid4()
    insert(database, "READY", workflow)
    callback = insert(database, "WAITING", workflow, None, 1)
    shard.succeed(shard.claim_one())
    database.query("INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, 1, %s)", workflow, callback)
    keeper.run(keeper.store.sweep_flows())
    keeper.run(keeper.store.settle_flows())
    assert shard.claim_one().result_id == callback


def test_a_row_of_the_workflow_that_somebody_has_locked_stops_nobody(shard: Shard, database: Database) -> None:
    workflow, _, callback = chord(database, 1)
    claimed = shard.claim_one()
    with database.connect() as other, other.transaction():
        other.execute("SELECT 1 FROM workflow_runs WHERE workflow_id = %s FOR UPDATE", (workflow,))
        assert shard.succeed(claimed).ended == {claimed.result_id: "SUCCESSFUL"}
        assert record(database, callback)["status"] == "WAITING"
    shard.claim(9)  # the cycle settles what waited for the lock, before its claim or after
    assert record(database, callback)["status"] in ("READY", "RUNNING")


@pytest.mark.slow
def test_a_chord_of_ten_thousand_members_calls_back_once(shard: Shard, database: Database) -> None:
    workflow, members = uuid4(), 10_000
    database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, workflow_id, dedupe_key)
           SELECT '{"task_path": "app.task"}', n::text, 'app.task', %s, NULL FROM generate_series(1, %s) n""",
        workflow,
        members,
    )
    callback = insert(database, "WAITING", workflow, None, members)
    database.query(
        "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)", workflow, members, callback
    )
    from reproq_supervisor.core.runs import Ending

    claimed = shard.claim(200)
    order = []
    while claimed:
        order += [c.result_id for c in claimed]
        endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"1", None, 0.001) for c in claimed)
        claimed = shard.cycle(endings=endings, claims=(("default", 200),)).claimed
    assert len(order) == members + 1
    assert order[-1] == callback
    assert flow(database, workflow) == ("SUCCESSFUL", members, 0)
