"""Runs of the same content that were to be one: at most one that has not ended, whoever enqueues, whenever, in whatever transaction."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Shard, assert_invariant
from tests.store.test_concurrency import in_processes
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
TWIN = NewRun("app.task", ["twin"], dedupe=True)


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def twin(database: Database, **parts: Any) -> RunId:
    with database.connect() as connection:
        return enqueue(connection, [NewRun("app.task", ["twin"], dedupe=True, **parts)])[0]


def active(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*) FROM task_runs WHERE status IN ('READY', 'RUNNING')")
    return int(count)


@pytest.mark.parametrize(
    "state", ["ready", "claimed", "shown as running", "parked until it is due", "parked on a key", "parked to be retried"]
)
def test_a_twin_finds_the_run_wherever_that_is(shard: Shard, database: Database, state: str) -> None:
    parts: dict[str, Any] = {}
    match state:
        case "parked until it is due":
            parts = {"delay_s": 3600}
        case "parked on a key":
            parts = {"lock_key": "till"}
            with database.connect() as connection:
                enqueue(connection, [NewRun("app.other", lock_key="till")])
            shard.claim_one()
    run = twin(database, **parts)
    match state:
        case "claimed":
            shard.claim_one()
        case "shown as running":
            shard.show(shard.claim_one())
        case "parked to be retried":
            shard.fail(shard.claim_one(), delay_s=3600)
        case "parked on a key":
            assert shard.claim(9) == ()
    assert twin(database, **parts) == run


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_after_its_end_a_twin_is_a_new_run(shard: Shard, database: Database, end: str) -> None:
    run = twin(database)
    match end:
        case "succeeded":
            shard.succeed(shard.claim_one())
        case "failed":
            database.query("UPDATE task_lane SET max_attempts = 1")
            shard.fail(shard.claim_one())
        case _:
            database.query("SELECT * FROM reproq_cancel(%s)", [run])
    assert twin(database) == run + 1


def test_a_run_that_was_rolled_back_is_no_twin(database: Database) -> None:
    with database.connect() as connection:
        with connection.transaction(force_rollback=True):
            (first,) = enqueue(connection, [TWIN])
            assert enqueue(connection, [TWIN]) == [first]
        (second,) = enqueue(connection, [TWIN])
        assert enqueue(connection, [TWIN]) == [second]
    assert active(database) == 1


def test_in_a_transaction_that_goes_on_a_twin_is_found_without_an_error(database: Database) -> None:
    run = twin(database)
    with database.connect(autocommit=False) as connection:
        assert enqueue(connection, [TWIN]) == [run]
        connection.execute("CREATE TABLE kept ()")
        connection.commit()
    assert database.query("SELECT * FROM kept") == []


def test_a_transaction_that_has_failed_says_so_and_enqueues_nothing(database: Database) -> None:
    with database.connect(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(Exception, match="25P02"):
            enqueue(connection, [TWIN])
        connection.rollback()
        enqueue(connection, [TWIN])
        connection.commit()
    assert active(database) == 1


def test_twins_within_one_call_are_one_run(database: Database) -> None:
    with database.connect() as connection:
        runs = enqueue(connection, [TWIN, NewRun("app.other"), TWIN, NewRun("app.task", ["twin"])])
    assert runs[0] == runs[2]
    assert len(set(runs)) == 3


def enqueue_often(dsn: str, times: int) -> list[int]:
    """Enqueue the twin again and again, in transactions of which every third is rolled back."""
    import psycopg

    from reproq_supervisor.store.enqueue import enqueue
    from tests.store.test_dedupe import TWIN

    seen = []
    with psycopg.connect(dsn) as connection:
        for n in range(times):
            (run,) = enqueue(connection, [TWIN])
            if n % 3 == 2:
                connection.rollback()
            else:
                connection.commit()
                seen.append(int(run))
    return seen


def test_sixteen_processes_that_enqueue_one_content_make_one_run(database: Database) -> None:
    answers = in_processes(enqueue_often, [(database.dsn, 20)] * 16)
    ((run,),) = database.query("SELECT result_id FROM task_runs")
    assert {seen for answer in answers for seen in answer} == {run}


# the forms of plain SQL, each with two rows of one hash

FORMS = {
    "ON CONFLICT DO NOTHING": 1,
    "ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING": 1,
    "ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO UPDATE SET updated_at = now()": 1,
    "": "23505",
    "ON CONFLICT (spec_hash) WHERE status IN ('READY', 'RUNNING') DO NOTHING": "42P10",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_conflict_does_what_the_manual_says(database: Database, form: str) -> None:
    statement = f"INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{{}}', 'same', 'app.task') {form}".encode()
    with database.connect() as connection:
        if isinstance(FORMS[form], int):
            connection.execute(statement)
            connection.execute(statement)
        else:
            with pytest.raises(psycopg.Error) as caught:
                for _ in range(2):
                    connection.execute(statement)
            assert caught.value.sqlstate == FORMS[form]
    assert active(database) == (0 if FORMS[form] == "42P10" else 1)
