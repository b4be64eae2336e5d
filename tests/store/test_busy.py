"""Somebody else's open transaction over a run costs that run a while, and nobody else anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reproq_supervisor.core.runs import Claimed, Ending, Outcome, RunId, RunStatus, Started
from reproq_supervisor.store.commands import CancelOutcome, cancel
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]

LOCKS = {
    "record": "SELECT FROM task_runs WHERE result_id = ANY (%s) FOR UPDATE",
    "lane row": "SELECT FROM task_lane WHERE result_id = ANY (%s) FOR UPDATE",
    "a page that saves": "UPDATE task_runs SET priority = 7 WHERE result_id = ANY (%s)",
}
every_lock = pytest.mark.parametrize("what", LOCKS)


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    """Nobody waits longer than a second for anything, and in the end everything is in order."""
    database.query(f"ALTER DATABASE {database.name} SET statement_timeout = '3s'")
    yield
    assert_invariant(database)


@contextmanager
def locked(database: Database, what: str, *runs: RunId) -> Iterator[None]:
    """Somebody has locked these runs and thinks."""
    with database.connect(autocommit=False) as connection:
        connection.execute(LOCKS[what], (list(runs),))
        yield
        connection.rollback()


def endings(*claims: Claimed, outcome: Outcome = Outcome.SUCCEED, value: bytes | None = b"1") -> tuple[Ending, ...]:
    return tuple(Ending(c.result_id, c.lease_no, outcome, value, started_s_ago=0.01) for c in claims)


@every_lock
@pytest.mark.parametrize("outcome", [Outcome.SUCCEED, Outcome.FAIL, Outcome.RELEASE])
def test_an_ending_that_somebody_locks_out_is_set_aside_and_the_others_are_not(
    put: Put, shard: Shard, database: Database, what: str, outcome: Outcome
) -> None:
    put(5)
    claims = shard.claim(5)
    busy, goes_on = claims[1], put()
    told = endings(*claims, outcome=outcome, value=None if outcome is Outcome.RELEASE else b"{}")
    with locked(database, what, busy.result_id):
        reply = shard.cycle(endings=told, claims=(("default", 1),))
        assert (reply.busy, reply.lost) == ({busy.result_id}, frozenset())
        assert set(reply.ended) == {c.result_id for c in claims} - {busy.result_id}
        assert {c.result_id for c in reply.claimed} <= {*goes_on, *reply.ended}
        assert len(reply.claimed) == 1
        assert shard.held(busy)
    assert set(shard.cycle(endings=endings(busy, outcome=outcome, value=told[1].value)).ended) == {busy.result_id}
    assert record(database, busy.result_id)["attempts"] == (0 if outcome is Outcome.RELEASE else 1)


def test_what_was_lost_is_still_told_beside_what_is_busy(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    put(3)
    shard = shard_of("worker-1")
    busy, lost, good = shard.claim(3)
    shard.release(lost)
    with locked(database, "record", busy.result_id):
        reply = shard.cycle(endings=endings(busy, lost, good))
    assert (reply.busy, reply.lost, set(reply.ended)) == ({busy.result_id}, {lost.result_id}, {good.result_id})


def test_a_value_that_cannot_be_stored_and_a_lock_in_one_batch(put: Put, shard: Shard, database: Database) -> None:
    database.query("ALTER TABLE task_runs ADD CONSTRAINT no_bad CHECK (return_json IS DISTINCT FROM '\"bad\"')")
    put(4)
    busy, bad, half, good = shard.claim(4)
    told = (*endings(busy, good), *endings(bad, value=b'"bad"'), *endings(half, value=b'"\\ud800"'))
    with locked(database, "record", busy.result_id):
        reply = shard.cycle(endings=told)
    assert reply.busy == {busy.result_id}
    assert reply.ended == {
        good.result_id: RunStatus.SUCCESSFUL,
        bad.result_id: RunStatus.FAILED,
        half.result_id: RunStatus.FAILED,
    }


@every_lock
def test_a_lease_is_renewed_if_only_its_record_is_locked(put: Put, shard: Shard, database: Database, what: str) -> None:
    put(3)
    claims = shard.claim(3, lease_s=1)
    before = {c.result_id: lane(database, c.result_id)["leased_until"] for c in claims}
    busy = claims[1].result_id
    with locked(database, what, busy):
        reply = shard.cycle(600, renew=tuple((c.result_id, c.lease_no) for c in claims))
        assert reply.lost == frozenset()
        assert reply.unrenewed == (frozenset() if what == "record" else {busy})
        renewed = {run for run in before if lane(database, run)["leased_until"] > before[run]}
        assert renewed == set(before) - reply.unrenewed
    assert shard.renew(claims[1]).unrenewed == frozenset()


@every_lock
def test_a_start_that_somebody_locks_out_is_shown_later(put: Put, shard: Shard, database: Database, what: str) -> None:
    put(3)
    claims = shard.claim(3)
    busy = claims[1]
    with locked(database, what, busy.result_id):
        reply = shard.cycle(started=tuple(Started(c.result_id, c.lease_no, 1) for c in claims))
        assert (reply.busy, reply.lost) == ({busy.result_id}, frozenset())
        assert [record(database, c.result_id)["status"] for c in claims] == ["RUNNING", "READY", "RUNNING"]
    assert shard.show(busy).busy == frozenset()
    assert record(database, busy.result_id)["status"] == "RUNNING"


def test_while_an_index_is_built_endings_wait_and_leases_do_not(put: Put, shard: Shard, database: Database) -> None:
    put(3)
    claims = shard.claim(2)
    told = endings(claims[0])
    shown = (Started(claims[1].result_id, claims[1].lease_no, 1),)
    with database.connect(autocommit=False) as connection:
        connection.execute("LOCK TABLE task_runs IN SHARE MODE")
        renew = ((claims[1].result_id, claims[1].lease_no),)
        reply = shard.cycle(endings=told, started=shown, renew=renew, claims=(("default", 1),))
        assert reply.busy == {c.result_id for c in claims}
        assert (len(reply.claimed), reply.lost, reply.unrenewed) == (1, frozenset(), frozenset())
    assert set(shard.cycle(endings=told, started=shown).ended) == {claims[0].result_id}


@every_lock
def test_a_sweep_leaves_what_is_locked_for_a_later_round(put: Put, shard: Shard, keeper: Keeper, database: Database, what: str) -> None:
    runs = put(4)
    shard.claim(4, lease_s=0)
    with locked(database, what, runs[0], runs[2]):
        assert [keeper.run(keeper.store.reclaim(1)) for _ in range(3)] == [1, 1, 0]
    assert keeper.run(keeper.store.reclaim()) == 2
    assert {record(database, run)["attempts"] for run in runs} == {1}


@every_lock
def test_a_release_leaves_what_is_locked_for_a_later_round(put: Put, shard: Shard, keeper: Keeper, database: Database, what: str) -> None:
    runs = put(4)
    shard.claim(4)
    with locked(database, what, runs[0], runs[2]):
        assert keeper.run(keeper.store.release_workers(["worker-1", "other"], batch=1)) == 2
        assert keeper.run(keeper.store.holders(["worker-1", "other"])) == {"worker-1"}
    assert keeper.run(keeper.store.release_workers(["worker-1"])) == 2
    assert keeper.run(keeper.store.holders(["worker-1"])) == frozenset()
    assert {record(database, run)["attempts"] for run in runs} == {0}


@every_lock
def test_a_cancel_of_what_is_locked_is_a_wish_that_is_settled_later(put: Put, keeper: Keeper, database: Database, what: str) -> None:
    busy, free = put(2)
    with locked(database, what, busy), database.connect() as connection:
        assert cancel(connection, [busy, free]) == {busy: CancelOutcome.REQUESTED, free: CancelOutcome.CANCELLED}
        assert [keeper.run(keeper.store.settle_wishes()) for _ in range(3)] == [0, 0, 0]
        assert database.query("SELECT count(*) FROM reproq_cancel_requests") == [(1,)]
    assert keeper.run(keeper.store.settle_wishes()) == 1
    assert record(database, busy)["status"] == "CANCELLED"


def test_a_claim_that_meets_a_locked_run_that_shall_not_run_parks_it(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    (busy,) = put(priority=10)
    (good,) = put()
    with database.connect() as connection, locked(database, "record", busy):
        cancel(connection, [busy])
        assert [c.result_id for c in shard.claim(2)] == [good]
        row = lane(database, busy)
        assert (row["state"], row["park_reason"], row["attempts"]) == ("parked", "due", 0)
    assert keeper.run(keeper.store.settle_wishes()) == 1
