"""What happens to a connection when the network, the server or the caller gives up."""

import asyncio
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reproq_supervisor.core.runs import CycleRequest, Ending, Outcome, RunId
from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.errors import SchemaOutdated, StoreError, StoreUnavailable, translate
from reproq_supervisor.store.shard import ShardStore
from tests.store.actors import Keeper, Shard, ended, record
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

Put = Callable[..., list[RunId]]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (psycopg.OperationalError("connection refused"), StoreUnavailable),
        (psycopg.errors.ConnectionFailure("x"), StoreUnavailable),
        (psycopg.errors.AdminShutdown("x"), StoreUnavailable),
        (psycopg.errors.TooManyConnections("x"), StoreUnavailable),
        (psycopg.errors.DeadlockDetected("x"), StoreUnavailable),
        (psycopg.errors.SerializationFailure("x"), StoreUnavailable),
        (psycopg.errors.DiskFull("x"), StoreUnavailable),
        (psycopg.errors.QueryCanceled("x"), StoreUnavailable),
        (psycopg.errors.ReadOnlySqlTransaction("x"), StoreUnavailable),
        (psycopg.errors.LockNotAvailable("x"), StoreUnavailable),
        (psycopg.errors.UndefinedTable("x"), SchemaOutdated),
        (psycopg.errors.UndefinedFunction("x"), SchemaOutdated),
        (psycopg.errors.UniqueViolation("x"), StoreError),
        (psycopg.errors.SyntaxError("x"), StoreError),
        (psycopg.errors.InternalError_("x"), StoreError),
        (psycopg.DataError("x"), StoreError),
    ],
)
def test_an_error_of_the_database_says_what_to_do(error: psycopg.Error, meaning: type[Exception]) -> None:
    translated = translate(error)
    assert type(translated) is meaning
    assert str(pickle.loads(pickle.dumps(translated))) == str(translated)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        Shard("host=127.0.0.1 port=1 dbname=nothing")


def test_a_database_without_our_schema_is_named(empty_database: Database) -> None:
    shard = Shard(empty_database.dsn)
    with ended(shard), pytest.raises(SchemaOutdated, match="reproq-supervisor migrate"):
        shard.claim(1)


def test_a_connection_that_was_cut_says_so_and_stays_closed(shard: Shard, database: Database) -> None:
    cut(database)
    with pytest.raises(StoreUnavailable):
        shard.claim(1)
    assert shard.store.closed
    with pytest.raises(StoreUnavailable, match="connect again"):
        shard.claim(1)


def cut(database: Database) -> None:
    database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reproq'"
    )


def test_an_error_in_a_statement_leaves_the_connection_usable(shard: Shard, put: Put, database: Database) -> None:
    database.query("ALTER FUNCTION reproq_claim RENAME TO hidden")
    with pytest.raises(StoreError):
        shard.claim(1)
    database.query("ALTER FUNCTION hidden RENAME TO reproq_claim")
    put()
    assert len(shard.claim(1)) == 1


def test_a_call_that_is_given_up_leaves_nothing_half_read(put: Put, shard: Shard, database: Database) -> None:
    put(2)
    first, _ = claims = shard.claim(2)

    async def give_up() -> None:
        async with asyncio.timeout(0.2):
            await shard.store.cycle(CycleRequest(60, renew=tuple((c.result_id, c.lease_no) for c in claims)))

    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT FROM task_lane WHERE result_id = %s FOR UPDATE", (first.result_id,))
        with pytest.raises(TimeoutError):
            shard.run(give_up())
    if shard.store.closed:
        return
    assert shard.renew(first).lost == frozenset()


def test_a_cycle_and_somebody_who_locks_in_another_order_both_come_through(put: Put, database: Database) -> None:
    first, second = put(2)
    shard = Shard(database.dsn)
    with ended(shard), database.connect(autocommit=False) as other, ThreadPoolExecutor() as pool:
        endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"1") for c in shard.claim(2))
        other.execute("SET deadlock_timeout = '1min'")
        other.execute("UPDATE task_runs SET metadata_json = '{}' WHERE result_id = %s", (second,))
        cycle = pool.submit(shard.cycle, endings=endings)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        eventually(lambda: database.query(waiting) or cycle.done(), interval=0.005, what="the cycle waits for the second record")
        # Now the circle closes, and nobody is its victim: the cycle gives up one wait, and keeps what it can have.
        other.execute("UPDATE task_runs SET metadata_json = '{}' WHERE result_id = %s", (first,))
        other.commit()
        reply = cycle.result(timeout=30)
        assert set(reply.ended) | reply.busy == {first, second}
        later = shard.cycle(endings=tuple(e for e in endings if e.result_id in reply.busy))
        assert set(reply.ended) | set(later.ended) == {first, second}


def test_two_shards_on_one_event_loop(put: Put, database: Database, shard: Shard) -> None:
    put(20)

    async def both() -> list[int]:
        stores = [await ShardStore.connect(database.dsn, f"worker-{n}", application_name="both") for n in range(2)]
        request = CycleRequest(60, claims=(("default", 10),))
        replies = await asyncio.gather(*(store.cycle(request) for store in stores))
        for store in stores:
            await store.close()
        return [len(reply.claimed) for reply in replies]

    assert sum(shard.run(both())) == 20


def test_without_prepared_statements_everything_works_too(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    shard = shard_of(prepare=False)
    put(10)
    for _ in range(10):
        shard.succeed(shard.claim_one())
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'").fetchone() == (10,)
    # What the server knows of this session: nothing that a pooler would have to keep.
    rows = shard.run(shard.store._connection._connection.execute("SELECT count(*) FROM pg_prepared_statements"))
    assert shard.run(rows.fetchone()) == (0,)


def test_behind_a_pooler_nothing_is_prepared_even_by_default(shard_of: Callable[..., Shard], database: Database) -> None:
    def prepared(shard: Shard) -> int:
        shard.claim(1)
        cursor = shard.run(shard.store._connection._connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False))
        (row,) = shard.run(cursor.fetchall())
        return int(row[0])

    assert prepared(shard_of()) > 0
    with renaming_relay(database.dsn) as dsn, ended(pooled := Shard(dsn)):
        assert prepared(pooled) == 0


def test_every_call_leaves_no_state_in_its_session(put: Put, shard: Shard, keeper: Keeper) -> None:
    put(3)
    shard.fail(shard.claim_one())
    shard.show(shard.claim_one())
    shard.settle_idle()
    keeper.run(keeper.store.reclaim())
    cursor = shard.run(
        shard.store._connection._connection.execute(
            """SELECT (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
                      (SELECT count(*) FROM pg_settings WHERE source = 'session'),
                      (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),
                      (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable)"""
        )
    )
    assert shard.run(cursor.fetchone()) == (0, 0, 0, 0, 0)


class Pooled:
    """Gives every call to another session, as a transaction pooler may."""

    def __init__(self, sessions: list[StoreConnection]) -> None:
        self._sessions = sessions
        self.calls = 0

    async def ask(self, table: str, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.calls += 1
        return await self._sessions[self.calls % len(self._sessions)].ask(table, name, parameters)

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()


def test_every_call_may_go_to_another_session(put: Put, database: Database) -> None:
    async def sessions() -> list[StoreConnection]:
        return [await StoreConnection.open(database.dsn, application_name="pooled", prepare=False) for _ in range(3)]

    shard = Shard(database.dsn)
    with ended(shard):
        pooled: Any = Pooled(shard.run(sessions()))
        shard.run(shard.store.close())
        shard.store = ShardStore(pooled, "worker-1")
        put(8)
        first, second, third, fourth = shard.claim(4)
        assert len(shard.held(first, second, third, fourth)) == 4
        assert shard.renew(first).lost == shard.show(second).lost == frozenset()
        assert [shard.succeed(first).ended, shard.fail(second).ended, shard.release(third).ended] == [
            {first.result_id: "SUCCESSFUL"},
            {second.result_id: "READY"},
            {third.result_id: "READY"},
        ]
        assert len(shard.claim(10)) == 5
        eventually(lambda: shard.settle_idle() == 0, what="the last look")
        put()
        assert len(shard.claim(10)) == 1
        assert database.query("SELECT 1 FROM reproq_queue_idle") == []
        assert pooled.calls > 9


def test_a_crash_of_the_server_is_survived_and_endings_are_sent_again(own_cluster: Cluster, own_database: Database) -> None:
    own_database.query("INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{}', 'a', 'app.task')")
    shard = Shard(own_database.dsn)
    with ended(shard):
        shard.settle_idle()
        claimed = shard.claim_one()
        shard.renew(claimed)  # a later commit, whose wait for the disk covers the claim's
        own_database.query("CHECKPOINT")
        own_cluster.kill()
        with pytest.raises(StoreUnavailable):
            shard.succeed(claimed)
        own_cluster.start()
        shard.store = eventually_connected(shard, own_database)
        assert shard.held(claimed)
        assert shard.succeed(claimed, b'"at last"').ended
    assert record(own_database, claimed.result_id)["return_json"] == "at last"
    assert own_database.query("SELECT 1 FROM reproq_queue_idle") == []


def eventually_connected(shard: Shard, database: Database) -> ShardStore:
    def connected() -> ShardStore | None:
        try:
            return shard.run(ShardStore.connect(database.dsn, shard.worker_id))
        except StoreUnavailable:
            return None

    store = eventually(connected, what="a connection")
    assert store is not None
    return store


@contextmanager
def renaming_relay(dsn: str) -> Iterator[str]:
    """Pass on one connection to the server of *dsn*, with another process id for the client, as poolers do; yield its DSN."""
    parts = conninfo_to_dict(dsn)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                # BackendKeyData: K, a length, the process id.
                target.sendall(
                    re.sub(rb"K\x00\x00\x00[\x0c-\xff]....", lambda key: key[0][:5] + b"\x7f\xff\xff\xff", data, flags=re.DOTALL)
                )
            target.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as server:
        server.connect(f"{parts['host']}/.s.PGSQL.{parts['port']}")

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                back = threading.Thread(target=pass_on, args=(server, client))
                back.start()
                pass_on(client, server)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield make_conninfo(dsn, host="127.0.0.1", port=listener.getsockname()[1], gssencmode="disable", sslmode="disable")
        thread.join(10)
