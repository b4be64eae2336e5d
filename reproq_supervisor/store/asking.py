"""What callers of both kinds ask of the database, said once: a question is a generator, and whoever has a connection drives it.

It yields `Query` and `Rows`, gets the answering rows back, and returns its result; no I/O happens in it.
"""

import asyncio
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.pq import Format, PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from reproq_supervisor.store.copy_in import end_copy, send_copy
from reproq_supervisor.store.errors import StoreError, translated
from reproq_supervisor.store.session import AnyConnection, reads_times

T = TypeVar("T")
_GIVES_UP_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Query:
    """A statement of `sql/` with its parameters; answered with its rows.

    Attributes:
      is_whole: whether its question asks nothing else: one statement needs no transaction around it, which would be two more round trips.
    """

    statement: bytes
    parameters: Mapping[str, Any]
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows, as text, for a COPY statement of `sql/` that is executed for each part of them; answered with nothing.

    Attributes:
      parts: made one by one, each while the server works at the one before.
    """

    statement: bytes
    parts: Iterable[bytes]


Question = Generator[Query | Rows, list[tuple[Any, ...]], T]


def ask(connection: psycopg.Connection[Any], question: Question[T], *, atomic: bool = True) -> T:
    """Answer *question* in the caller's transaction, or where there is none, in one of our own.

    Args:
      atomic: False for what only reads, and needs no transaction.

    Raises:
      StoreUnavailable: the database cannot be asked now.
      StoreError: it refused; nothing of the question happened.
    """
    _require_answers(connection)
    with translated(), _speakable(connection):
        try:
            step = next(question)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        around = connection.transaction() if atomic and _needs_transaction(connection, step) else nullcontext()
        # A cursor of our own, whatever rows the caller's cursors make, and in whatever form they take parameters.
        with around, psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
            cursor.format = _readable(connection)
            while True:
                if isinstance(step, Query):
                    cursor.execute(step.statement, step.parameters)
                    answer = cursor.fetchall() if cursor.description else []
                else:
                    _write(connection, step)
                    answer = []
                try:
                    step = _following(step, question.send(answer))
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]


async def ask_async(connection: psycopg.AsyncConnection[Any], question: Question[T], *, atomic: bool = True) -> T:
    """As `ask`, on an asynchronous connection."""
    _require_answers(connection)
    with translated(), _speakable(connection):
        try:
            step = next(question)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        around = connection.transaction() if atomic and _needs_transaction(connection, step) else nullcontext()
        async with around, psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            cursor.format = _readable(connection)
            while True:
                if isinstance(step, Query):
                    await cursor.execute(step.statement, step.parameters)
                    answer = await cursor.fetchall() if cursor.description else []
                else:
                    await _write_async(connection, step)
                    answer = []
                try:
                    step = _following(step, question.send(answer))
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]


def _write(connection: psycopg.Connection[Any], rows: Rows) -> None:
    parts = iter(rows.parts)
    part = next(parts, None)
    # All of them or none, even if the caller goes on with a transaction of its own.
    with connection.transaction():
        while part is not None:
            with connection.lock, ExitStack() as on_failure:
                on_failure.callback(_hear_out, connection)
                connection.wait(send_copy(connection.pgconn, rows.statement, part))
                part = next(parts, None)
                connection.wait(end_copy(connection.pgconn))
                on_failure.pop_all()


def _hear_out(connection: psycopg.Connection[Any]) -> None:
    """Leave nothing of a COPY in the connection; what went wrong is told already."""
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        # It may wait for a lock, for as long as somebody else likes.
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_GIVES_UP_WITHIN_S)
    with suppress(psycopg.Error):
        connection.wait(end_copy(connection.pgconn))


async def _write_async(connection: psycopg.AsyncConnection[Any], rows: Rows) -> None:
    parts = iter(rows.parts)
    loop = asyncio.get_running_loop()
    # The loop has other work than to make text, and the threads that it lends may all wait for this very bulk.
    maker = ThreadPoolExecutor(1, thread_name_prefix="copy")
    try:
        part = await loop.run_in_executor(maker, next, parts, None)
        async with connection.transaction():
            while part is not None:
                async with connection.lock, AsyncExitStack() as on_failure:
                    on_failure.push_async_callback(_hear_out_async, connection)
                    await connection.wait(send_copy(connection.pgconn, rows.statement, part))
                    part = await loop.run_in_executor(maker, next, parts, None)
                    await connection.wait(end_copy(connection.pgconn))
                    on_failure.pop_all()
    finally:
        maker.shutdown(wait=False)


async def _hear_out_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """As `_hear_out`."""
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            await connection.cancel_safe(timeout=_GIVES_UP_WITHIN_S)
    with suppress(psycopg.Error):
        await connection.wait(end_copy(connection.pgconn))


def _readable(connection: AnyConnection) -> Format:
    # The caller's session may want times written as nobody reads them; in binary they are always the same.
    return Format.TEXT if reads_times(connection) else Format.BINARY


@contextmanager
def _speakable(connection: AnyConnection) -> Iterator[None]:
    """Name a character that the caller's session has no word for."""
    try:
        yield
    except UnicodeEncodeError as error:
        if connection.info.encoding == "utf-8":
            raise  # the text is at fault, not the session
        got = f"{error.object[error.start]!a} for one that speaks {connection.info.encoding}"
        raise StoreError(f"connection: expected one with client_encoding UTF8 for this text, got {got}; nothing was sent") from error


def _require_answers(connection: AnyConnection) -> None:
    # In a pipeline the answer to a statement comes when it likes, and every question needs its answer.
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise StoreError("connection: expected one outside of pipeline mode, got one within `connection.pipeline()`")


def _needs_transaction(connection: AnyConnection, first: Query | Rows) -> bool:
    is_outside = connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
    return is_outside and not (isinstance(first, Query) and first.is_whole)


def _following(step: Query | Rows, following: Query | Rows) -> Query | Rows:
    assert not (isinstance(step, Query) and step.is_whole), "a statement that was said to be the whole question is followed by another"
    return following
