"""Ended runs that are made to run again: each on its own, with its key, and with what waited for it."""

from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import Outcome, RunId
from reproq_supervisor.store.commands import cancel
from reproq_supervisor.store.connect import connected
from reproq_supervisor.store.filters import Filter
from reproq_supervisor.store.triage import START, RetryOutcome, matching, page, retry
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.store.test_concurrency import in_processes
from tests.store.test_flows import chain, chord, flow, statuses
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def retried(database: Database, *runs: RunId) -> list[tuple[str, RunId | None]]:
    with database.connect() as connection:
        return [(str(each.outcome), each.other) for each in retry(connection, runs)]


def fail(shard: Shard, kind: str = "app_error", wanted: int = 1) -> list[RunId]:
    claimed = shard.claim(wanted)
    for each in claimed:
        shard.end_run(each, Outcome.FAIL_FINALLY, f'{{"kind": "{kind}", "message": "it broke"}}'.encode())
    return [each.result_id for each in claimed]


def test_a_retried_run_is_as_new_but_for_its_errors(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(max_attempts=1)
    shard.end_run(shard.claim_one(), Outcome.FAIL, b'{"kind": "app_error", "message": "no"}', logs_uri="/logs/1")
    assert retried(database, run) == [("retried", None)]
    row = record(database, run)
    assert (row["status"], row["attempts"], row["started_at"], row["finished_at"], row["failed_at"]) == ("READY", 0, None, None, None)
    assert (row["last_error"], row["last_attempted_at"], row["cancel_requested"], row["leased_by"]) == (None, None, False, None)
    assert ([error["message"] for error in row["errors_json"]], row["worker_ids"]) == (["no"], ["worker-1"])
    assert row["run_after"] is not None
    claimed = shard.claim_one()
    assert (claimed.result_id, claimed.attempt) == (run, 1)


def test_a_cancelled_run_can_be_retried_and_nobody_cancels_it_again(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    (run,) = put()
    with database.connect() as connection:
        cancel(connection, [run])
    assert retried(database, run) == [("retried", None)]
    keeper.run(keeper.store.settle_wishes())
    assert shard.claim_one().result_id == run


def test_each_run_is_told_what_became_of_it(put: Put, shard: Shard, database: Database) -> None:
    (good,) = put()
    shard.succeed(shard.claim_one())
    (bad,) = put()
    fail(shard)
    (waiting,) = put()
    assert retried(database, bad, waiting, RunId(999), good, bad) == [
        ("retried", None),
        ("active", None),
        ("unknown", None),
        ("succeeded", None),
        ("active", None),
    ]


def test_a_run_that_somebody_has_locked_is_left_without_waiting(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    locked, free = fail(shard, wanted=2)
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (locked,))
        assert retried(database, locked, free) == [("locked", None), ("retried", None)]
    assert retried(database, locked) == [("retried", None)]


def test_a_run_that_the_database_refuses_costs_the_others_nothing(put: Put, shard: Shard, database: Database) -> None:
    put(3)
    first, poisoned, last = fail(shard, wanted=3)
    database.query(f"ALTER TABLE task_runs ADD CONSTRAINT no CHECK (result_id <> {poisoned} OR status <> 'READY') NOT VALID")
    assert retried(database, first, poisoned, last) == [("retried", None), ("refused", None), ("retried", None)]


def test_a_run_whose_time_is_over_is_not_made_to_expire_again(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(expires_in_s=3600)
    fail(shard)
    database.query("UPDATE task_runs SET expires_at = now(), rev = rev + 1 WHERE result_id = %s", run)
    assert retried(database, run) == [("expired", None)]


# dedupe


def test_a_retried_run_has_its_deduplication_again(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(dedupe=True)
    fail(shard)
    assert retried(database, run) == [("retried", None)]
    assert put(dedupe=True) == [run]


def test_a_run_with_an_active_duplicate_is_left_and_the_duplicate_named(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(dedupe=True)
    fail(shard)
    (active,) = put(dedupe=True)
    assert retried(database, run) == [("duplicate", active)]
    assert record(database, run)["status"] == "FAILED"


def test_of_two_failed_duplicates_one_is_retried(put: Put, shard: Shard, database: Database) -> None:
    runs = []
    for _ in range(2):
        runs += put(dedupe=True)
        fail(shard)
    assert retried(database, *runs) == [("retried", None), ("duplicate", runs[0])]


def test_runs_that_never_were_to_be_one_are_all_retried(put: Put, shard: Shard, database: Database) -> None:
    put(1)
    put(1)
    assert retried(database, *fail(shard, wanted=2)) == [("retried", None)] * 2


def test_of_older_runs_one_takes_the_key_and_the_others_go_on_without(put: Put, shard: Shard, database: Database) -> None:
    put(1)
    put(1)
    runs = fail(shard, wanted=2)
    database.query("UPDATE task_runs SET was_deduped = NULL, rev = rev + 1")
    assert retried(database, *runs) == [("retried", None)] * 2
    assert [record(database, run)["dedupe_key"] is not None for run in runs] == [True, False]


def test_a_duplicate_that_is_being_enqueued_is_not_waited_for(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(dedupe=True)
    fail(shard)
    key = record(database, run)["spec_hash"]
    with database.connect() as other, other.transaction(force_rollback=True):
        other.execute("INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{}', %s, 'app.task')", (key,))
        assert retried(database, run) == [("locked", None)]
    assert retried(database, run) == [("retried", None)]


def test_a_plain_update_restores_only_a_key_that_was_asked_for(put: Put, shard: Shard, database: Database) -> None:
    plain, deduped = put(1) + put(1, args=["x"], dedupe=True)
    fail(shard, wanted=2)
    database.query("UPDATE task_runs SET status = 'READY'")
    assert [record(database, run)["dedupe_key"] is not None for run in (plain, deduped)] == [False, True]


# workflows


def test_a_chain_is_retried_from_the_run_that_failed(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    fail(shard)
    assert retried(database, runs[2], runs[1]) == [("follows", runs[0]), ("follows", runs[0])]
    assert retried(database, *runs) == [("retried", None), ("retried", runs[0]), ("retried", runs[1])]
    assert statuses(database, runs) == ["READY", "WAITING", "WAITING"]
    for run in runs:
        claimed = shard.claim_one()
        assert claimed.result_id == run
        shard.succeed(claimed)
    assert statuses(database, runs) == ["SUCCESSFUL"] * 3


def test_what_was_left_because_it_follows_runs_when_the_first_succeeds(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    fail(shard)
    assert retried(database, runs[0]) == [("retried", None)]
    for run in runs:
        claimed = shard.claim_one()
        assert claimed.result_id == run
        shard.succeed(claimed)
    assert statuses(database, runs) == ["SUCCESSFUL"] * 3


def test_a_chain_that_fails_again_fails_whole(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    fail(shard)
    retried(database, *runs)
    assert fail(shard) == runs[:1]
    assert statuses(database, runs) == ["FAILED"] * 3
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]


def test_a_retried_member_repairs_its_chord(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 3)
    (bad,) = fail(shard)
    for claimed in shard.claim(9):
        shard.succeed(claimed)
    assert (flow(database, workflow)[0], retried(database, callback)) == ("FAILED", [("follows", bad)])
    assert retried(database, bad, callback) == [("retried", None), ("retried", bad)]
    assert flow(database, workflow)[0] == "RUNNING"
    shard.succeed(shard.claim_one())
    assert flow(database, workflow) == ("WAITING_CALLBACK", len(members), 0)
    last = shard.claim_one()
    assert last.result_id == callback
    shard.succeed(last)
    assert flow(database, workflow)[0] == "SUCCESSFUL"


def test_a_callback_that_failed_itself_is_retried_by_itself(shard: Shard, database: Database) -> None:
    workflow, _, callback = chord(database, 1)
    shard.succeed(shard.claim_one())
    assert fail(shard) == [callback]
    assert retried(database, callback) == [("retried", None)]
    assert flow(database, workflow)[0] == "WAITING_CALLBACK"
    shard.succeed(shard.claim_one())
    assert flow(database, workflow)[0] == "SUCCESSFUL"


def test_a_run_whose_parent_was_deleted_is_retried(shard: Shard, database: Database) -> None:
    parent, child = chain(database, 2)
    fail(shard)
    database.query("DELETE FROM task_runs WHERE result_id = %s", parent)
    assert retried(database, child) == [("retried", None)]
    assert shard.claim_one().result_id == child


# the list


def listed(database: Database, limit: int = 50, **parts: Any) -> list[RunId]:
    with database.connect() as connection:
        return [run.result_id for run in page(connection, Filter(**parts), limit).runs]


def test_the_newest_failure_comes_first_page_by_page(put: Put, shard: Shard, database: Database) -> None:
    put(5)
    for _ in range(5):
        fail(shard)
    database.query("UPDATE task_runs SET failed_at = '-infinity', rev = rev + 1 WHERE result_id = 2")
    database.query("UPDATE task_runs SET failed_at = 'infinity', rev = rev + 1 WHERE result_id = 3")
    seen, rest = [], START
    with connected(database.dsn) as connection:
        while rest is not None:
            found = page(connection, Filter(), 2, rest)
            seen += [run.result_id for run in found.runs]
            rest = found.rest  # type: ignore[assignment]
        assert seen == [3, 5, 4, 1, 2]
        assert matching(connection, Filter()) == seen[::-1]


def test_failures_of_one_moment_are_all_listed(put: Put, shard: Shard, database: Database) -> None:
    put(7)
    for _ in range(7):
        fail(shard)
    database.query("UPDATE task_runs SET failed_at = '2026-01-01', rev = rev + 1")
    with database.connect() as connection:
        first = page(connection, Filter(), 3)
        assert first.rest is not None
        second = page(connection, Filter(), 9, first.rest)
    assert [run.result_id for run in first.runs + second.runs] == [7, 6, 5, 4, 3, 2, 1]
    assert second.rest is None


def test_a_filter_looks_at_queue_task_kind_and_status(put: Put, shard: Shard, database: Database) -> None:
    (a,) = put(queue_name="default", task_path="shop.mail_all")
    fail(shard, kind="timeout")
    (b,) = put(queue_name="default", task_path="shop.mailXall")
    fail(shard)
    (c,) = put(queue_name="other")
    with database.connect() as connection:
        cancel(connection, [c])
    assert listed(database) == [b, a]
    assert listed(database, task="shop.mail_*") == [a]
    assert listed(database, task="*.mail?all") == [b, a]
    assert listed(database, kind="timeout") == [a]
    assert listed(database, statuses=("CANCELLED",)) == [c]
    assert listed(database, statuses=("CANCELLED", "FAILED"), queue="default") == [b, a]


def test_a_failure_by_somebody_elses_hand_is_listed(put: Put, keeper: Keeper, database: Database) -> None:
    (run,) = put()
    database.query("UPDATE task_runs SET status = 'FAILED' WHERE result_id = %s", run)
    database.query("INSERT INTO task_runs (spec_json, spec_hash, task_path, status) VALUES ('{}', 'x', 'a.b', 'FAILED')")
    assert listed(database) == [run]
    keeper.run(keeper.store.repair())
    assert listed(database) == [run + 1, run]


def test_a_retried_run_waits_for_its_key_like_any_other(put: Put, shard: Shard, database: Database) -> None:
    put(2, lock_key="till")
    runs = [*fail(shard), *fail(shard)]
    assert retried(database, *runs) == [("retried", None)] * 2
    assert len(shard.claim(9)) == 1
    row = lane(database, runs[1])
    assert row is not None
    assert row["state"] == "parked"


def retry_all(dsn: str) -> list[str]:
    """Retry whatever has failed, as several operators at once would."""
    import psycopg

    from reproq_supervisor.store.filters import Filter
    from reproq_supervisor.store.triage import matching, retry

    with psycopg.connect(dsn, autocommit=True) as connection:
        runs = matching(connection, Filter())
        return [str(each.outcome) for start in range(0, len(runs), 50) for each in retry(connection, runs[start : start + 50])]


def test_operators_who_retry_everything_at_once_retry_each_run_once(database: Database) -> None:
    database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, failed_at)
           SELECT '{"task_path": "a.b"}', n::text, 'a.b', 'FAILED', now() FROM generate_series(1, 400) n"""
    )
    outcomes = [outcome for answer in in_processes(retry_all, [(database.dsn,)] * 6) for outcome in answer]
    assert outcomes.count("retried") == 400
    assert set(outcomes) <= {"retried", "active", "locked"}
    assert database.query("SELECT status, count(*) FROM task_runs GROUP BY 1") == [("READY", 400)]


def test_outcomes_are_the_words_of_the_database() -> None:
    assert {str(each) for each in RetryOutcome} >= {"retried", "duplicate", "follows", "expired", "locked", "refused"}
