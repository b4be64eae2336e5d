"""Workflows among deletions, hands in the tables, locks and refusals: no cycle stops, none waits for ever, and no callback comes early."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from tests.store.actors import Keeper, Shard, assert_invariant, record
from tests.store.test_flows import chain, chord, fail_finally, flow, insert, last_kind, statuses
from tests.support.postgres import Database

REFUSE = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$"


def words(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*)::int FROM reproq_flow_ends")
    return int(count)


@contextmanager
def locked(database: Database, workflow: UUID) -> Iterator[None]:
    """Hold the lock of a workflow, as a transaction that cancels its runs does until it commits."""
    with database.connect() as other, other.transaction():
        other.execute("SELECT reproq_lock_keys(%s)", ([f"flow:{workflow}"],))
        yield


def test_a_deleted_callback_leaves_no_word_for_ever(shard: Shard, database: Database) -> None:
    _, _, callback = chord(database, 2)
    database.query("DELETE FROM task_runs WHERE result_id = %s", callback)
    for claimed in shard.claim(9):
        shard.succeed(claimed)
    assert words(database) == 0


def test_a_workflow_without_a_callback_leaves_no_word_for_ever(shard: Shard, database: Database) -> None:
    workflow = uuid4()
    insert(database, "READY", workflow)
    database.query("INSERT INTO workflow_runs (workflow_id, expected_count) VALUES (%s, 1)", workflow)
    shard.succeed(shard.claim_one())
    assert words(database) == 0


def test_a_child_that_somebody_failed_by_hand_is_not_run(shard: Shard, database: Database) -> None:
    runs = chain(database, 2)
    database.query("UPDATE task_runs SET status = 'FAILED' WHERE result_id = %s", runs[1])
    shard.succeed(shard.claim_one())
    assert statuses(database, runs) == ["SUCCESSFUL", "FAILED"]


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_table_locked_against_writing_stops_no_cycle(shard: Shard, database: Database, ends_well: bool) -> None:
    runs = chain(database, 3)
    claimed = shard.claim_one()
    outcome = "succeed" if ends_well else "fail_finally"
    database.query("SELECT * FROM reproq_end('worker-1', %s, %s, %s, '{1}')", [claimed.result_id], [claimed.lease_no], [outcome])
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE task_runs IN SHARE MODE")
        assert shard.claim(9) == ()
        assert statuses(database, runs[1:]) == ["WAITING"] * 2
        assert database.query("SELECT count(*) FROM task_lane WHERE state <> 'waiting'") == [(0,)]
    assert [c.result_id for c in shard.claim(9)] == (runs[1:2] if ends_well else [])
    assert record(database, runs[2])["status"] == ("WAITING" if ends_well else "FAILED")


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_workflow_that_is_refused_stops_no_other(shard: Shard, keeper: Keeper, database: Database, ends_well: bool) -> None:
    bad, good = chain(database, 2), chain(database, 2)
    database.query(REFUSE)
    database.query(
        f"CREATE TRIGGER zz_refuse BEFORE UPDATE ON task_runs FOR EACH ROW WHEN (OLD.result_id = {bad[1]}) EXECUTE FUNCTION refuse()"
    )
    first, second = shard.claim(9)
    if ends_well:
        assert shard.succeed(first).ended == {bad[0]: "SUCCESSFUL"}
    else:
        fail_finally(shard, first)
    shard.succeed(second)
    assert statuses(database, good) == ["SUCCESSFUL", "READY"]
    assert record(database, bad[1])["status"] == "WAITING"
    # What refused it is gone: the sweep finds it.
    database.query("DROP TRIGGER zz_refuse ON task_runs")
    keeper.run(keeper.store.sweep_flows())
    keeper.run(keeper.store.settle_flows())
    assert record(database, bad[1])["status"] == ("READY" if ends_well else "FAILED")


def test_a_deleted_member_fails_its_workflow(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 2)
    database.query("DELETE FROM task_runs WHERE result_id = %s", members[0])
    shard.succeed(shard.claim_one())
    assert (flow(database, workflow)[0], record(database, callback)["status"]) == ("FAILED", "FAILED")
    assert last_kind(database, callback) == "workflow_failed"


def test_a_deleted_parent_fails_its_descendants(shard: Shard, database: Database) -> None:
    runs = chain(database, 4)
    database.query("DELETE FROM task_runs WHERE result_id = %s", runs[0])
    assert shard.claim(9) == ()
    assert statuses(database, runs[1:]) == ["FAILED"] * 3
    assert {last_kind(database, run) for run in runs[1:]} == {"parent_failed"}
    assert_invariant(database)


def test_a_deleted_workflow_leaves_nothing(shard: Shard, database: Database) -> None:
    workflow, _, _ = chord(database, 3)
    database.query("DELETE FROM task_runs WHERE workflow_id = %s", workflow)
    assert shard.claim(9) == ()
    assert words(database) == 0
    assert_invariant(database)


def test_a_workflow_that_has_ended_stays_so_when_its_member_is_settled_again(shard: Shard, database: Database) -> None:
    workflow, members, _ = chord(database, 1)
    shard.succeed(shard.claim_one())
    shard.succeed(shard.claim_one())
    database.query("SELECT reproq_note_end(%s)", members[0])
    assert shard.claim(9) == ()
    assert flow(database, workflow)[0] == "SUCCESSFUL"


def test_a_member_that_was_retried_before_its_failure_was_settled_counts_as_it_ended(shard: Shard, database: Database) -> None:
    workflow, _, callback = chord(database, 1)
    claimed = shard.claim_one()
    with locked(database, workflow):
        fail_finally(shard, claimed)
        database.query("UPDATE task_runs SET status = 'READY' WHERE result_id = %s", claimed.result_id)
        shard.succeed(shard.claim_one())
    assert shard.claim_one().result_id == callback
    assert flow(database, workflow)[0] == "WAITING_CALLBACK"


def test_a_workflow_that_somebody_keeps_locked_stands_before_no_other(shard: Shard, database: Database) -> None:
    workflow, _, callback = chord(database, 120)
    runs = chain(database, 2)
    with locked(database, workflow):
        for claimed in shard.claim(200):
            shard.succeed(claimed)
        assert statuses(database, runs) == ["SUCCESSFUL", "READY"]
        assert words(database) == 120
    assert {c.result_id for c in shard.claim(9)} == {runs[1], callback}


def test_a_member_that_succeeded_may_be_deleted(shard: Shard, database: Database) -> None:
    """The callback waits for those that are left, whether the end of the deleted one was settled or not."""
    workflow, members, callback = chord(database, 3)
    first, second, third = shard.claim(9)
    shard.succeed(first)
    database.query("DELETE FROM task_runs WHERE result_id = %s", members[0])
    with locked(database, workflow):
        shard.succeed(second)
        database.query("DELETE FROM task_runs WHERE result_id = %s", members[1])
    assert shard.claim(9) == ()
    shard.succeed(third)
    assert shard.claim_one().result_id == callback
    assert flow(database, workflow)[:2] == ("WAITING_CALLBACK", 1)
    assert words(database) == 0


def test_all_members_that_succeeded_may_be_deleted_before_they_were_settled(shard: Shard, database: Database) -> None:
    workflow, _, callback = chord(database, 2)
    with locked(database, workflow):
        for claimed in shard.claim(9):
            shard.succeed(claimed)
        database.query("DELETE FROM task_runs WHERE status = 'SUCCESSFUL'")
    assert shard.claim_one().result_id == callback


def test_members_of_a_workflow_that_has_ended_are_deleted_without_a_word(shard: Shard, database: Database) -> None:
    workflow, members, _ = chord(database, 2)
    for _ in range(2):
        for claimed in shard.claim(9):
            shard.succeed(claimed)
    assert flow(database, workflow)[0] == "SUCCESSFUL"
    database.query("DELETE FROM task_runs WHERE result_id = ANY (%s)", members)
    assert words(database) == 0


@pytest.mark.parametrize(("ends_well", "follows"), [(True, "READY"), (False, "FAILED")])
def test_a_parent_that_is_deleted_before_its_end_was_settled_is_followed_all_the_same(
    shard: Shard, database: Database, ends_well: bool, follows: str
) -> None:
    runs = chain(database, 2)
    claimed = shard.claim_one()
    with database.connect() as other, other.transaction():
        other.execute("SELECT reproq_lock_keys(ARRAY(SELECT 'flow:' || workflow_id FROM task_runs))")
        if ends_well:
            shard.succeed(claimed)
        else:
            fail_finally(shard, claimed)
        database.query("DELETE FROM task_runs WHERE result_id = %s", runs[0])
    shard.cycle(claims=(("nothing", 1),))
    assert record(database, runs[1])["status"] == follows


def test_a_callback_that_lacks_members_for_ever_fails(shard: Shard, database: Database) -> None:
    """As when a member was deleted, or its producer died, before the row of the workflow was there."""
    workflow = uuid4()
    callback = insert(database, "WAITING", workflow, None, 2)
    insert(database, "READY", workflow)
    shard.succeed(shard.claim_one())
    database.query("INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, 2, %s)", workflow, callback)
    database.query("SELECT reproq_sweep_flows(0, 100)")
    assert shard.claim(9) == ()
    assert record(database, callback)["status"] == "WAITING", "the second one may still come"
    database.query("SELECT reproq_sweep_flows(0, 100, 0)")
    assert shard.claim(9) == ()
    assert (record(database, callback)["status"], flow(database, workflow)[0]) == ("FAILED", "FAILED")
    assert words(database) == 0


def test_a_callback_whose_workflow_has_no_row_for_ever_fails(shard: Shard, database: Database) -> None:
    _, _, callback = chord(database, 1)
    database.query("DELETE FROM workflow_runs")
    database.query("SELECT reproq_sweep_flows(0, 100, 0)")
    shard.succeed(shard.claim_one())
    assert record(database, callback)["status"] == "WAITING", "a member ran"
    database.query("SELECT reproq_sweep_flows(0, 100)")
    assert shard.claim(9) == ()
    assert record(database, callback)["status"] == "WAITING", "it may come"
    database.query("SELECT reproq_sweep_flows(0, 100, 0)")
    assert shard.claim(9) == ()
    assert record(database, callback)["status"] == "FAILED"


def test_failure_reaches_two_thousand_descendants_at_once(shard: Shard, database: Database) -> None:
    length = 2000
    database.query(
        """INSERT INTO task_runs (result_id, spec_json, spec_hash, task_path, status, workflow_id, parent_id, wait_count, dedupe_key)
           SELECT 100000 + n, '{"task_path": "app.task"}', n::text, 'app.task', CASE n WHEN 0 THEN 'READY' ELSE 'WAITING' END, %s,
                  CASE WHEN n > 0 THEN 100000 + n - 1 END, CASE WHEN n > 0 THEN 1 ELSE 0 END, NULL
           FROM generate_series(0, %s) n""",
        uuid4(),
        length,
    )
    fail_finally(shard, shard.claim_one())
    assert database.query("SELECT status, count(*) FROM task_runs GROUP BY status") == [("FAILED", length + 1)]
    assert_invariant(database)
