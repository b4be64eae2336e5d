"""PostgreSQL refuses to write one run, whatever by: that costs the run a while, and nobody else anything."""

from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import Claimed, Ending, Note, Outcome, RunId, RunStatus, Started
from reproq_supervisor.store.commands import CancelOutcome, cancel
from reproq_supervisor.store.completing import Completing, Ended, Lease
from reproq_supervisor.store.errors import StoreError
from reproq_supervisor.store.pruning import expire
from reproq_supervisor.store.triage import retry
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.store.test_flows import chain
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]

MISSING_TABLE = "INSERT INTO audit SELECT NEW.result_id;"
TROUBLES = {
    "42P01": MISSING_TABLE,
    "42883": "PERFORM function_of_ours(NEW.result_id);",
    "42501": "RAISE insufficient_privilege USING MESSAGE = 'permission denied for table audit';",
    "08001": "RAISE EXCEPTION 'the other server does not answer' USING ERRCODE = '08001';",
    "25006": "RAISE EXCEPTION 'read only' USING ERRCODE = '25006';",
    "40001": "RAISE serialization_failure;",
    "40P01": "RAISE deadlock_detected;",
    "53100": "RAISE disk_full;",
    "P0001": "RAISE EXCEPTION 'we do not want %', NEW.return_json;",
    "P0004": "ASSERT false, 'never';",
    "22012": "PERFORM 1 / (NEW.result_id - NEW.result_id);",
    "23514": "RAISE check_violation;",
    "XX000": "RAISE internal_error;",
}
every_trouble = pytest.mark.parametrize("trouble", TROUBLES)


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def poison(database: Database, run: RunId, trouble: str, when: str = "true") -> None:
    """Have a trigger refuse every change of *run* for which *when* holds."""
    database.query(
        f"""CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.result_id = {run} AND {when} THEN {TROUBLES[trouble]} END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION refuse()")


def mend(database: Database) -> None:
    database.query("DROP TRIGGER refuse ON task_runs")


def endings(*claims: Claimed, outcome: Outcome = Outcome.SUCCEED) -> tuple[Ending, ...]:
    return tuple(Ending(c.result_id, c.lease_no, outcome, f'"of {c.result_id}"'.encode(), started_s_ago=0.01) for c in claims)


@every_trouble
def test_an_end_that_is_refused_is_kept_and_those_beside_it_are_written(put: Put, shard: Shard, database: Database, trouble: str) -> None:
    put(3)
    claims = shard.claim(3)
    poisoned = claims[1].result_id
    poison(database, poisoned, trouble)
    for _ in range(2):
        reply = shard.cycle(endings=endings(*claims))
        assert list(reply.refused) == [poisoned]
        assert reply.refused[poisoned].startswith(trouble)
        assert reply.ended == {c.result_id: RunStatus.SUCCESSFUL for c in claims if c.result_id != poisoned}
        assert (reply.lost, reply.busy) == (frozenset(), frozenset())
        assert lane(database, poisoned)["leased_by"] == shard.worker_id  # type: ignore[index]
    mend(database)
    assert shard.cycle(endings=endings(claims[1])).ended == {poisoned: RunStatus.SUCCESSFUL}
    assert record(database, poisoned)["return_json"] == f"of {poisoned}"


def test_what_was_to_be_written_is_not_quoted(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    poison(database, claimed.result_id, "P0001")
    assert shard.cycle(endings=endings(claimed)).refused == {claimed.result_id: "P0001"}


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.FAIL_FINALLY, Outcome.CANCEL, Outcome.RELEASE, Outcome.PUT_BACK])
def test_ends_of_every_kind_are_kept(put: Put, shard: Shard, database: Database, outcome: Outcome) -> None:
    put(2)
    claims = shard.claim(2)
    poison(database, claims[0].result_id, "42P01")
    reply = shard.cycle(endings=endings(*claims, outcome=outcome))
    assert (set(reply.refused), set(reply.ended)) == ({claims[0].result_id}, {claims[1].result_id})
    mend(database)
    reply = shard.cycle(endings=endings(claims[0], outcome=outcome))
    assert list(reply.ended) == [claims[0].result_id]


def test_a_value_that_is_refused_is_a_verdict_where_its_failure_can_be_written(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    poison(database, claimed.result_id, "P0001", "NEW.status = 'SUCCESSFUL'")
    assert shard.cycle(endings=endings(claimed)).ended == {claimed.result_id: RunStatus.FAILED}


def test_a_right_that_is_missing_is_none_though_its_failure_could_be_written(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    poison(database, claimed.result_id, "42501", "NEW.status = 'SUCCESSFUL'")
    reply = shard.cycle(endings=endings(claimed))
    assert reply.refused == {claimed.result_id: "42501: permission denied for table audit"}


def test_all_that_a_cycle_ends_may_be_refused(put: Put, shard: Shard, database: Database) -> None:
    runs = put(30)
    claims = shard.claim(30)
    database.query(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {MISSING_TABLE} RETURN NEW; END $$")
    database.query("CREATE TRIGGER refuse BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert set(shard.cycle(endings=endings(*claims)).refused) == set(runs)
    database.query("CREATE TABLE audit (run bigint)")
    assert set(shard.cycle(endings=endings(*claims)).ended) == set(runs)


def test_what_would_be_refused_at_the_commit_costs_only_itself_too(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    runs = put(8)
    ended, shown, expired, dead = (shard.claim(2) for _ in range(4))
    poisoned = {claims[0].result_id for claims in (ended, shown, expired, dead)}
    database.query(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {MISSING_TABLE} RETURN NULL; END $$")
    database.query(
        f"""CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON task_runs DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.result_id IN ({",".join(map(str, poisoned))})) EXECUTE FUNCTION refuse()"""
    )
    reply = shard.cycle(endings=endings(*ended))
    assert (set(reply.refused), set(reply.ended)) == ({runs[0]}, {runs[1]})
    reply = shard.cycle(started=tuple(Started(each.result_id, each.lease_no, 1.0) for each in shown))
    assert set(reply.refused) == {runs[2]}
    assert [record(database, run)["status"] for run in runs[2:4]] == ["READY", "RUNNING"]
    database.query("UPDATE task_lane SET leased_until = now() - interval '1 s' WHERE result_id = ANY (%s)", runs[4:6])
    assert keeper.run(keeper.store.reclaim()) == 1
    assert keeper.run(keeper.store.release_workers([shard.worker_id])) == 2
    assert {row[0] for row in database.query("SELECT result_id FROM task_lane WHERE leased_by IS NOT NULL")} == poisoned


@every_trouble
def test_a_start_that_is_refused_stops_neither_others_nor_ends(put: Put, shard: Shard, database: Database, trouble: str) -> None:
    put(3)
    first, second, third = shard.claim(3)
    poison(database, first.result_id, trouble, "NEW.status = 'RUNNING'")
    starts = tuple(Started(each.result_id, each.lease_no, 1.0) for each in (first, second))
    reply = shard.cycle(started=starts, endings=endings(third))
    assert (list(reply.refused), list(reply.ended)) == ([first.result_id], [third.result_id])
    assert [record(database, each.result_id)["status"] for each in (first, second)] == ["READY", "RUNNING"]
    assert set(shard.cycle(endings=endings(first, second)).ended) == {first.result_id, second.result_id}


def test_a_note_that_is_refused_holds_nothing_up(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    claims = shard.claim(2)
    poison(database, claims[0].result_id, "42P01", "NEW.metadata_json <> '{}'")
    notes = [Note(each.result_id, each.lease_no, b'{"at": 1}') for each in claims]
    assert shard.run(shard.store.note(notes)) == frozenset()
    assert [record(database, each.result_id)["metadata_json"] for each in claims] == [{}, {"at": 1}]


@pytest.mark.parametrize("keys", [{"lock_key": "one"}, {"concurrency_key": "few", "concurrency_limit": 1}])
@pytest.mark.parametrize("state", ["ready", "parked"])
def test_a_cancellation_that_is_refused_leaves_its_run_as_it_was(
    put: Put, shard: Shard, keeper: Keeper, database: Database, keys: dict[str, Any], state: str
) -> None:
    """Taken for an expired lease it would be given back without its keys, and run beside their holder."""
    put(**keys)
    held = shard.claim_one()
    (poisoned, other) = put(2, **keys)
    if state == "parked":
        assert shard.claim(2) == ()
    before = lane(database, poisoned)
    assert before is not None
    assert before["state"] == state
    poison(database, poisoned, "42P01")
    with database.connect() as connection:
        assert cancel(connection, [poisoned, other]) == {poisoned: CancelOutcome.REQUESTED, other: CancelOutcome.CANCELLED}
    after = lane(database, poisoned)
    assert after is not None
    assert after | {"lease_no": 0} == before | {"lease_no": 0}
    assert keeper.run(keeper.store.reclaim()) == 0
    mend(database)
    shard.succeed(held)
    assert shard.claim(5) == ()
    assert record(database, poisoned)["status"] == "CANCELLED"


def test_what_shall_not_run_and_cannot_be_ended_waits_for_longer(put: Put, shard: Shard, database: Database) -> None:
    poisoned, well = put(2)
    database.query("UPDATE task_runs SET rev = rev + 1, expires_at = now() - interval '1 s' WHERE result_id = %s", poisoned)
    poison(database, poisoned, "42P01")
    assert [each.result_id for each in shard.claim(2)] == [well]
    ((seconds,),) = database.query("SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM task_lane WHERE state = 'parked'")
    assert 5 < seconds <= 60


@every_trouble
def test_an_expired_lease_that_cannot_be_taken_back_stops_no_other(
    put: Put, shard: Shard, keeper: Keeper, database: Database, trouble: str
) -> None:
    put(3)
    claims = shard.claim(3)
    poison(database, claims[1].result_id, trouble)
    database.query("UPDATE task_lane SET leased_until = now() - interval '1 s'")
    assert keeper.run(keeper.store.reclaim()) == 2
    assert keeper.run(keeper.store.reclaim()) == 0
    mend(database)
    database.query("UPDATE task_lane SET leased_until = now() - interval '1 s' WHERE state = 'running'")
    assert keeper.run(keeper.store.reclaim()) == 1


def test_dead_workers_runs_are_released_beside_one_that_cannot_be(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    put(3)
    claims = shard.claim(3)
    poison(database, claims[1].result_id, "42P01")
    assert keeper.run(keeper.store.release_workers([shard.worker_id])) == 2
    mend(database)
    assert keeper.run(keeper.store.release_workers([shard.worker_id])) == 1


@every_trouble
def test_one_that_cannot_expire_does_not_keep_the_others(put: Put, database: Database, trouble: str) -> None:
    runs = put(3)
    database.query("UPDATE task_runs SET expires_at = now(), rev = rev + 1")
    poison(database, runs[1], trouble)
    with database.connect() as connection:
        assert sum(expire(connection)) == 2
    assert lane(database, runs[1])["state"] == "ready"  # type: ignore[index]
    mend(database)
    with database.connect() as connection:
        assert sum(expire(connection)) == 1


@every_trouble
@pytest.mark.parametrize("ends_well", [True, False])
def test_a_workflow_that_is_refused_stops_no_other(shard: Shard, keeper: Keeper, database: Database, trouble: str, ends_well: bool) -> None:
    bad, good = chain(database, 2), chain(database, 2)
    poison(database, bad[1], trouble)
    claims = shard.claim(9)
    outcome = Outcome.SUCCEED if ends_well else Outcome.FAIL_FINALLY
    assert set(shard.cycle(endings=endings(*claims, outcome=outcome)).ended) == {bad[0], good[0]}
    assert record(database, good[1])["status"] == ("READY" if ends_well else "FAILED")
    assert record(database, bad[1])["status"] == "WAITING"
    mend(database)
    keeper.run(keeper.store.sweep_flows())
    keeper.run(keeper.store.settle_flows())
    assert record(database, bad[1])["status"] == ("READY" if ends_well else "FAILED")


@every_trouble
def test_a_retry_that_is_refused_costs_the_others_nothing(put: Put, shard: Shard, database: Database, trouble: str) -> None:
    runs = put(3)
    shard.cycle(endings=endings(*shard.claim(3), outcome=Outcome.FAIL_FINALLY))
    poison(database, runs[1], trouble)
    with database.connect() as connection:
        assert [each.outcome for each in retry(connection, runs)] == ["retried", "refused", "retried"]


def test_a_run_that_completes_itself_is_told_that_its_end_is_refused(put: Put, shard: Shard, database: Database) -> None:
    put()
    claimed = shard.claim_one()
    poison(database, claimed.result_id, "42P01")
    lease = Lease(shard.worker_id, claimed.result_id, claimed.lease_no)
    database.query("CREATE TABLE effects (run bigint)")
    completing = Completing(database.dsn, lease)
    completing.connection.execute("INSERT INTO effects VALUES (1)")
    with pytest.raises(StoreError, match='is refused: 42P01: relation "audit" does not exist'):
        completing.finish(Ended(b"1", 0.01, None))
    completing.close()
    assert database.query("SELECT * FROM effects") == []
    mend(database)
    assert shard.fail(claimed).ended == {claimed.result_id: RunStatus.READY}
