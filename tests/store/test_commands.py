"""What people ask of the store."""

from collections.abc import Callable

import psycopg
import pytest

from reproq_supervisor.core.runs import Outcome, RunId, RunStatus
from reproq_supervisor.store import commands
from reproq_supervisor.store.commands import CancelOutcome, cancel, logs_uri, result, stats
from reproq_supervisor.store.doctor import Level, doctor
from tests.store.actors import Shard, assert_invariant, ended
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


def levels(database: Database, check: str) -> list[str]:
    with database.connect() as connection:
        return [finding.level for finding in doctor(connection) if finding.check == check]


def test_a_result_says_where_a_run_stands(put: Put, shard: Shard, database: Database) -> None:
    _, parked, ready = [*put(2, lock_key="user:1", priority=-1), *put()]
    with database.connect() as connection:
        views = [result(connection, run) for run in (parked, ready, RunId(999))]
        assert [view and (view.status, view.lane_state, view.park_reason) for view in views] == [
            ("READY", "parked", "key"),
            ("READY", "ready", None),
            None,
        ]
        shard.end_run(shard.claim_one(), Outcome.SUCCEED, b"[1]", logs_uri="file:///x")
        view = result(connection, ready)
        assert view is not None
        assert (view.status, view.lane_state, view.return_json, view.logs_uri) == ("SUCCESSFUL", None, [1], "file:///x")
        assert logs_uri(connection, ready) == "file:///x"
        assert logs_uri(connection, parked) is logs_uri(connection, RunId(999)) is None


def test_cancel_tells_what_it_did_with_each_run(put: Put, shard: Shard, database: Database) -> None:
    running, ended = (claimed for claimed in (put(2), shard.claim(2))[1])
    shard.succeed(ended)
    waiting, parked = [*put(), *put(delay_s=60)]
    with database.connect() as connection:
        told = cancel(connection, [waiting, running.result_id, RunId(999), ended.result_id, parked])
        assert list(told.items()) == [
            (waiting, CancelOutcome.CANCELLED),
            (running.result_id, CancelOutcome.REQUESTED),
            (999, CancelOutcome.UNKNOWN),
            (ended.result_id, CancelOutcome.ENDED),
            (parked, CancelOutcome.CANCELLED),
        ]
        view = result(connection, waiting)
    assert view is not None
    assert (view.status, view.attempts, view.errors_json[0]["kind"], view.cancel_requested) == ("CANCELLED", 0, "cancelled", True)
    assert shard.claim(5) == ()
    assert_invariant(database)


def test_cancel_does_not_wait_for_a_claim_under_way(put: Put, database: Database) -> None:
    (run,) = put()
    with database.connect(autocommit=False) as claim, database.connect() as connection:
        claim.execute("SELECT FROM task_lane WHERE result_id = %s FOR UPDATE", (run,))
        connection.execute("SET lock_timeout = '2s'")
        assert cancel(connection, [run]) == {run: CancelOutcome.REQUESTED}


def test_a_cancel_wish_outlives_the_retry_of_its_attempt(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    with database.connect() as connection:
        cancel(connection, [claimed.result_id])
    assert shard.fail(claimed).ended == {claimed.result_id: RunStatus.CANCELLED}


def test_stats_count_every_queue(put: Put, shard: Shard, database: Database) -> None:
    put(3, queue_name="a")
    put(2, queue_name="a", delay_s=60)
    put(4, queue_name="b", max_attempts=1)
    shard.claim(1, "a")
    one, two, _ = shard.claim(3, "b")
    shard.succeed(one)
    shard.fail(two)
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused) VALUES ('c', true)")
    with database.connect() as connection:
        told = stats(connection)
    assert list(told.queues) == ["a", "b", "c"]
    a, b, c = told.queues.values()
    assert (a.ready, a.running, a.parked, a.waiting, a.paused) == (2, 1, 2, 0, None)
    assert (b.ready, b.running, b.ended.successful, b.ended.failed) == (1, 1, 1, 1)
    assert (c.ready, c.paused) == (0, "")
    assert a.oldest_ready_s is not None
    assert 0 <= a.oldest_ready_s < 60
    assert not told.ended_is_estimate


def test_a_large_history_is_estimated_from_a_bounded_sample(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, status)
           SELECT '{}', n::text, 'a.b', 'SUCCESSFUL' FROM generate_series(1, 20000) n"""
    )
    monkeypatch.setattr(commands, "_COUNTED_BYTES", 2 * 1024 * 1024)
    with database.connect() as connection:
        told = stats(connection)
    assert told.ended_is_estimate
    assert 10_000 < told.queues["default"].ended.successful < 40_000


def test_doctor_is_content_with_a_healthy_database(put: Put, database: Database) -> None:
    put(3)
    with database.connect() as connection:
        told = {finding.level: finding.message for finding in doctor(connection)}
    assert set(told) <= {Level.OK, Level.NOTE}
    assert told.get(Level.NOTE, "superuser").count("superuser") == 1


def test_doctor_names_the_missing_steps_of_an_empty_database(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        (finding,) = doctor(connection)
    assert (finding.level, finding.check, finding.remedy) == (Level.ERROR, "schema", "run `reproq-supervisor migrate`")


def test_doctor_sees_a_run_that_waits_in_vain(put: Put, shard: Shard, database: Database) -> None:
    (parent,) = put()
    shard.succeed(shard.claim_one())
    database.query(
        "INSERT INTO task_runs (spec_json, spec_hash, task_path, status, parent_id) VALUES ('{}', 'a', 'a.b', 'WAITING', %s)", parent
    )
    assert levels(database, "workflows") == []
    database.query("UPDATE task_runs SET finished_at = now() - interval '1 h' WHERE result_id = %s", parent)
    assert levels(database, "workflows") == [Level.WARNING]


def test_doctor_sees_a_broken_invariant(put: Put, database: Database) -> None:
    put(3)
    database.query("DELETE FROM task_lane WHERE result_id = 1")
    assert levels(database, "invariant") == [Level.ERROR]


def test_doctor_sees_a_trigger_that_is_off(database: Database) -> None:
    database.query("ALTER TABLE task_runs DISABLE TRIGGER trg_task_runs_after_insert")
    assert levels(database, "triggers") == [Level.ERROR]


def test_doctor_sees_indexes_of_others(database: Database) -> None:
    database.query("CREATE INDEX mine ON task_runs (status)")
    assert levels(database, "indexes") == [Level.WARNING]


def test_doctor_sees_a_transaction_that_was_left_open(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_supervisor.store.examine.server.LONG_TRANSACTION_S", -1)
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT 1")
        assert levels(database, "transactions") == []  # without a snapshot of its own it stops nobody
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        assert levels(database, "transactions") == [Level.WARNING]


def test_doctor_tells_how_many_updates_touched_no_index(put: Put, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_supervisor.store.examine.tables.ENOUGH_UPDATES", -1)
    put(50)
    shard = Shard(database.dsn)
    with ended(shard):  # a session's statistics arrive at its end at the latest
        for claimed in shard.claim(50):
            shard.succeed(claimed)

    def told() -> list[str]:
        with database.connect() as connection:
            return [finding.message for finding in doctor(connection) if finding.check == "updates"]

    (message,) = eventually(told, what="statistics")
    assert message == "100% of 50 updates of task_runs touched no index"
