"""Leases: renewed, shown, watched, and looked at after a reconnection."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from reproq_supervisor.core.runs import LeaseNo, Outcome, RunId
from reproq_supervisor.store.commands import CancelOutcome, cancel, result
from tests.store.actors import Shard, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


def test_a_renewal_lasts_from_now(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one(lease_s=10)
    before = lane(database, claimed.result_id)["leased_until"]
    assert shard.renew(claimed, 60).lost == frozenset()
    assert lane(database, claimed.result_id)["leased_until"] > before + timedelta(seconds=49)


def test_a_renewal_touches_no_index(put: Put, shard: Shard, database: Database) -> None:
    put(20)
    claims = shard.claim(20)
    runs, numbers = [c.result_id for c in claims], [c.lease_no for c in claims]
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT reproq_renew('worker-1', 60, %s::bigint[], %s::bigint[])", (runs, numbers))
        counted = connection.execute(
            "SELECT pg_stat_get_xact_tuples_updated('task_lane'::regclass), pg_stat_get_xact_tuples_hot_updated('task_lane'::regclass)"
        ).fetchone()
    assert counted == (20, 20)


def test_a_renewal_tells_which_leases_are_lost(put: Put, shard: Shard) -> None:
    put(2)
    kept, lost = shard.claim(2)
    shard.release(lost)
    reply = shard.cycle(renew=((kept.result_id, kept.lease_no), (lost.result_id, lost.lease_no), (RunId(999), LeaseNo(1))))
    assert reply.lost == {lost.result_id, 999}


def test_a_short_run_shows_as_ready_in_its_record_and_as_running_to_readers(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.claim_one()
    assert record(database, run)["status"] == "READY"
    with database.connect() as connection:
        view = result(connection, run)
    assert view is not None
    assert (view.status, view.attempts, view.leased_by) == ("RUNNING", 1, "worker-1")
    assert view.started_at is not None


def test_a_run_that_goes_on_is_shown_in_its_record(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    assert shard.show(claimed, started_s_ago=0.5).lost == frozenset()
    shown = record(database, claimed.result_id)
    assert (shown["status"], shown["attempts"], shown["worker_ids"], shown["leased_by"]) == ("RUNNING", 1, ["worker-1"], "worker-1")
    assert shown["leased_until"] == lane(database, claimed.result_id)["leased_until"]
    assert (shown["updated_at"] - shown["started_at"]).total_seconds() == pytest.approx(0.5)


def test_being_shown_twice_or_before_the_end_names_the_worker_once(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    shard.show(claimed)
    shard.show(claimed)
    shard.succeed(claimed)
    assert record(database, claimed.result_id)["worker_ids"] == ["worker-1"]


def test_a_run_of_somebody_else_is_not_shown(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    put()
    claimed = shard_of("worker-1").claim_one()
    assert shard_of("worker-2").show(claimed).lost == {claimed.result_id}
    assert record(database, claimed.result_id)["status"] == "READY"


def test_only_what_is_still_ours_is_held_after_a_reconnection(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    put(4)
    first = shard_of("worker-1")
    kept, released, retried, stolen = first.claim(4)
    first.release(released)
    first.end_run(retried, Outcome.FAIL, b"{}", delay_s=0)
    database.query("UPDATE task_lane SET leased_by = 'worker-2' WHERE result_id = %s", stolen.result_id)
    again = first.claim(2)
    assert first.held(kept, released, retried, stolen) == {(kept.result_id, kept.lease_no)}
    assert len(first.held(*again)) == 2
    assert first.held() == set()


def test_a_watched_run_that_somebody_wants_cancelled_is_told(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    one, other = shard.claim(2)
    with database.connect() as connection:
        assert cancel(connection, [one.result_id]) == {one.result_id: CancelOutcome.REQUESTED}
    for _ in range(2):
        assert shard.cycle(watch=(one.result_id, other.result_id)).cancel == {one.result_id}
    shard.end_run(one, Outcome.CANCEL)
    assert shard.cycle(watch=(one.result_id, other.result_id)).cancel == frozenset()


def test_a_worker_that_announces_itself_again_keeps_its_start(shard: Shard, database: Database) -> None:
    for concurrency in (4, 8):
        shard.run(shard.store.announce(hostname="host", concurrency=concurrency, queues=["a", "b"], version="1.0"))
    ((worker, concurrency, queues, is_later),) = database.query(
        "SELECT worker_id, concurrency, queues, last_seen_at > started_at FROM reproq_workers"
    )
    assert (worker, concurrency, queues, is_later) == ("worker-1", 8, ["a", "b"], True)


def test_a_cycle_without_endings_does_not_wait_for_the_disk_and_one_with_endings_does(put: Put, database: Database) -> None:
    put()
    call = """SELECT what, result_id, lease_no
              FROM reproq_cycle('w', 60, %s::bigint[], %s::bigint[], %s::text[], %s::text[], '{NULL}', '{NULL}', '{NULL}',
                                '{}', '{}', '{}', '{}', '{}', '{}', %s::text[], '{1}', NULL, NULL, NULL, false)"""
    with database.connect(autocommit=False) as connection:
        ((_, run, no),) = connection.execute(call, ([], [], [], [], ["default"])).fetchall()
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        connection.commit()
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute(call, ([run], [no], ["succeed"], ["1"], [])).fetchone() == ("ended", run, None)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_shard_of_an_earlier_version_is_told_of_each_run_by_itself(put: Put, database: Database) -> None:
    for _ in range(3):
        put()
    call = """SELECT what, result_id, status, lease_no
              FROM reproq_cycle('w', 60, %s::bigint[], %s::bigint[], %s::text[], %s::text[], '{NULL}', '{NULL}', '{NULL}',
                                '{}', '{}', '{}', '{}', '{}', '{}', %s::text[], '{2}', NULL, NULL, NULL, false, 67108864)"""
    first = database.query(call, [], [], [], [], ["default"])
    assert [row[0] for row in first] == ["claimed", "claimed"]
    runs = [row[1] for row in first]
    told = database.query(call, runs, [first[0][3], first[0][3] + 1], ["succeed"] * 2, ["1", "2"], ["default"])
    assert told[:2] == [("ended", runs[0], "SUCCESSFUL", None), ("lost", runs[1], None, None)]
    assert [row[0] for row in told[2:]] == ["claimed"]
