"""One asynchronous connection that is either clean or closed, for the daemon's processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from reproq_supervisor.store.errors import StoreUnavailable, translated
from reproq_supervisor.store.exchange import Exchange
from reproq_supervisor.store.session import connect_options, is_direct, make_ours_async
from reproq_supervisor.store.statements import load

_ROLLED_BACK_TRIES = 3
ANSWER_WITHIN_S = 30.0
"""No statement of ours takes nearly as long. A host that is gone and a server that is frozen never close a connection."""


class StoreConnection:
    """Runs named statements, each a transaction of its own. Not for concurrent use: one call at a time.

    Whatever goes wrong in a call, afterwards the connection is idle or closed: a half-read reply must not meet the next request.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, is_direct: bool = False, prepare: bool = False) -> None:
        self._connection = connection
        self._is_direct = is_direct
        self._exchange = Exchange(connection, prepare=prepare and is_direct)

    @classmethod
    async def open(
        cls, dsn: str, *, application_name: str, prepare: bool, timeout_s: float = 10, on_warning: Callable[[str], None] | None = None
    ) -> "StoreConnection":
        """Connect.

        Args:
          on_warning: takes the words of each WARNING that a statement raises: what it could not do, for one row among many.
          prepare: False for poolers that do not keep prepared statements. Behind one that gives process ids of its own, as PgBouncer does,
            nothing is prepared anyway: a name could mean another client's statement there.

        Raises:
          StoreUnavailable: no connection within *timeout_s* seconds.
        """
        with translated():
            connection = await psycopg.AsyncConnection.connect(dsn, **connect_options(application_name, timeout_s))
            async with AsyncExitStack() as on_failure:
                on_failure.push_async_callback(connection.close)
                if on_warning is not None:
                    connection.add_notice_handler(partial(_pass_on, on_warning))
                async with _answered_in_time():
                    await make_ours_async(connection)
                    direct = await is_direct(connection)
                on_failure.pop_all()
            return cls(connection, is_direct=direct, prepare=prepare)

    async def ask(self, table: str, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the statement *name* of `sql/<table>.sql` and return its rows.

        Raises:
          StoreUnavailable: nothing is known about what it did; try again, on a new connection if this one is closed. Also when there was no
            answer within `ANSWER_WITHIN_S`, and then up to ten seconds for giving up in order.
          StoreError: it did nothing, and would do nothing again.
        """
        statement = load(table)[name]
        with translated():
            async with self._clean_or_closed(), _answered_in_time():
                for _ in range(_ROLLED_BACK_TRIES - 1):
                    try:
                        return await self._exchange.rows(statement, parameters)
                    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                        # All of it was undone because of somebody who locks records in another order; now they are through.
                        continue
                return await self._exchange.rows(statement, parameters)

    @property
    def closed(self) -> bool:
        """Whether a new connection is needed."""
        return self._connection.closed

    @property
    def backend_pid(self) -> int | None:
        """The server process that is ours as long as the connection is; None behind a pooler."""
        return self._connection.info.backend_pid if self._is_direct else None

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    @asynccontextmanager
    async def _clean_or_closed(self) -> AsyncIterator[None]:
        if self._connection.closed:
            raise StoreUnavailable("the connection is closed: connect again")
        try:
            yield
        finally:
            if self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
                await self._connection.close()


def _pass_on(on_warning: Callable[[str], None], notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        on_warning(notice.message_primary or "")


@asynccontextmanager
async def _answered_in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer from the database within {ANSWER_WITHIN_S:g} s") from error
