"""What callers of both kinds ask of the database, said once: a question is a generator, and whoever has a connection drives it.

It yields `Query` and `Rows`, gets the answering rows back, and returns its result; no I/O happens in it.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from reproq_supervisor.store.errors import StoreError, translated

T = TypeVar("T")
AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A statement of `sql/` with its parameters; answered with its rows."""

    statement: bytes
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for a COPY statement of `sql/`; answered with nothing."""

    statement: bytes
    rows: Iterable[Sequence[Any]]


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
    around = connection.transaction() if atomic and _is_outside(connection) else nullcontext()
    # A cursor of our own, whatever rows the caller's cursors make, and in whatever form they take parameters.
    with translated(), around, psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        answer: list[tuple[Any, ...]] | None = None
        while True:
            try:
                step = question.send(answer)  # type: ignore[arg-type]  # None starts it
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Query):
                cursor.execute(step.statement, step.parameters)
                answer = cursor.fetchall() if cursor.description else []
            else:
                with cursor.copy(step.statement) as copy:
                    for row in step.rows:
                        copy.write_row(row)
                answer = []


async def ask_async(connection: psycopg.AsyncConnection[Any], question: Question[T], *, atomic: bool = True) -> T:
    """As `ask`, on an asynchronous connection."""
    _require_answers(connection)
    around = connection.transaction() if atomic and _is_outside(connection) else nullcontext()
    with translated():
        async with around, psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            answer: list[tuple[Any, ...]] | None = None
            while True:
                try:
                    step = question.send(answer)  # type: ignore[arg-type]
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if isinstance(step, Query):
                    await cursor.execute(step.statement, step.parameters)
                    answer = await cursor.fetchall() if cursor.description else []
                else:
                    async with cursor.copy(step.statement) as copy:
                        for row in step.rows:
                            await copy.write_row(row)
                    answer = []


def _require_answers(connection: AnyConnection) -> None:
    # In a pipeline the answer to a statement comes when it likes, and every question needs its answer.
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise StoreError("connection: expected one outside of pipeline mode, got one within `connection.pipeline()`")


def _is_outside(connection: AnyConnection) -> bool:
    return connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
