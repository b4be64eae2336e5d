"""What goes with time, and what stays with it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from reproq_supervisor.core.runs import Outcome, RunId, RunStatus
from reproq_supervisor.store import pruning
from reproq_supervisor.store.pruning import expire, prune, prune_expired, prune_flows
from tests.store.actors import Keeper, Shard, assert_invariant, record
from tests.store.test_flows import chain, chord, flow, insert, statuses
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
ALL = dict.fromkeys((RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELLED), 3600.0)


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def pruned(database: Database, ages_s: dict[RunStatus, float] | None = None, **options: Any) -> list[RunId]:
    with database.connect() as connection:
        return sorted(gone.result_id for batch in prune(connection, ages_s or ALL, **options) for gone in batch.gone)


def make_old(database: Database, *runs: RunId, hours: float = 2) -> None:
    database.query(
        """UPDATE task_runs SET finished_at = finished_at - %s * interval '1 h', failed_at = failed_at - %s * interval '1 h',
                                enqueued_at = enqueued_at - %s * interval '1 h', rev = rev + 1 WHERE result_id = ANY (%s)""",
        hours,
        hours,
        hours,
        list(runs),
    )


def end_all(shard: Shard, outcome: Outcome = Outcome.SUCCEED) -> list[RunId]:
    ended = []
    while claimed := shard.claim(50):
        for each in claimed:
            shard.end_run(each, outcome, b'{"kind": "app_error", "message": "no"}')
            ended.append(each.result_id)
    return ended


def left(database: Database) -> list[RunId]:
    return [row[0] for row in database.query("SELECT result_id FROM task_runs ORDER BY result_id")]


def test_what_ended_long_ago_goes_and_the_rest_stays(put: Put, shard: Shard, database: Database) -> None:
    old, young = put(2)
    end_all(shard)
    (waiting,) = put(delay_s=60)
    make_old(database, old, waiting)
    assert pruned(database, dry=True) == [old]
    assert left(database) == [old, young, waiting]
    assert pruned(database) == [old]
    assert left(database) == [young, waiting]


def test_each_status_has_its_age(put: Put, shard: Shard, database: Database) -> None:
    (good,) = put()
    end_all(shard)
    (bad,) = put()
    end_all(shard, Outcome.FAIL_FINALLY)
    make_old(database, good, bad)
    assert pruned(database, {RunStatus.SUCCESSFUL: 3600.0, RunStatus.FAILED: 86400.0}) == [good]
    assert pruned(database, {RunStatus.SUCCESSFUL: 0.0}) == []
    assert pruned(database, {RunStatus.FAILED: 3600.0}) == [bad]


def test_batches_go_on_where_the_last_one_ended(put: Put, shard: Shard, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = put(25)
    end_all(shard)
    make_old(database, *runs)
    monkeypatch.setitem(pruning.prune_parameters.__kwdefaults__, "rows", 4)
    assert pruned(database, limit=10) == runs[:10]
    assert pruned(database) == runs[10:]


@pytest.mark.parametrize("field", ["finished_at", "updated_at", "enqueued_at", "started_at"])
def test_the_age_counts_from_the_field_that_was_named(put: Put, shard: Shard, database: Database, field: str) -> None:
    old, young = put(2)
    end_all(shard)
    database.query(f"UPDATE task_runs SET {field} = now() - interval '2 h', rev = rev + 1 WHERE result_id = {old}")
    assert pruned(database, field=field) == [old]
    assert left(database) == [young]


@pytest.mark.parametrize("checked", ["NOT DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_run_that_somebody_has_locked_or_that_others_need_costs_only_itself(
    put: Put, shard: Shard, database: Database, checked: str
) -> None:
    runs = put(4)
    end_all(shard)
    make_old(database, *runs)
    database.query(f"CREATE TABLE invoices (run bigint REFERENCES task_runs {checked})")
    database.query("INSERT INTO invoices VALUES (%s)", runs[1])
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (runs[2],))
        with database.connect() as connection:
            (batch,) = prune(connection, ALL)
    assert ([gone.result_id for gone in batch.gone], batch.left_over) == ([runs[0], runs[3]], 2)


# workflows


def test_a_finished_member_of_a_living_chord_stays(shard: Shard, database: Database) -> None:
    workflow, members, callback = chord(database, 3)
    first, *rest = shard.claim(3)
    shard.succeed(first)
    make_old(database, *members, callback)
    with database.connect() as connection:
        (batch,) = prune(connection, ALL)
    assert (batch.gone, batch.spared) == ([], 1)
    for claimed in rest:
        shard.succeed(claimed)
    assert end_all(shard) == [callback]
    assert flow(database, workflow)[0] == "SUCCESSFUL"


def test_a_workflow_goes_when_all_of_it_may_and_takes_its_row_along(shard: Shard, database: Database) -> None:
    _, members, callback = chord(database, 3)
    end_all(shard)
    make_old(database, *members)
    assert pruned(database) == []
    make_old(database, callback)
    assert pruned(database, dry=True) == [*members, callback]
    assert pruned(database) == [*members, callback]
    assert database.query("SELECT * FROM workflow_runs") == []


def test_a_failed_member_that_is_kept_keeps_those_that_its_retry_needs(shard: Shard, database: Database) -> None:
    _, members, callback = chord(database, 2)
    bad, good = shard.claim(2)
    shard.end_run(bad, Outcome.FAIL_FINALLY, b'{"kind": "app_error", "message": "no"}')
    shard.succeed(good)
    make_old(database, *members, callback)
    assert pruned(database, {RunStatus.SUCCESSFUL: 3600.0, RunStatus.FAILED: 86400.0}) == []
    assert pruned(database) == [*members, callback]


def test_a_chain_goes_whole_also_without_a_workflow(shard: Shard, keeper: Keeper, database: Database) -> None:
    parent = insert(database, "READY", None)
    child = insert(database, "WAITING", None, parent, 1)
    shard.succeed(shard.claim_one())
    make_old(database, parent)
    assert pruned(database) == []
    keeper.run(keeper.store.sweep_flows())
    keeper.run(keeper.store.settle_flows())
    assert end_all(shard) == [child]
    assert pruned(database) == []
    make_old(database, child)
    assert pruned(database) == [parent, child]


def test_a_member_that_is_being_retried_keeps_its_workflow(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    end_all(shard, Outcome.FAIL_FINALLY)
    make_old(database, *runs)
    with database.connect() as other, other.transaction():
        other.execute("SELECT * FROM reproq_retry(%s)", ([runs[0]],))
        assert pruned(database) == []
    assert pruned(database) == []
    assert end_all(shard) == runs
    assert statuses(database, runs) == ["SUCCESSFUL"] * 3


def test_a_workflow_is_counted_once_however_small_the_batches_are(
    shard: Shard, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, members, callback = chord(database, 9)
    end_all(shard)
    make_old(database, *members, callback)
    monkeypatch.setitem(pruning.prune_parameters.__kwdefaults__, "rows", 4)
    assert pruned(database, dry=True) == [*members, callback]
    assert pruned(database) == [*members, callback]


def test_workflows_without_runs_go(database: Database) -> None:
    for hours in (0, 2):
        database.query(
            "INSERT INTO workflow_runs (workflow_id, expected_count, updated_at) VALUES (%s, 1, now() - %s * interval '1 h')",
            uuid4(),
            hours,
        )
    with database.connect() as connection:
        assert prune_flows(connection, {RunStatus.SUCCESSFUL: 3600.0}, "finished_at") == 1


def test_a_prune_that_is_cut_off_is_continued_by_the_next(
    put: Put, shard: Shard, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = put(30)
    end_all(shard)
    make_old(database, *runs)
    monkeypatch.setitem(pruning.prune_parameters.__kwdefaults__, "rows", 10)
    with database.connect() as connection:
        batches = prune(connection, ALL)
        next(batches)
        database.query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(Exception, match=r"57P01|closed|lost"):
            next(batches)
    assert left(database) == runs[10:]
    assert pruned(database) == runs[10:]


# expiry


def expired(database: Database, **options: Any) -> int:
    with database.connect() as connection:
        return sum(expire(connection, **options))


def make_expired(database: Database, *runs: RunId) -> None:
    database.query("UPDATE task_runs SET expires_at = now(), rev = rev + 1 WHERE result_id = ANY (%s)", list(runs))


def test_what_has_expired_ends_wherever_it_waits(put: Put, shard: Shard, database: Database) -> None:
    (ready,) = put()
    (due,) = put(delay_s=3600)
    (paused,) = put(queue_name="paused")
    _, keyed = put(2, lock_key="till", queue_name="keys")
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused) VALUES ('paused', true)")
    database.query("INSERT INTO rate_limits VALUES ('queue:slow', 0.0001, 1, 0)")
    _, rated = put(2, queue_name="slow")
    shard.claim(2, "slow")
    runs = [ready, due, paused, keyed, rated]
    make_expired(database, *runs)
    assert expired(database, dry=True) == 5
    assert expired(database) == 5
    assert {(record(database, run)["status"], record(database, run)["errors_json"][-1]["kind"]) for run in runs} == {("FAILED", "expired")}
    assert {record(database, run)["attempts"] for run in runs} == {0}
    assert expired(database) == 0


def test_what_runs_goes_on_when_its_time_is_over_but_is_not_tried_again(put: Put, shard: Shard, database: Database) -> None:
    first, second = put(2)
    one, other = shard.claim(2)
    make_expired(database, first, second)
    assert expired(database) == 0
    shard.succeed(one)
    shard.fail(other, delay_s=0.0)
    assert shard.claim(2) == ()
    assert statuses(database, [first, second]) == ["SUCCESSFUL", "FAILED"]
    assert [error["kind"] for error in record(database, second)["errors_json"]] == ["app_error", "expired"]


def test_what_waits_for_an_expired_run_fails_with_it(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    workflow, members, callback = chord(database, 2)
    make_expired(database, runs[0], members[1])
    assert expired(database) == 2
    assert statuses(database, [*runs, callback]) == ["FAILED"] * 4
    assert record(database, runs[2])["errors_json"][-1]["kind"] == "parent_failed"
    assert flow(database, workflow)[0] == "FAILED"


def test_a_run_in_a_chain_that_expires_while_it_waits_ends_and_its_parent_does_not(shard: Shard, database: Database) -> None:
    runs = chain(database, 3)
    make_expired(database, runs[1])
    assert expired(database) == 1
    assert statuses(database, runs) == ["READY", "FAILED", "FAILED"]
    assert end_all(shard) == runs[:1]


def test_a_run_expires_at_its_time_and_not_before(put: Put, shard: Shard, database: Database) -> None:
    """The claim and the sweep ask the same: expires_at <= now."""
    (at, later) = put(2)
    database.query("UPDATE task_runs SET expires_at = clock_timestamp(), rev = rev + 1 WHERE result_id = %s", at)
    database.query("UPDATE task_runs SET expires_at = clock_timestamp() + interval '1 h', rev = rev + 1 WHERE result_id = %s", later)
    assert [claimed.result_id for claimed in shard.claim(2)] == [later]
    assert record(database, at)["errors_json"][-1]["kind"] == "expired"


def test_one_that_cannot_end_does_not_keep_the_others(put: Put, database: Database) -> None:
    locked, poisoned, free = put(3)
    make_expired(database, locked, poisoned, free)
    database.query(f"ALTER TABLE task_runs ADD CONSTRAINT no CHECK (result_id <> {poisoned} OR status <> 'FAILED') NOT VALID")
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (locked,))
        assert expired(database) == 1
    assert statuses(database, [locked, poisoned, free]) == ["READY", "READY", "FAILED"]
    assert expired(database) == 1


def test_prune_expired_deletes_what_ended_and_not_what_runs(put: Put, shard: Shard, database: Database) -> None:
    good, running, forever = put(2) + put(1)
    shard.succeed(shard.claim_one())
    shard.claim_one()
    make_expired(database, good, running)
    with database.connect() as connection:
        gone = [each.result_id for batch in prune_expired(connection) for each in batch.gone]
    assert gone == [good]
    assert left(database) == [running, forever]
