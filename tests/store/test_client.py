"""The clients on a real database: what is enqueued, in whose transaction, and what comes back."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from reproq_supervisor.client import (
    AsyncClient,
    Client,
    NewRun,
    NotEndedError,
    Progress,
    TaskCancelledError,
    TaskFailedError,
    UnknownRunError,
    WaitTimeoutError,
    chain,
    chord,
    group,
    use,
)
from reproq_supervisor.client.arguments import ArgumentsError
from reproq_supervisor.core.runs import Outcome, RunId, RunStatus
from reproq_supervisor.store.asking import ask, ask_async
from reproq_supervisor.store.commands import CancelOutcome
from reproq_supervisor.store.enqueue import COPY_FROM, enqueuing
from reproq_supervisor.store.errors import StoreError, StoreUnavailable
from reproq_supervisor.store.lending import MOST_LENT, AsyncConnections, Connections
from reproq_supervisor.store.triage import RetryOutcome
from tests.property.test_client_arguments import JSON, TEXTS
from tests.store.actors import Shard, assert_invariant, record
from tests.store.test_connection import renaming_relay
from tests.support.client_tasks import add
from tests.support.postgres import Database

HANG_S = 60


@pytest.fixture
def client(database: Database) -> Iterator[Client]:
    with Client(database.dsn) as client:
        yield client


def run(**parts: Any) -> NewRun:
    return NewRun("app.task", **parts)


def test_a_run_is_enqueued_claimed_and_read(client: Client, shard: Shard) -> None:
    id_ = client.enqueue(run(args=[1, {"a": None}], kwargs={"b": [True]}, queue_name="mail", priority=4))
    assert client.result(id_).status is RunStatus.READY
    (claimed,) = shard.claim(queue="mail")
    assert (claimed.result_id, claimed.priority) == (id_, 4)
    shard.succeed(claimed, b'{"sent": 2}')
    result = client.wait(id_, timeout=HANG_S)
    assert (result.status, result.get(), result.has_ended, result.queue) == (RunStatus.SUCCESSFUL, {"sent": 2}, True, "mail")


@given(st.lists(JSON, max_size=3), st.dictionaries(TEXTS, JSON, max_size=3))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arguments_come_back_equal(client: Client, database: Database, args: list[Any], kwargs: dict[str, Any]) -> None:
    id_ = client.enqueue(run(args=args, kwargs=kwargs))
    spec = record(database, id_)["spec_json"]
    assert rounded(spec["args"]) == rounded(args)
    assert rounded(spec["kwargs"]) == rounded(kwargs)


def rounded(value: Any) -> Any:
    """Return *value* with large numbers as the nearest float: PostgreSQL keeps the digits of 3e16, but not that it is no whole number."""
    match value:
        case list():
            return [rounded(item) for item in value]
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case int() | float() if not isinstance(value, bool) and 1e15 < abs(value) <= sys.float_info.max:
            return float(value)
        case _:
            return value


def test_a_failure_is_raised_where_the_value_is_asked_for(client: Client, shard: Shard) -> None:
    id_ = client.enqueue(run(max_attempts=1))
    with pytest.raises(NotEndedError, match=r"READY; use wait"):
        client.result(id_).get()
    shard.end_run(shard.claim_one(), Outcome.FAIL, b'{"kind": "app_error", "exception_class": "KeyError", "message": "no such"}')
    with pytest.raises(TaskFailedError, match=r"app\.task.*KeyError: no such") as caught:
        client.result(id_).get()
    assert caught.value.error["kind"] == "app_error"


def test_a_failed_run_is_run_once_more(client: Client, shard: Shard, database: Database) -> None:
    id_ = client.enqueue(run(max_attempts=1))
    shard.fail(shard.claim_one())
    assert client.retry(id_).outcome is RetryOutcome.RETRIED
    assert client.retry(id_).outcome is RetryOutcome.ACTIVE
    with psycopg.connect(database.dsn) as connection:
        assert client.retry(4711, connection=connection).outcome is RetryOutcome.UNKNOWN
    shard.succeed(shard.claim_one(), b"2")
    assert client.wait(id_, HANG_S).get() == 2
    assert asyncio.run(_retried(database.dsn, id_)) is RetryOutcome.SUCCEEDED


async def _retried(dsn: str, id_: RunId) -> RetryOutcome:
    async with AsyncClient(dsn) as client:
        return (await client.retry(id_)).outcome


def test_a_waiting_run_is_cancelled_at_once(client: Client) -> None:
    id_ = client.enqueue(run())
    assert client.cancel(id_) is CancelOutcome.CANCELLED
    assert client.cancel(id_) is CancelOutcome.ENDED
    assert client.cancel(4711) is CancelOutcome.UNKNOWN
    with pytest.raises(TaskCancelledError):
        client.result(id_).get()


@pytest.mark.parametrize("count", [0, 1, 3, COPY_FROM - 1, COPY_FROM, COPY_FROM + 1])
def test_any_number_is_inserted_in_order_with_all_their_columns(client: Client, database: Database, count: int) -> None:
    before = datetime.now(UTC)
    parts: dict[str, Any] = {"lock_key": "k", "concurrency_key": "c", "concurrency_limit": 3, "max_attempts": 7, "timeout_seconds": 11}
    ids = client.enqueue_many([run(args=[i, "ü\t\\"], priority=i, delay_s=3600, expires_in_s=7200, **parts) for i in range(count)])
    assert ids == sorted(set(ids))
    rows = database.query("SELECT result_id, (spec_json -> 'args' ->> 0)::int FROM task_runs ORDER BY result_id")
    assert rows == [(id_, i) for i, id_ in enumerate(ids)]
    assert_invariant(database)
    for id_ in ids[-1:]:
        row = record(database, id_)
        assert {name: row[name] for name in parts} == parts
        assert (row["priority"], row["dedupe_key"], row["spec_json"]["args"][1]) == (count - 1, None, "ü\t\\")
        assert timedelta(minutes=59) < row["run_after"] - before < timedelta(minutes=62)
        assert row["expires_at"] - row["run_after"] == timedelta(hours=1)


def test_runs_of_one_content_are_one_while_active_where_they_ask_for_it(client: Client, shard: Shard) -> None:
    first, second = client.enqueue_many([run(dedupe=True), run(dedupe=True)])
    assert first == second == client.enqueue(run(dedupe=True))
    assert client.enqueue(run()) != first
    shard.succeed(shard.claim_one())
    assert client.enqueue(run(dedupe=True)) != first


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("count", [1, COPY_FROM])
def test_what_is_enqueued_on_the_callers_connection_shares_its_transaction(
    client: Client, database: Database, commits: bool, count: int
) -> None:
    with psycopg.connect(database.dsn, row_factory=dict_row) as connection:
        connection.execute("CREATE TABLE orders (id int)")
        ids = client.enqueue_many([run()] * count, connection=connection)
        client.begin(chain(run(), run()), connection=connection)
        assert client.results(ids) == {}
        connection.commit() if commits else connection.rollback()
    assert len(client.results(ids)) == (count if commits else 0)
    assert database.query("SELECT count(*) FROM task_runs") == [(count + 2 if commits else 0,)]


def test_an_error_inside_the_callers_transaction_leaves_the_savepoint_to_the_caller(client: Client, database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        kept = client.enqueue(run(), connection=connection)
        with pytest.raises(ArgumentsError), connection.transaction():
            client.enqueue(run(args=[float("nan")]), connection=connection)
    assert client.result(kept).status is RunStatus.READY


@pytest.mark.parametrize("is_async", [False, True])
def test_a_bulk_that_fails_halfway_leaves_the_callers_transaction_as_it_was(client: Client, database: Database, is_async: bool) -> None:
    """By the client, which looks at arguments, and by the store, which does not."""
    runs = [*[run()] * COPY_FROM, run(args=[object()])]
    with pytest.raises(ArgumentsError, match="expected JSON"):
        client.enqueue_many(runs)

    async def enqueue_async() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
            kept.append((await ask_async(connection, enqueuing([run()])))[0])
            with pytest.raises(TypeError):
                await ask_async(connection, enqueuing(runs))

    kept: list[RunId] = []
    if is_async:
        asyncio.run(enqueue_async())
    else:
        with psycopg.connect(database.dsn) as connection:
            kept += ask(connection, enqueuing([run()]))
            with pytest.raises(TypeError):
                ask(connection, enqueuing(runs))
            with pytest.raises(ArgumentsError):
                client.enqueue_many(runs, connection=connection)
    assert database.query("SELECT result_id FROM task_runs") == [(kept[0],)]
    assert_invariant(database)


_PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%INSERT INTO task_runs%'"


def test_what_comes_again_is_prepared_but_not_behind_a_pooler(database: Database) -> None:
    def prepared(dsn: str) -> int:
        with Client(dsn) as client, client._connections.one() as connection:
            for number in range(10):
                client.enqueue(run(args=[number]), connection=connection)
            ((count,),) = connection.execute(_PREPARED, prepare=False).fetchall()
        return int(count)

    async def prepared_async(dsn: str) -> int:
        async with AsyncClient(dsn) as client, client._connections.one() as connection:
            for number in range(10):
                await client.enqueue(run(args=[number]), connection=connection)
            ((count,),) = await (await connection.execute(_PREPARED, prepare=False)).fetchall()
        return int(count)

    assert prepared(database.dsn) == asyncio.run(prepared_async(database.dsn)) == 1
    with renaming_relay(database.dsn) as dsn:
        assert prepared(dsn) == 0
    with renaming_relay(database.dsn) as dsn:
        assert asyncio.run(prepared_async(dsn)) == 0


def test_a_connection_in_pipeline_mode_is_refused_by_name(client: Client, database: Database) -> None:
    with psycopg.connect(database.dsn) as connection, connection.pipeline(), pytest.raises(StoreError, match="pipeline mode"):
        client.enqueue(run(), connection=connection)


def test_waiting_ends_in_time_or_with_the_run(client: Client, shard: Shard) -> None:
    ids = client.enqueue_many([run(), run()])
    with pytest.raises(WaitTimeoutError, match=r"expected the end within 0.05 s, found READY \(attempt 0 of 3\)") as caught:
        client.wait_all(ids, timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.result_ids == tuple(ids)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.extend(client.wait_all(ids, HANG_S)))
    waiter.start()
    for claimed in shard.claim(2):
        shard.succeed(claimed, b"7")
    waiter.join(HANG_S)
    assert [(result.id, result.get()) for result in found] == [(ids[0], 7), (ids[1], 7)]
    with pytest.raises(UnknownRunError):
        client.wait(4711, timeout=0)


def test_the_time_to_wait_may_be_a_timedelta(client: Client) -> None:
    with pytest.raises(WaitTimeoutError, match=r"within 0\.05 s"):
        client.wait(client.enqueue(run(delay_s=600)), timeout=timedelta(milliseconds=50))


def test_workflows_begin_whole(client: Client, shard: Shard, database: Database) -> None:
    steps = client.begin(chain(run(args=[1]), run(args=[2])))
    assert [client.result(step).status for step in steps] == [RunStatus.READY, RunStatus.WAITING]
    assert client.begin(group()) == client.begin(chain()) == []
    beside = client.begin(group(run(), run()))
    members, callback = client.begin(chord(run(), run(), callback=run(args=["last"])))
    assert client.result(callback).status is RunStatus.WAITING
    _, alone = client.begin(chord(callback=run()))
    ended: list[RunId] = []
    while claimed := shard.claim(10):
        for each in claimed:
            shard.succeed(each)
            ended.append(each.result_id)
    assert sorted(ended) == sorted([*steps, *beside, *members, callback, alone])
    assert ended.index(steps[0]) < ended.index(steps[1])
    assert max(map(ended.index, members)) < ended.index(callback)
    assert database.query("SELECT status FROM workflow_runs") == [("SUCCESSFUL",)] * 2
    assert_invariant(database)


def test_the_failure_of_a_member_reaches_the_callback(client: Client, shard: Shard) -> None:
    _, callback = client.begin(chord(run(max_attempts=1), callback=run()))
    shard.end_run(shard.claim_one(), Outcome.FAIL, b'{"kind": "app_error", "message": "no"}')
    assert client.wait(callback, HANG_S).errors[-1]["kind"] == "workflow_failed"


def test_a_workflow_takes_no_run_that_may_turn_out_to_be_another(client: Client) -> None:
    with pytest.raises(ArgumentsError, match="without dedupe"):
        client.begin(group(run(dedupe=True)))


def test_progress_is_read_whatever_else_stands_there(client: Client, database: Database) -> None:
    id_ = client.enqueue(run())
    for metadata, expected in (
        ('{"progress": {"done": 3, "total": 10, "message": "rows"}}', Progress(3, 10, "rows")),
        ('{"progress": {"done": 0.5, "total": "many"}}', Progress(0.5)),
        ('{"progress": "half"}', None),
        ('{"progress": {"done": true}}', None),
        ("[]", None),
    ):
        database.query("UPDATE task_runs SET metadata_json = %s WHERE result_id = %s", metadata, id_)
        assert client.result(id_).progress == expected


def test_a_connection_that_the_server_ended_is_not_lent_again(client: Client, database: Database) -> None:
    id_ = client.enqueue(run())
    database.query("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'reproq client'")
    assert client.result(id_).id == id_


def test_threads_share_a_client_and_leave_few_connections(client: Client, database: Database) -> None:
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(HANG_S)
        for _ in range(5):
            client.enqueue(run())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert client.stats().queues["default"].ready == 40
    client.close()


def test_a_crowd_of_threads_waits_for_the_connections_that_there_are(database: Database) -> None:
    lending = Connections(database.dsn, "test")

    def take() -> None:
        with lending.one():
            pass

    late = threading.Thread(target=take, daemon=True)
    with ExitStack() as stack:
        for _ in range(MOST_LENT):
            stack.enter_context(lending.one())
        late.start()
        late.join(0.3)
        assert late.is_alive()
    late.join(HANG_S)
    assert not late.is_alive()
    lending.close()


def test_a_crowd_of_coroutines_waits_for_the_connections_that_there_are(database: Database) -> None:
    async def story() -> None:
        lending = AsyncConnections(database.dsn, "test")

        async def take() -> None:
            async with lending.one():
                pass

        async with AsyncExitStack() as stack:
            for _ in range(MOST_LENT):
                await stack.enter_async_context(lending.one())
            late = asyncio.create_task(take())
            assert not (await asyncio.wait([late], timeout=0.3))[0]
        await asyncio.wait_for(late, HANG_S)
        await lending.close()

    asyncio.run(story())


@pytest.mark.parametrize("wrong", ["{id}", None, 1.0, True, 2**70])
def test_what_is_no_id_is_not_taken_for_a_run_that_is_gone(client: Client, wrong: Any) -> None:
    """Ids as text, as they stand in a URL, were found and not recognised: `found none; it may have been pruned`."""
    id_ = client.enqueue(run())
    given: Any = wrong.format(id=id_) if isinstance(wrong, str) else wrong
    for question in (client.result, client.wait, client.cancel, client.retry, lambda run: client.results([run])):
        with pytest.raises(ArgumentsError, match="id of a run: expected a whole number, got"):
            question(given)
    assert client.result(id_).status is RunStatus.READY


def test_runs_may_come_one_by_one(client: Client) -> None:
    ids = client.enqueue_many(run() for _ in range(3))
    assert len(client.results(id_ for id_ in ids)) == 3


def test_a_database_that_is_away_says_to_try_again(tmp_path: Any) -> None:
    with Client(f"postgresql://nobody@/none?host={tmp_path}") as client, pytest.raises(StoreUnavailable):
        client.enqueue(run())


def test_coroutines_ask_the_same(database: Database, shard: Shard) -> None:
    async def story() -> None:
        async with AsyncClient(database.dsn) as client:
            first, second = await client.enqueue_many([run(), run()])
            assert len(await client.enqueue_many([run(queue_name="bulk")] * COPY_FROM)) == COPY_FROM
            assert await client.cancel(second) is CancelOutcome.CANCELLED
            waiting = asyncio.create_task(client.wait(first, HANG_S))
            await asyncio.to_thread(lambda: shard.succeed(shard.claim_one(), b'"done"'))
            assert (await waiting).get() == "done"
            assert (await client.result(second)).status is RunStatus.CANCELLED
            with pytest.raises(WaitTimeoutError):
                await client.wait(await client.enqueue(run()), timeout=0.05)
            async with await psycopg.AsyncConnection.connect(database.dsn, row_factory=dict_row) as connection:
                lost, _ = await client.begin(chord(run(), callback=run()), connection=connection)
                await connection.rollback()
            assert await client.results(lost) == {}
            assert (await client.stats()).queues["bulk"].ready == COPY_FROM

    asyncio.run(story())


def test_every_event_loop_has_connections_of_its_own(database: Database) -> None:
    client = AsyncClient(database.dsn)

    async def enqueue() -> RunId:
        async with client:
            return await client.enqueue(run())

    assert len({asyncio.run(enqueue()) for _ in range(3)}) == 3


def test_a_task_is_enqueued_by_the_client_in_use(client: Client, database: Database, shard: Shard) -> None:
    async def from_coroutines() -> None:
        async with AsyncClient(database.dsn) as client:
            use(client)
            await add.aenqueue(6)
            async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
                await add.aenqueue_in(connection, 7)

    use(client)
    try:
        add.enqueue(1, b=2)
        add.enqueue_many([(3,), {"a": 4, "b": 5}])
        with psycopg.connect(database.dsn) as connection:
            add.enqueue_in(connection, 8)
            connection.rollback()
        asyncio.run(from_coroutines())
    finally:
        use(None)
    specs = [json.loads(claimed.spec) for claimed in shard.claim(9)]
    assert [(spec["args"], spec["kwargs"]) for spec in specs] == [([1], {"b": 2}), ([3], {}), ([], {"a": 4, "b": 5}), ([6], {}), ([7], {})]


@pytest.mark.parametrize("count", [1, 2, COPY_FROM])
def test_every_form_of_insert_stores_the_same(client: Client, database: Database, count: int) -> None:
    signs = "\t\n\r\b\f\v\\N \\. \\n \\\\ \"' {} ü 🂡 \x7f \u2028"
    at = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    nasty = run(
        args=[signs, [None, "\\"], -0.5],
        kwargs={signs: {"x": signs}},
        queue_name=signs,
        priority=-7,
        run_after=at,
        expires_in_s=1e6,
        max_attempts=4,
        timeout_seconds=5,
        lock_key=signs,
        concurrency_key="\\N",
        concurrency_limit=3,
        backend_alias=signs,
    )
    plain = run(lock_key=None, delay_s=3600.0)
    ids = client.enqueue_many([nasty, plain][:count] + [plain] * max(0, count - 2))
    stored = record(database, ids[0])
    assert stored["spec_json"] == json.loads(nasty.spec())
    assert {name: stored[name] for name in ("queue_name", "lock_key", "backend_alias")} == dict.fromkeys(
        ("queue_name", "lock_key", "backend_alias"), signs
    )
    assert (stored["concurrency_key"], stored["concurrency_limit"], stored["priority"], stored["run_after"]) == ("\\N", 3, -7, at)
    assert (stored["max_attempts"], stored["timeout_seconds"], stored["task_path"], stored["dedupe_key"]) == (4, 5, "app.task", None)
    assert timedelta(seconds=1e6 - 60) < stored["expires_at"] - stored["enqueued_at"] <= timedelta(seconds=1e6)
    if count > 1:
        other = record(database, ids[-1])
        assert (other["lock_key"], other["expires_at"]) == (None, None)
        assert other["run_after"] - other["enqueued_at"] == timedelta(hours=1)
    assert_invariant(database)
