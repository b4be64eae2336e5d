"""Plain connections, for commands and applications."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader

from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.session import connect_options, make_ours, make_ours_async, prepare_if_direct, prepare_if_direct_async

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


class _NearestTime(Loader):
    """Reads a time; one outside the years of Python (`infinity`, BC, after 9999) as the first or the last that it has.

    Whoever inserts a run by SQL may say when as PostgreSQL can; who reads it must not fail.
    """

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        self._plain = psycopg.adapters.get_loader(oid, self.format)(oid, context)  # type: ignore[misc]

    def load(self, data: Buffer) -> Any:
        try:
            return self._plain.load(data)
        except psycopg.DataError:
            words = bytes(data)
            is_early = words.startswith(b"-") or words.endswith(b"BC")
            return datetime.min.replace(tzinfo=UTC) if is_early else datetime.max.replace(tzinfo=UTC)


def open_one(dsn: str, *, application_name: str, timeout_s: float = 10, prepares: bool = False) -> Connection:
    """Connect in autocommit mode, without prepared statements, so that a transaction pooler may stand between.

    Args:
      prepares: whether statements that come again are prepared where none does, for a connection that is used often.

    Raises:
      StoreUnavailable: no connection within *timeout_s* (whole seconds, 2 at least, for each address of the host).
    """
    with translated():
        connection = psycopg.connect(dsn, **connect_options(application_name, timeout_s))
        with ExitStack() as on_failure:
            on_failure.callback(connection.close)
            make_ours(connection)
            if prepares:
                prepare_if_direct(connection)
            on_failure.pop_all()
        connection.adapters.register_loader("timestamptz", _NearestTime)
        return connection


async def open_async(dsn: str, *, application_name: str, timeout_s: float = 10, prepares: bool = False) -> AsyncConnection:
    """As `open_one`, for coroutines."""
    with translated():
        connection = await psycopg.AsyncConnection.connect(dsn, **connect_options(application_name, timeout_s))
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(connection.close)
            await make_ours_async(connection)
            if prepares:
                await prepare_if_direct_async(connection)
            on_failure.pop_all()
        connection.adapters.register_loader("timestamptz", _NearestTime)
        return connection


@contextmanager
def connected(dsn: str, *, application_name: str = "reproq command", timeout_s: float = 10) -> Iterator[Connection]:
    """Connect as `open_one` does; close at the end.

    Raises:
      StoreUnavailable: no connection, or it was lost.
      StoreError: the database refused a statement of the block that its own call did not translate.
    """
    with translated(), closing(open_one(dsn, application_name=application_name, timeout_s=timeout_s)) as connection:
        yield connection
