"""An older worker beside us, while `migrate --coexist` provides for it: both work, nothing runs twice, nobody stands still."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store import commands, controls
from reproq_supervisor.store.coexistence import coexistence
from reproq_supervisor.store.doctor import doctor
from reproq_supervisor.store.migrate import migrate, plan, schema_is_current
from reproq_supervisor.store.schema.indexes import COEXISTENCE_INDEXES
from tests.store import layouts
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.store.older_worker import OlderWorker
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
LATER = 1e-9  # tokens a second: none comes while a test runs
FLOW = "3f0e8a6e-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def coexisting(database: Database) -> Iterator[None]:
    database.query("INSERT INTO reproq_coexistence DEFAULT VALUES")
    yield
    assert_invariant(database)


@pytest.fixture
def older_of(database: Database) -> Iterator[Callable[..., OlderWorker]]:
    """Makes older workers; each waits for a lock for two seconds at most."""
    made: list[OlderWorker] = []

    def make(worker_id: str = "older-1") -> OlderWorker:
        made.append(OlderWorker(database.dsn, worker_id))
        made[-1].connection.execute("SET lock_timeout = '2s'")
        return made[-1]

    yield make
    for older in made:
        older.close()


@pytest.fixture
def older(older_of: Callable[..., OlderWorker]) -> OlderWorker:
    return older_of()


def claim_one(older: OlderWorker) -> int:
    claimed = older.claim()
    assert claimed is not None
    return claimed.result_id


# What we hold


def test_a_claim_shows_in_the_record_in_its_own_commit(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.claim_one()
    shown = record(database, run)
    assert (shown["status"], shown["leased_by"], shown["attempts"]) == ("RUNNING", "worker-1", 1)
    assert shown["last_attempted_at"] is not None
    assert shown["leased_until"] is None, "an older worker's reclaim looks at those that have one"


def test_an_older_worker_claims_the_next_run_and_not_again_and_again_the_one_that_we_hold(
    put: Put, shard: Shard, older: OlderWorker
) -> None:
    runs = put(4)
    assert len(shard.claim(2)) == 2
    assert [claim_one(older), claim_one(older), older.claim()] == [*runs[2:], None]


def test_without_the_mode_an_older_worker_stands_still_and_does_no_harm(
    put: Put, shard: Shard, older: OlderWorker, database: Database
) -> None:
    database.query("DELETE FROM reproq_coexistence")
    runs = put(2)
    held = shard.claim_one()
    assert record(database, held.result_id)["status"] == "READY"
    assert older.claim() is None
    assert [claimed.result_id for claimed in shard.claim(5)] == runs[1:]


def test_a_run_that_we_hold_ends_with_one_entry_of_its_worker(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    seen, brief = shard.claim(2)
    shard.show(seen)
    assert record(database, seen.result_id)["leased_until"] is not None
    for claimed in (seen, brief):
        assert shard.succeed(claimed).ended == {claimed.result_id: RunStatus.SUCCESSFUL}
        assert record(database, claimed.result_id)["worker_ids"] == ["worker-1"]
        assert record(database, claimed.result_id)["started_at"] is not None


def test_a_retry_and_a_release_leave_the_record_as_ever(put: Put, shard: Shard, database: Database) -> None:
    retried, released = put(2)
    for claimed in shard.claim(2):
        if claimed.result_id == retried:
            shard.fail(claimed, delay_s=60.0)
        else:
            shard.release(claimed)
    assert (record(database, retried)["status"], record(database, retried)["worker_ids"]) == ("READY", ["worker-1"])
    after = record(database, released)
    assert (after["status"], after["attempts"], after["worker_ids"], after["leased_by"]) == ("READY", 0, [], None)


def test_a_run_that_never_started_does_not_near_the_cap_of_releases(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    put(2)
    seen, unseen = shard.claim(2)
    shard.show(seen)
    assert keeper.run(keeper.store.release_workers(["worker-1"])) == 2
    rows = {run.result_id: lane(database, run.result_id) for run in (seen, unseen)}
    assert [row and (row["state"], row["releases"], row["deaths"]) for row in rows.values()] == [("ready", 1, 1), ("ready", 0, 1)]


@pytest.mark.parametrize("is_seen", [False, True])
def test_an_older_reclaim_takes_nothing_of_ours(put: Put, shard: Shard, older: OlderWorker, database: Database, is_seen: bool) -> None:
    put()
    claimed = shard.claim_one()
    if is_seen:
        shard.show(claimed)
        database.query("UPDATE task_runs SET leased_until = now() - interval '1 h', rev = rev + 1")
    assert older.reclaim() == []
    assert shard.succeed(claimed).ended == {claimed.result_id: RunStatus.SUCCESSFUL}


def test_an_older_heartbeat_or_end_of_a_run_that_we_hold_changes_nothing(put: Put, shard: Shard, older: OlderWorker) -> None:
    (run,) = put()
    claimed = shard.claim_one()
    assert older.heartbeat(run) is None
    assert not older.succeed(run)
    assert not older.fail(run, retries=True)
    assert shard.succeed(claimed).ended


# What they hold


def test_what_an_older_worker_chooses_at_this_moment_is_passed_over(put: Put, shard: Shard, older: OlderWorker) -> None:
    first, second = put(2)
    with older.connection.transaction():
        older.connection.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (first,))
        assert [claimed.result_id for claimed in shard.claim(5)] == [second]
        assert claim_one(older) == first
    assert older.succeed(first)


def test_an_older_worker_claims_keeps_and_ends(put: Put, shard: Shard, older: OlderWorker, database: Database) -> None:
    first, second, third = put(3)
    assert [claim_one(older) for _ in range(3)] == [first, second, third]
    assert older.heartbeat(first) is False
    assert shard.claim(5) == ()
    assert older.succeed(first)
    assert older.fail(second, retries=True)
    assert older.fail(third, retries=False)
    assert record(database, third)["status"] == "FAILED"
    claimed = shard.claim_one()
    assert (claimed.result_id, claimed.attempt) == (second, 2)
    shard.succeed(claimed)
    assert record(database, second)["worker_ids"] == ["older-1", "worker-1"]


def test_an_end_that_comes_after_we_reclaimed_is_refused(
    put: Put, shard: Shard, keeper: Keeper, older: OlderWorker, database: Database
) -> None:
    (run,) = put()
    claim_one(older)
    database.query("UPDATE task_runs SET leased_until = now() - interval '1 s'")
    assert keeper.run(keeper.store.reclaim()) == 1
    assert not older.succeed(run)
    claimed = shard.claim_one()
    assert not older.succeed(run)
    assert older.heartbeat(run) is None
    assert shard.succeed(claimed).ended == {run: RunStatus.SUCCESSFUL}
    assert record(database, run)["worker_ids"] == ["older-1", "worker-1"]


def test_a_cancel_by_our_command_reaches_an_older_worker(put: Put, keeper: Keeper, older: OlderWorker, database: Database) -> None:
    (run,) = put()
    claim_one(older)
    with database.connect() as connection:
        assert commands.cancel(connection, [run]) == {run: commands.CancelOutcome.REQUESTED}
    keeper.run(keeper.store.settle_wishes())
    assert older.heartbeat(run) is True
    assert older.fail(run, retries=False)


def test_wishes_for_runs_of_ours_do_not_hide_one_for_an_older_worker(
    put: Put, shard: Shard, keeper: Keeper, older: OlderWorker, database: Database
) -> None:
    (run,) = put()
    claim_one(older)
    put(60)
    held = [claimed.result_id for claimed in shard.claim(60)]
    with database.connect() as connection:
        commands.cancel(connection, [*held, run])
    keeper.run(keeper.store.settle_wishes(limit=1))
    assert older.heartbeat(run) is True


# Keys and rates


def test_an_older_worker_may_start_what_waits_for_a_key_that_is_free(
    put: Put, shard: Shard, older: OlderWorker, database: Database
) -> None:
    """It chooses by its own order; ours, which was woken, waits then."""
    put(3, lock_key="k")
    first = shard.claim_one()
    assert shard.claim(5) == ()
    assert older.claim() is None, "the key is full"
    shard.succeed(first)
    database.query("UPDATE task_lane SET state = 'parked', park_reason = 'key', on_key = 'lock:k'")
    run = claim_one(older)
    assert shard.claim(5) == ()
    assert older.succeed(run)
    assert shard.claim_one().result_id not in (run, first.result_id)


def test_a_limit_counts_what_both_hold(put: Put, shard: Shard, older_of: Callable[..., OlderWorker]) -> None:
    put(6, concurrency_key="k", concurrency_limit=3)
    held = shard.claim(2)
    first, second = older_of("older-1"), older_of("older-2")
    run = claim_one(first)
    assert second.claim() is None
    assert shard.claim(5) == ()
    assert len(held) == 2
    assert first.succeed(run)
    assert second.claim() is not None
    assert shard.claim(5) == ()


def test_both_spend_tokens_of_one_bucket(put: Put, shard: Shard, older: OlderWorker, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 5)
    put(9)
    assert len(shard.claim(2)) == 2
    assert [older.claim() is not None for _ in range(2)] == [True, True]
    assert len(shard.claim(9)) == 1
    assert older.claim() is None
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 1)
    assert older.claim() is not None, "it may start what we have parked on the rate"
    assert shard.claim(9) == ()


def test_a_token_that_an_older_worker_spent_for_a_run_it_may_not_start_comes_back(put: Put, older: OlderWorker, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 2)
        put(lock_key="k")
        with database.connect() as claimer, claimer.transaction():
            claimer.execute("SELECT reproq_lock_keys('{lock:k}')")
            assert older.claim() is None
        assert controls.limits(connection)[1].tokens == pytest.approx(2)
        claim_one(older)
        assert controls.limits(connection)[1].tokens == pytest.approx(1)


def test_who_spends_no_token_gets_none_back(put: Put, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 5)
        database.query("UPDATE rate_limits SET current_tokens = 1")
        (run,) = put(delay_s=60)
        assert connection.execute("UPDATE task_runs SET status = 'RUNNING' WHERE result_id = %s", (run,)).rowcount == 0
        assert controls.limits(connection)[1].tokens == pytest.approx(1)


def test_an_older_worker_may_start_what_has_become_due_before_we_wake_it(put: Put, older: OlderWorker, database: Database) -> None:
    (run,) = put(delay_s=60)
    assert older.claim() is None
    database.query("UPDATE task_runs SET run_after = now() - interval '1 s', rev = rev + 1")
    database.query("UPDATE task_lane SET due_at = now() - interval '1 s'")
    assert claim_one(older) == run


def test_an_older_worker_works_off_everything_alone(put: Put, older: OlderWorker, database: Database) -> None:
    """The way back: nobody of ours is there to wake anything."""
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", 1000, 2)
    put(3)
    put(5, lock_key="k")
    put(5, concurrency_key="c", concurrency_limit=2)
    put(3, delay_s=0.1)
    chord(database, 3)

    def works_off() -> bool:
        claimed = older.claim()
        if claimed is not None:
            assert older.succeed(claimed.result_id)
        return not database.query("SELECT 1 FROM task_lane")

    eventually(works_off, timeout=60, what="the older worker has ended all runs")
    assert database.query("SELECT DISTINCT status FROM task_runs") == [("SUCCESSFUL",)]


# Workflows


def chord(database: Database, members: int) -> tuple[list[int], int]:
    """Insert a chord as the older package does; return its members and its callback."""
    rows = database.query(
        f"""INSERT INTO task_runs (spec_json, spec_hash, task_path, status, wait_count, workflow_id)
            SELECT '{{}}', 'h' || n, 'app.task', CASE WHEN n > {members} THEN 'WAITING' ELSE 'READY' END,
                   CASE WHEN n > {members} THEN {members} ELSE 0 END, '{FLOW}'
            FROM generate_series(1, {members} + 1) n RETURNING result_id"""
    )
    runs = [run for (run,) in rows]
    database.query(
        "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)", FLOW, members, runs[-1]
    )
    return runs[:-1], runs[-1]


def flow_of(database: Database) -> tuple[Any, ...]:
    ((success, failure, status),) = database.query("SELECT success_count, failure_count, status FROM workflow_runs")
    return success, failure, status


def test_a_chord_that_both_work_at_is_counted_once_and_released_by_its_last_member(
    shard: Shard, older: OlderWorker, database: Database
) -> None:
    members, callback = chord(database, 6)
    for n in range(1, 6):
        if n % 2:
            assert older.succeed(claim_one(older))
            shard.cycle()
        else:
            shard.succeed(shard.claim_one())
        assert flow_of(database) == (n, 0, "RUNNING")
        assert record(database, callback)["status"] == "WAITING"
    assert older.succeed(claim_one(older))
    assert record(database, callback)["status"] == "READY"
    shard.cycle()
    assert flow_of(database) == (6, 0, "WAITING_CALLBACK")
    claimed = shard.claim_one()
    assert claimed.result_id == callback
    shard.succeed(claimed)
    assert flow_of(database) == (6, 0, "SUCCESSFUL")
    assert len(members) == 6


def test_a_callback_is_not_released_by_a_counter_that_ran_ahead(shard: Shard, older: OlderWorker, database: Database) -> None:
    _, callback = chord(database, 3)
    held = shard.claim_one()
    database.query("UPDATE workflow_runs SET success_count = 2")
    assert older.succeed(claim_one(older))
    assert record(database, callback)["status"] == "WAITING"
    assert older.succeed(claim_one(older))
    assert record(database, callback)["status"] == "WAITING"
    shard.succeed(held)
    assert record(database, callback)["status"] == "READY"
    assert flow_of(database) == (3, 0, "WAITING_CALLBACK")


def test_a_failure_at_an_older_worker_reaches_the_callback(shard: Shard, older: OlderWorker, database: Database) -> None:
    _, callback = chord(database, 2)
    assert older.fail(claim_one(older), retries=False)
    shard.cycle()
    assert record(database, callback)["status"] == "FAILED"
    assert flow_of(database)[1:] == (1, "FAILED")
    shard.succeed(shard.claim_one())
    assert flow_of(database)[1:] == (1, "FAILED")


# The mode


def seen(database: Database, worker: str, version: str, age: str = "0 s") -> None:
    statement = "INSERT INTO reproq_workers (worker_id, version, last_seen_at) VALUES (%s, %s, now() - %s::interval)"
    database.query(statement, worker, version, age)


def told(database: Database) -> list[tuple[str, str]]:
    with database.connect() as connection:
        return [(finding.level.value, finding.message) for finding in doctor(connection) if finding.check == "co-existence"]


def older_indexes(database: Database) -> set[str]:
    rows = database.query("SELECT indexname FROM pg_indexes WHERE tablename = 'task_runs' AND indexname LIKE 'idx_task_runs_%'")
    return {name for (name,) in rows}


def test_the_mode_stays_until_it_is_switched_off(database: Database) -> None:
    needed = {index.name for index in COEXISTENCE_INDEXES}
    with database.connect() as connection:
        migrate(connection)
        assert older_indexes(database) == needed
        assert [step.name for step in migrate(connection, coexist=True)] == []
        assert migrate(connection) == []
        taken = [step.name for step in migrate(connection, coexist=False)]
        assert taken == ["co-existence with an older worker", "drop older indexes"]
        assert (older_indexes(database), coexistence(connection, 60).since) == (set(), None)
        migrate(connection, coexist=True)
        assert older_indexes(database) == needed
        assert coexistence(connection, 60).since is not None


@pytest.mark.parametrize("layout", layouts.OLDER.values(), ids=layouts.OLDER)
def test_an_older_layout_keeps_what_its_worker_needs(empty_database: Database, layout: Callable[[Any], None]) -> None:
    with empty_database.connect() as connection:
        layout(connection)
        migrate(connection, coexist=True)
        assert older_indexes(empty_database) == {index.name for index in COEXISTENCE_INDEXES}
        assert plan(connection) == []
        assert schema_is_current(connection)


def test_doctor_says_that_the_mode_is_on_and_when_nobody_needs_it_any_more(database: Database) -> None:
    with database.connect() as connection:
        migrate(connection)
        assert [finding for finding in doctor(connection) if finding.check in ("indexes", "older layout")] == []
    ((level, message),) = told(database)
    assert level == "note"
    assert "on since" in message
    assert "0 older workers" in message
    database.query("UPDATE reproq_coexistence SET since = now() - interval '2 days'")
    seen(database, "host-1-ab", "reproq-supervisor 0.1.0")
    seen(database, "host-2", "0.0.144", "25 h")
    ((level, message),) = told(database)
    assert level == "warning"
    assert "no older worker has been seen for a day" in message
    seen(database, "host-3", "0.0.144", "1 h")
    assert [level for level, _ in told(database)] == ["note"]


def test_doctor_warns_of_an_older_worker_without_the_mode(database: Database) -> None:
    database.query("DELETE FROM reproq_coexistence")
    seen(database, "host-1-ab", "reproq-supervisor 0.1.0")
    assert told(database) == []
    seen(database, "host-3", "0.0.144")
    ((level, message),) = told(database)
    assert level == "warning"
    assert "host-3" in message
