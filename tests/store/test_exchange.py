"""Statements asked of libpq itself: values come and go as by psycopg, and nothing is left behind on the event loop."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
import pytest

from reproq_supervisor.store.exchange import Exchange, Readable
from tests.support.eventually import eventually
from tests.support.postgres import Database

HANGS_AFTER_S = 30.0

_T = TypeVar("_T")


def run(database: Database, scenario: Callable[[psycopg.AsyncConnection[Any]], Awaitable[_T]]) -> _T:
    """Run *scenario* with a connection of its own, on a loop of its own."""

    async def main() -> _T:
        async with asyncio.timeout(HANGS_AFTER_S):
            connection = await psycopg.AsyncConnection.connect(database.dsn, autocommit=True, prepare_threshold=None)
            try:
                return await scenario(connection)
            finally:
                await connection.close()

    return asyncio.run(main())


@pytest.mark.parametrize("prepare", [True, False])
def test_values_come_and_go_as_by_psycopg(empty_database: Database, prepare: bool) -> None:
    at = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    values = {"number": 7, "text": "50 %", "none": None, "list": [1, 2, 3], "flag": True, "at": at, "real": 0.5}
    statement = (
        b"SELECT %(number)s::bigint, %(text)s::text, %(none)s::text, %(list)s::bigint[], %(flag)s::boolean,"
        b" %(at)s::timestamptz, %(real)s::float8, '100 %%', %(number)s::bigint + 1"
    )

    async def ask(connection: psycopg.AsyncConnection[Any]) -> list[list[tuple[Any, ...]]]:
        exchange = Exchange(connection, prepare=prepare)
        return [await exchange.rows(statement, values) for _ in range(3)]

    for rows in run(empty_database, ask):
        assert rows == [(7, "50 %", None, [1, 2, 3], True, at, 0.5, "100 %", 8)]


def test_what_is_larger_than_any_buffer_goes_both_ways(empty_database: Database) -> None:
    text = "x" * 20_000_000

    async def ask(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        return await Exchange(connection, prepare=True).rows(b"SELECT %(text)s::text", {"text": text})

    assert run(empty_database, ask) == [(text,)]


def test_without_parameters_a_statement_is_taken_as_it_stands(empty_database: Database) -> None:
    async def ask(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        return await Exchange(connection, prepare=False).rows(b"SELECT '%(name)s %%'", None)

    assert run(empty_database, ask) == [("%(name)s %%",)]


def test_an_error_of_the_server_is_psycopgs_and_the_next_statement_is_answered(empty_database: Database) -> None:
    async def ask(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        exchange = Exchange(connection, prepare=True)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await exchange.rows(b"SELECT 1 FROM nowhere", {})
        with pytest.raises(psycopg.errors.DivisionByZero):
            await exchange.rows(b"SELECT 1 / %(by)s::int", {"by": 0})
        return await exchange.rows(b"SELECT 1 / %(by)s::int", {"by": 1})

    assert run(empty_database, ask) == [(1,)]


def test_who_gives_up_has_the_server_give_up(empty_database: Database) -> None:
    async def ask(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        exchange = Exchange(connection, prepare=True)
        waiting = asyncio.create_task(exchange.rows(b"SELECT pg_sleep(3600)", {}))
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        await asyncio.to_thread(eventually, lambda: empty_database.query(sleeping), what="the statement is under way")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await exchange.rows(b"SELECT 1", {})

    assert run(empty_database, ask) == [(1,)]


def test_what_gets_the_number_of_a_lost_connection_is_heard(empty_database: Database) -> None:
    """Nothing of the connection may be taken back later, when its descriptor is somebody else's."""
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []

    async def scenario(connection: psycopg.AsyncConnection[Any]) -> None:
        loop, fd = asyncio.get_running_loop(), connection.pgconn.socket
        told = asyncio.Event()

        def hear() -> None:
            heard.append(os.read(fd, 100))
            loop.remove_reader(fd)
            told.set()

        def take_number(_: object) -> None:
            os.dup2(ours.fileno(), fd)
            loop.add_reader(fd, hear)

        with Readable(connection.pgconn, lambda readable: None) as readable:
            readable.done.add_done_callback(take_number)
            empty_database.query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            with pytest.raises(psycopg.OperationalError):
                await readable.done
        theirs.send(b"hello")
        await told.wait()
        os.close(fd)

    with ours, theirs:
        run(empty_database, scenario)
    assert heard == [b"hello"]
