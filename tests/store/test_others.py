"""What others do to a record (admin pages, scripts, an older worker) goes through the lane, becomes a wish or is refused; nothing waits."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


@pytest.fixture
def locked(put: Put, database: Database) -> Iterator[RunId]:
    """A waiting run whose lane row is locked at this moment, as by a claim that has not committed."""
    (run,) = put()
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT FROM task_lane WHERE result_id = %s FOR UPDATE", (run,))
        yield run


def change(database: Database, run: int, assignments: str, condition: str = "true") -> int:
    """Update one record as others do; return how many rows it changed. Waiting for a lock is an error."""
    with database.connect() as connection:
        connection.execute("SET lock_timeout = '2s'")
        return connection.execute(f"UPDATE task_runs SET {assignments} WHERE result_id = %s AND {condition}", (run,)).rowcount


def wishes(database: Database) -> list[int]:
    return [run for (run,) in database.query("SELECT DISTINCT result_id FROM reproq_cancel_requests")]


def test_a_cancel_of_a_waiting_run_is_at_once(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(dedupe=True)
    assert change(database, run, "status = 'CANCELLED', finished_at = now()", "status = 'READY'") == 1
    assert lane(database, run) is None
    assert record(database, run)["dedupe_key"] is None
    assert shard.claim(5) == ()


def test_a_cancel_request_for_a_waiting_run_is_at_once(put: Put, database: Database) -> None:
    (run,) = put(delay_s=60)
    assert change(database, run, "cancel_requested = true") == 1
    assert (record(database, run)["status"], record(database, run)["finished_at"] is None) == ("CANCELLED", False)


@pytest.mark.parametrize("wish", ["cancel_requested = true", "status = 'CANCELLED', finished_at = now()"])
@pytest.mark.parametrize("is_shown", [False, True])
def test_a_cancel_of_a_held_run_becomes_a_wish(put: Put, shard: Shard, database: Database, wish: str, is_shown: bool) -> None:
    put()
    claimed = shard.claim_one()
    if is_shown:
        shard.show(claimed)
    before = record(database, claimed.result_id)
    assert change(database, claimed.result_id, wish) == 1
    after = record(database, claimed.result_id)
    assert {name for name in after if after[name] != before[name]} == {"cancel_requested"}
    assert shard.cycle(watch=(claimed.result_id,)).cancel == {claimed.result_id}
    assert shard.succeed(claimed).ended == {claimed.result_id: RunStatus.SUCCESSFUL}


def test_a_cancel_while_a_claim_is_under_way_becomes_a_wish(locked: RunId, database: Database) -> None:
    assert change(database, locked, "status = 'CANCELLED'", "status = 'READY'") == 1
    assert (record(database, locked)["status"], record(database, locked)["cancel_requested"]) == ("READY", True)
    assert wishes(database) == [locked]


@pytest.mark.parametrize(
    "status",
    [
        "status = 'FAILED'",
        "status = 'SUCCESSFUL'",
        "status = 'READY', attempts = 0",
        "status = 'WAITING'",
        "status = 'RUNNING', leased_by = 'x'",
    ],
)
def test_nobody_else_changes_the_state_of_a_held_run(put: Put, shard: Shard, database: Database, status: str) -> None:
    put()
    claimed = shard.claim_one()
    shard.show(claimed)
    changed = change(database, claimed.result_id, status)
    assert record(database, claimed.result_id)["status"] == "RUNNING"
    assert record(database, claimed.result_id)["leased_by"] == "worker-1"
    assert changed == 0 or "RUNNING" in status
    assert shard.succeed(claimed).ended


def test_a_page_that_saves_every_column_does_not_undo_what_the_holder_wrote(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    shard.show(claimed)
    before = record(database, claimed.result_id)
    assert (
        change(
            database, claimed.result_id, "leased_by = NULL, leased_until = NULL, attempts = 0, priority = 3, metadata_json = '{\"a\": 1}'"
        )
        == 1
    )
    after = record(database, claimed.result_id)
    assert {name for name in after if after[name] != before[name]} == {"metadata_json"}


def test_the_keys_of_a_held_run_stay_those_that_it_holds(put: Put, shard: Shard, database: Database) -> None:
    """Its lane row counts for the keys that it was admitted by: another one in the record would hold for nobody."""
    put(lock_key="mine", concurrency_key="ours", concurrency_limit=2)
    claimed = shard.claim_one()
    change(database, claimed.result_id, "lock_key = 'other', concurrency_key = NULL, concurrency_limit = 0")
    shard.fail(claimed, delay_s=0.0)
    after, waiting = record(database, claimed.result_id), lane(database, claimed.result_id)
    assert waiting is not None
    assert (after["lock_key"], after["concurrency_key"], after["concurrency_limit"]) == ("mine", "ours", 2)
    assert (waiting["lock_name"], waiting["limit_name"], waiting["limit_size"]) == ("lock:mine", "limit:ours", 2)
    assert change(database, claimed.result_id, "lock_key = 'other'") == 1
    waiting = lane(database, claimed.result_id)
    assert waiting is not None
    assert waiting["lock_name"] == "lock:other", "one that waits takes it over"


def test_metadata_of_any_run_can_be_written_by_anybody(put: Put, shard: Shard, database: Database, locked: RunId) -> None:
    assert change(database, locked, "metadata_json = '{}'") == 1


def test_an_older_worker_cannot_claim_what_is_held_or_being_claimed(put: Put, shard: Shard, database: Database, locked: RunId) -> None:
    older_claim = "status = 'RUNNING', attempts = attempts + 1, leased_by = 'older', leased_until = now() + interval '5 min'"
    assert change(database, locked, older_claim, "status = 'READY'") == 0
    put()
    claimed = shard.claim_one()
    assert change(database, claimed.result_id, older_claim, "status = 'READY'") == 0


def test_an_older_worker_can_claim_and_complete_what_is_ready(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    assert (
        change(database, run, "status = 'RUNNING', attempts = attempts + 1, leased_by = 'older', leased_until = now() + interval '5 min'")
        == 1
    )
    assert (lane(database, run)["state"], lane(database, run)["leased_by"], lane(database, run)["lease_no"]) == ("running", "older", 0)
    assert shard.claim(5) == ()
    assert change(database, run, "leased_until = now() + interval '9 min'", "leased_by = 'older' AND status = 'RUNNING'") == 1
    assert lane(database, run)["leased_until"] == record(database, run)["leased_until"]
    done = "status = 'SUCCESSFUL', finished_at = now(), return_json = '1', leased_by = NULL, leased_until = NULL"
    assert change(database, run, done, "leased_by = 'older' AND status = 'RUNNING'") == 1


def test_an_older_worker_cannot_claim_what_is_parked(put: Put, database: Database) -> None:
    (run,) = put(delay_s=60)
    assert change(database, run, "status = 'RUNNING', leased_by = 'older'", "status = 'READY'") == 0


def test_a_failed_run_that_is_made_ready_again_runs_again(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(max_attempts=1)
    shard.fail(shard.claim_one())
    assert (
        change(database, run, "status = 'READY', attempts = 0, run_after = now(), finished_at = NULL, failed_at = NULL, last_error = NULL")
        == 1
    )
    claimed = shard.claim_one()
    assert (claimed.result_id, claimed.attempt) == (run, 1)
    shard.succeed(claimed)


def test_an_ended_run_cannot_be_made_running(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    shard.succeed(claimed)
    assert change(database, claimed.result_id, "status = 'RUNNING', leased_by = 'x'") == 0


def test_a_failed_run_can_be_discarded(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(max_attempts=1)
    shard.fail(shard.claim_one())
    assert change(database, run, "status = 'CANCELLED', last_error = 'Discarded in admin'") == 1
    assert record(database, run)["status"] == "CANCELLED"


def test_a_waiting_run_that_is_released_becomes_ready(database: Database, shard: Shard) -> None:
    ((run,),) = database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, wait_count)
           VALUES ('{}', 'a', 'a.b', 'WAITING', 1) RETURNING result_id"""
    )
    assert change(database, run, "status = 'READY', wait_count = 0") == 1
    assert shard.claim_one().result_id == run


def test_what_is_moved_and_put_off_is_moved_and_put_off(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    assert change(database, run, "queue_name = 'other', priority = 9") == 1
    assert shard.claim(5) == ()
    assert change(database, run, "run_after = now() + interval '1 h'") == 1
    assert shard.claim(5, "other") == ()
    assert change(database, run, "run_after = NULL") == 1
    assert shard.claim_one("other").priority == 9


def test_many_records_changed_at_once_each_get_what_befits_them(put: Put, shard: Shard, database: Database) -> None:
    put(6)
    held = {claimed.result_id for claimed in shard.claim(3)}
    with database.connect() as connection:
        assert connection.execute("UPDATE task_runs SET status = 'CANCELLED' WHERE status = 'READY'").rowcount == 6
    assert set(wishes(database)) == held
    assert database.query("SELECT status, count(*) FROM task_runs GROUP BY 1 ORDER BY 1") == [("CANCELLED", 3), ("READY", 3)]


def test_deleting_a_waiting_run_deletes_its_lane_row(put: Put, shard: Shard, database: Database) -> None:
    put(3)
    assert len(database.query("DELETE FROM task_runs RETURNING 1")) == 3
    assert database.query("SELECT 1 FROM task_lane") == []


def test_a_held_run_is_not_deleted_and_the_others_are(put: Put, shard: Shard, database: Database) -> None:
    put(3)
    claimed = shard.claim_one()
    assert len(database.query("DELETE FROM task_runs WHERE status <> 'RUNNING' RETURNING 1")) == 2
    assert shard.succeed(claimed).ended
    assert len(database.query("DELETE FROM task_runs RETURNING 1")) == 1


def test_a_run_that_is_being_claimed_is_not_deleted(locked: RunId, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("SET lock_timeout = '2s'")
        assert connection.execute("DELETE FROM task_runs").rowcount == 0


def test_deleting_a_parent_leaves_its_children(put: Put, database: Database) -> None:
    (parent,) = put()
    ((child,),) = database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, parent_id)
           VALUES ('{}', 'a', 'a.b', 'WAITING', %s) RETURNING result_id""",
        parent,
    )
    database.query("DELETE FROM task_runs WHERE result_id = %s", parent)
    assert record(database, child)["parent_id"] is None


def test_truncate_is_refused_while_something_runs(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    claimed = shard.claim_one()
    with pytest.raises(psycopg.errors.RaiseException, match="expected no running task"):
        database.query("TRUNCATE task_runs")
    shard.succeed(claimed)
    database.query("TRUNCATE task_runs")
    assert database.query("SELECT 1 FROM task_lane") == []


def test_others_need_rights_on_the_record_only(put: Put, database: Database) -> None:
    cancelled, deleted = put(2)
    role = f"admin_{database.name}"
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE {role}")
        try:
            connection.execute(f"GRANT SELECT, UPDATE, DELETE ON task_runs TO {role}")
            connection.execute(f"SET ROLE {role}")
            connection.execute("UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = %s", (cancelled,))
            connection.execute("DELETE FROM task_runs WHERE result_id = %s", (deleted,))
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    assert database.query("SELECT 1 FROM task_lane") == []


@pytest.mark.parametrize("is_held", [False, True])
def test_a_page_that_saves_an_old_rev_too_is_known_as_foreign(put: Put, shard: Shard, database: Database, is_held: bool) -> None:
    (run,) = put()
    claimed = shard.claim_one()
    shard.show(claimed)
    if not is_held:
        shard.succeed(claimed)
    assert record(database, run)["rev"] > 0
    assert change(database, run, "status = 'READY', rev = 0") == (0 if is_held else 1)
    lane_row = lane(database, run)
    assert lane_row is not None
    assert lane_row["state"] == ("running" if is_held else "ready")
    assert record(database, run)["status"] == ("RUNNING" if is_held else "READY")


def test_a_key_that_an_older_worker_holds_is_full(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    mine, older = put(2, lock_key="k")
    assert change(database, mine, "status = 'RUNNING', leased_by = 'older', leased_until = now() + interval '1 h'", "status = 'READY'") == 1
    assert change(database, older, "status = 'RUNNING', leased_by = 'older'", "status = 'READY'") == 0
    assert shard.claim(5) == ()
    assert change(database, mine, "status = 'SUCCESSFUL', leased_by = NULL, leased_until = NULL", "leased_by = 'older'") == 1
    assert shard.claim_one().result_id == older


def test_an_older_worker_cannot_claim_what_finds_its_key_full(put: Put, shard: Shard, database: Database) -> None:
    put(lock_key="k")
    held = shard.claim_one()
    (run,) = put(lock_key="k")
    assert change(database, run, "status = 'RUNNING', leased_by = 'older'", "status = 'READY'") == 0
    shard.succeed(held)
    assert shard.claim_one().result_id == run


def test_a_run_brought_back_to_life_is_the_one_that_later_duplicates_find(database: Database) -> None:
    with database.connect() as connection:
        (run,) = enqueue(connection, [NewRun("app.task", dedupe=True)])
        database.query("UPDATE task_runs SET status = 'FAILED' WHERE result_id = %s", run)
        assert change(database, run, "status = 'READY'") == 1
        assert enqueue(connection, [NewRun("app.task", dedupe=True)]) == [run]


def test_of_two_runs_with_one_hash_brought_back_to_life_one_has_the_key(database: Database) -> None:
    with database.connect() as connection:
        runs = enqueue(connection, [NewRun("app.task"), NewRun("app.task")])
    database.query("UPDATE task_runs SET status = 'FAILED'")
    database.query("UPDATE task_runs SET was_deduped = NULL")  # as runs are that ended under an older version
    database.query("UPDATE task_runs SET status = 'READY'")
    rows = database.query("SELECT status, dedupe_key IS NULL FROM task_runs ORDER BY result_id")
    assert rows == [("READY", False), ("READY", True)]
    assert_invariant(database)
    assert len(runs) == len(database.query("SELECT 1 FROM task_lane"))
