"""Tasks that are enqueued anew, and leases that are taken back by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import Outcome, RunId
from reproq_supervisor.store.commands import cancel
from reproq_supervisor.store.reclaiming import ReclaimAction, expired_leases, reclaim
from reproq_supervisor.store.triage import newest_by_hash, replay
from tests.store.actors import Shard, assert_invariant, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def replayed(database: Database, *runs: RunId) -> list[tuple[str, RunId | None]]:
    with database.connect() as connection:
        return [(str(each.outcome), each.other) for each in replay(connection, runs)]


def reclaimed(database: Database, action: str = "requeue", older_s: float = 0) -> dict[RunId, str]:
    with database.connect() as connection:
        leases = expired_leases(connection, older_s, None)
        return {run: str(outcome) for run, outcome in reclaim(connection, leases, older_s, ReclaimAction(action)).items()}


def test_a_replayed_task_is_a_new_one_with_the_old_ones_content(put: Put, shard: Shard, database: Database) -> None:
    (old,) = put(
        priority=7, lock_key="till", concurrency_key="bank", concurrency_limit=2, max_attempts=5, timeout_seconds=60, expires_in_s=3600
    )
    shard.succeed(shard.claim_one())
    ((outcome, new),) = replayed(database, old)
    assert (outcome, new) == ("enqueued", old + 1)
    before, after = record(database, old), record(database, RunId(old + 1))
    same = (
        "queue_name",
        "priority",
        "spec_json",
        "spec_hash",
        "task_path",
        "max_attempts",
        "timeout_seconds",
        "lock_key",
        "concurrency_key",
    )
    assert [after[name] for name in same] == [before[name] for name in same]
    assert (after["status"], after["expires_at"], after["run_after"], after["workflow_id"], after["attempts"]) == (
        "READY",
        None,
        None,
        None,
        0,
    )
    assert shard.claim_one().result_id == new


def test_a_task_that_was_never_to_be_one_is_replayed_as_often_as_wanted(put: Put, database: Database) -> None:
    (run,) = put()
    assert replayed(database, run, run) == [("enqueued", run + 1), ("enqueued", run + 2)]


def test_a_replay_of_an_active_task_finds_the_one_that_is_there(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(dedupe=True)
    assert replayed(database, run) == [("duplicate", run)]
    shard.succeed(shard.claim_one())
    ((outcome, new),) = replayed(database, run)
    assert outcome == "enqueued"
    assert replayed(database, run, RunId(999)) == [("duplicate", new), ("unknown", None)]


def test_the_newest_run_of_a_content_is_found_whatever_the_width_of_its_hash(put: Put, database: Database) -> None:
    first, second = *put(), *put()
    hash_ = record(database, first)["spec_hash"]
    assert hash_ == record(database, second)["spec_hash"]
    with database.connect() as connection:
        assert newest_by_hash(connection, hash_) == second
        assert newest_by_hash(connection, hash_ + "  ") == second
        assert newest_by_hash(connection, "none") is None


# reclaim


def test_an_expired_lease_is_taken_back_as_an_attempt(put: Put, shard: Shard, database: Database) -> None:
    first, last, held = put(max_attempts=2) + put(max_attempts=1) + put()
    shard.claim(2, lease_s=-1)
    shard.claim(1)
    assert reclaimed(database, older_s=3600) == {}
    assert reclaimed(database) == {first: "requeued", last: "failed"}
    assert record(database, first)["errors_json"][-1]["kind"] == "lease_expiry"
    assert (record(database, first)["attempts"], record(database, last)["last_error"]) == (1, "Worker heartbeat lost or process crashed")
    row = lane(database, held)
    assert row is not None
    assert row["state"] == "running"


def test_an_expired_lease_can_be_made_an_end(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.claim(1, lease_s=-1)
    assert reclaimed(database, "fail") == {run: "failed"}
    row = record(database, run)
    assert (row["errors_json"][-1]["kind"], row["last_error"]) == ("reclaim", "Lease expired; marking task failed.")
    assert row["failed_at"] is not None


def test_whoever_was_asked_to_be_cancelled_is(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.claim(1, lease_s=-1)
    with database.connect() as connection:
        cancel(connection, [run])
    assert reclaimed(database) == {run: "cancelled"}


def test_a_lease_that_was_renewed_since_it_was_listed_is_left(put: Put, shard: Shard, database: Database) -> None:
    renewed, again = put(2)
    one, other = shard.claim(2, lease_s=-1)
    with database.connect() as connection:
        leases = expired_leases(connection, 0, None)
        shard.renew(one)
        shard.release(other)
        shard.claim(1, lease_s=-1)
        outcomes = reclaim(connection, leases, 0, ReclaimAction.REQUEUE)
    assert outcomes == {renewed: "renewed", again: "renewed"}
    assert shard.end_run(one, Outcome.SUCCEED, b"1").ended


def test_a_row_that_is_locked_or_refused_is_reported_and_stops_nobody(put: Put, shard: Shard, database: Database) -> None:
    locked, poisoned, free = put(3)
    shard.claim(3, lease_s=-1)
    database.query(f"ALTER TABLE task_runs ADD CONSTRAINT no CHECK (result_id <> {poisoned} OR errors_json = '[]') NOT VALID")
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (locked,))
        assert reclaimed(database) == {locked: "locked", poisoned: "refused", free: "requeued"}
    database.query("ALTER TABLE task_runs DROP CONSTRAINT no")
    assert reclaimed(database) == {locked: "requeued", poisoned: "requeued"}
