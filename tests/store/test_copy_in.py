"""A COPY in two halves: what is left of it wherever its client or its server stops."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from reproq_supervisor.store.asking import Question, Rows, ask, ask_async
from reproq_supervisor.store.copy_in import end_copy, send_copy
from reproq_supervisor.store.errors import StoreError, StoreUnavailable
from tests.support.postgres import Database

COPY = b"COPY copied (id, words) FROM STDIN"
HANG_S = 60


@pytest.fixture(autouse=True)
def table(database: Database) -> None:
    database.query("CREATE TABLE copied (id integer PRIMARY KEY, words text NOT NULL)")


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield connection


def copying(parts: Iterator[bytes]) -> Question[int]:
    yield Rows(COPY, parts)
    return 1


def lines(start: int, count: int = 10, words: str = "w") -> bytes:
    return "".join(f"{number}\t{words}\n" for number in range(start, start + count)).encode()


def interrupted() -> Iterator[bytes]:
    yield lines(0)
    raise KeyboardInterrupt


def refused_late() -> Iterator[bytes]:
    yield lines(0)
    yield lines(5)
    yield lines(100)


def assert_nothing_is_left(connection: psycopg.Connection) -> None:
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert ask(connection, copying(iter([lines(1000)]))) == 1
    assert connection.execute("SELECT min(id), count(*) FROM copied").fetchone() == (1000, 10)


def test_an_interruption_while_the_next_part_is_made_takes_back_the_first(connection: psycopg.Connection) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(connection, copying(interrupted()))
    assert_nothing_is_left(connection)


def test_a_row_that_is_refused_takes_back_all_parts(connection: psycopg.Connection) -> None:
    with pytest.raises(StoreError, match="copied_pkey"):
        ask(connection, copying(refused_late()))
    assert_nothing_is_left(connection)


def test_the_error_of_the_client_is_told_and_not_that_of_the_server_behind_it(connection: psycopg.Connection) -> None:
    def both() -> Iterator[bytes]:
        yield lines(0)
        yield lines(0)
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        ask(connection, copying(both()))
    assert_nothing_is_left(connection)


def test_a_statement_that_is_refused_at_once_has_no_end(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(StoreUnavailable, match="read-only"):
            ask(connection, copying(iter([lines(0)])))
        assert connection.info.transaction_status == TransactionStatus.INTRANS
    assert_nothing_is_left(connection)


def test_a_copy_whose_sender_stopped_in_the_middle_is_taken_back(connection: psycopg.Connection) -> None:
    """As if an interruption had come between two lines of `send_copy`, before it could say that this was all."""
    sending = send_copy(connection.pgconn, COPY, lines(0))
    next(sending)
    sending.close()
    with pytest.raises(psycopg.errors.QueryCanceled, match="interrupted"):
        connection.wait(end_copy(connection.pgconn))
    assert_nothing_is_left(connection)


def test_where_nothing_was_begun_the_end_is_there_at_once(connection: psycopg.Connection) -> None:
    connection.wait(end_copy(connection.pgconn))
    assert_nothing_is_left(connection)


def test_a_part_that_fits_into_no_buffer_arrives_whole(connection: psycopg.Connection) -> None:
    size = 30_000_000
    ask(connection, copying(iter([lines(0, 2, "x" * size), lines(2, 1)])))
    assert connection.execute("SELECT count(*), max(length(words)) FROM copied").fetchone() == (3, size)


class Stop(BaseException):
    """What a handler of the application may raise; psycopg knows of no such thing."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("size", [1, 30_000_000], ids=["heard", "sent"])
def test_a_signal_while_the_server_waits_for_a_lock_ends_the_wait(
    database: Database, connection: psycopg.Connection, error: type[BaseException], size: int
) -> None:
    """While the outcome is waited for, and while the rest is sent to a server that does not read on."""

    def stop(*_: object) -> None:
        raise error

    with psycopg.connect(database.dsn) as holder, database.connect() as looker:
        holder.execute("INSERT INTO copied VALUES (3, 'mine')")
        main = threading.get_ident()

        def interrupt_when_it_waits() -> None:
            waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            while looker.execute(waits, [connection.info.backend_pid]).fetchone() is None:
                pass
            signal.pthread_kill(main, signal.SIGINT)

        before = signal.signal(signal.SIGINT, stop)
        interrupter = threading.Thread(target=interrupt_when_it_waits)
        interrupter.start()
        try:
            with pytest.raises(error):
                ask(connection, copying(iter([lines(0) + lines(50, 1, "x" * size)])))
        finally:
            interrupter.join(HANG_S)
            signal.signal(signal.SIGINT, before)
        holder.rollback()
        assert_nothing_is_left(connection)


def test_a_coroutine_that_is_cancelled_while_it_sends_leaves_its_connection_as_it_was(database: Database) -> None:
    async def play() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
            task = asyncio.create_task(ask_async(connection, copying(iter([lines(0) + lines(50, 1, "x" * 30_000_000)]))))
            waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            while not await asyncio.to_thread(database.query, waits, connection.info.backend_pid):
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.info.transaction_status == TransactionStatus.IDLE

    with psycopg.connect(database.dsn) as holder:
        holder.execute("INSERT INTO copied VALUES (3, 'mine')")
        asyncio.run(play())
    assert database.query("SELECT count(*) FROM copied") == [(1,)]


def test_bulks_of_coroutines_need_no_thread_that_waits_for_them(database: Database) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))

        async def bulk() -> int:
            async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
                return await ask_async(connection, copying(iter([lines(0), lines(10)])))

        def wait_for_bulk() -> int:
            return asyncio.run_coroutine_threadsafe(bulk(), loop).result(HANG_S)

        assert await asyncio.to_thread(wait_for_bulk) == 1

    asyncio.run(play())
    assert database.query("SELECT count(*) FROM copied") == [(20,)]


def test_a_lost_connection_is_told_as_one(database: Database, connection: psycopg.Connection) -> None:
    def lost() -> Iterator[bytes]:
        yield lines(0)
        database.query("SELECT pg_terminate_backend(%s, 60000)", connection.info.backend_pid)
        yield lines(100)

    with pytest.raises(StoreUnavailable):
        ask(connection, copying(lost()))
    assert database.query("SELECT count(*) FROM copied") == [(0,)]


def test_a_cancelled_coroutine_leaves_its_connection_as_it_was(database: Database) -> None:
    async def play() -> None:
        making, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow() -> Iterator[bytes]:
            yield lines(0)
            loop.call_soon_threadsafe(making.set)
            go_on.wait(HANG_S)
            yield lines(100)

        async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
            task = asyncio.create_task(ask_async(connection, copying(slow())))
            await making.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert await ask_async(connection, copying(iter([lines(1000)]))) == 1

    asyncio.run(play())
    assert database.query("SELECT min(id), count(*) FROM copied") == [(1000, 10)]
