"""Sessions whose role, database or server prefers other settings than ours."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reproq_supervisor.client import AsyncClient, Client, NewRun
from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.connect import open_one
from reproq_supervisor.store.enqueue import COPY_FROM
from reproq_supervisor.store.errors import StoreError
from tests.store.actors import Keeper, Shard, ended, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]

_ODD = (
    "-c DateStyle=German -c IntervalStyle=sql_standard -c TimeZone=Asia/Kathmandu -c client_encoding=LATIN1 -c bytea_output=escape "
    "-c default_transaction_isolation=serializable -c standard_conforming_strings=off -c extra_float_digits=-10"
)


@pytest.fixture
def odd_dsn(database: Database) -> str:
    return make_conninfo(database.dsn, options=_ODD)


def test_odd_settings_change_nothing_for_those_who_work(database: Database, odd_dsn: str, put: Put) -> None:
    (id_,) = put(1, args=["5 € \\"], lock_key="a\\'b")
    put(1, delay_s=3600)
    shard, keeper = Shard(odd_dsn), Keeper(odd_dsn)
    with ended(shard), ended(keeper):
        assert keeper.run(keeper.store.schedules.clock()).tzinfo is not None
        (claimed,) = shard.claim(2)
        assert "5 € " in claimed.spec.decode()
        shard.succeed(claimed, value='"6 €"'.encode())
    assert record(database, id_)["return_json"] == "6 €"


def test_odd_settings_change_nothing_for_clients(odd_dsn: str) -> None:
    with Client(odd_dsn) as client:
        id_ = client.enqueue(NewRun("app.task", ["€"], delay_s=3600))
        assert client.result(id_).due_at > client.result(id_).enqueued_at
        client.cancel(id_)
        assert client.result(id_).status is RunStatus.CANCELLED


def test_odd_settings_change_nothing_for_coroutines(odd_dsn: str) -> None:
    async def ask() -> RunStatus:
        async with AsyncClient(odd_dsn) as client:
            return (await client.result(await client.enqueue(NewRun("app.task", ["€"])))).status

    assert asyncio.run(ask()) is RunStatus.READY


@pytest.mark.parametrize("count", [1, COPY_FROM])
def test_a_caller_may_read_times_as_he_likes(database: Database, count: int) -> None:
    with Client(database.dsn) as client, psycopg.connect(database.dsn, options="-c DateStyle=SQL,DMY") as mine:
        ids = client.enqueue_many([NewRun("app.task", [number], delay_s=60) for number in range(count)], connection=mine)
        mine.commit()
        assert len(client.results(ids)) == count


def test_rows_by_copy_say_the_same_in_whatever_the_caller_speaks(database: Database) -> None:
    with Client(database.dsn) as client, psycopg.connect(database.dsn, options="-c client_encoding=LATIN1") as mine:
        ids = client.enqueue_many([NewRun("app.task", ["é", number]) for number in range(COPY_FROM)], connection=mine)
        mine.commit()
    with database.connect() as connection:
        query = "SELECT spec_json #>> '{args,0}' FROM task_runs WHERE result_id = %s"
        assert connection.execute(query, [ids[0]]).fetchone() == ("é",)


@pytest.mark.parametrize("run", [NewRun("app.task", ["€"]), NewRun("app.task", lock_key="€"), NewRun("app.task", ["€"], dedupe=True)])
@pytest.mark.parametrize("autocommit", [False, True])
def test_a_character_that_the_callers_session_has_no_word_for_is_named(database: Database, run: NewRun, autocommit: bool) -> None:
    with Client(database.dsn) as client, psycopg.connect(database.dsn, options="-c client_encoding=LATIN1", autocommit=autocommit) as mine:
        with pytest.raises(StoreError, match=r"expected one with client_encoding UTF8 for this text, got .* for one that speaks iso8859-1"):
            client.enqueue(run, connection=mine)
        # The caller's transaction is as it was.
        id_ = client.enqueue(NewRun("app.task", ["é"]), connection=mine)
        mine.commit()
        assert client.result(id_).status is RunStatus.READY
    assert database.query("SELECT count(*) FROM task_runs") == [(1,)]


def test_transactions_of_ours_see_what_others_commit(odd_dsn: str) -> None:
    with open_one(odd_dsn, application_name="test") as connection, connection.transaction():
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_no_claim_decides_about_a_key_by_what_was_true_before_it_had_its_lock(database: Database, put: Put, level: str) -> None:
    """Under another isolation level two claims of one lock_key could both find it free; behind a pooler nobody can set it."""
    (id_,) = put(1, lock_key="k")
    with database.connect() as connection, connection.transaction():
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="expected isolation level read committed"):
            connection.execute("SELECT * FROM reproq_admit(%s)", [[id_]])
