"""The optional second connection, which hears notifications. Without it everything works by polling, as behind a transaction pooler."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import psycopg

from reproq_supervisor.store.errors import StoreUnavailable, translated
from reproq_supervisor.store.exchange import Exchange, Readable
from reproq_supervisor.store.statements import load

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0
_LISTEN_WITHIN_S = 20.0


class Listener:
    """Calls *on_note* when a queue has become busy or a cancel was asked for, and after every gap in which a note may have been missed."""

    def __init__(self, dsn: str, application_name: str, on_note: Callable[[], None], queues: Collection[str] | None) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._on_note = on_note
        self._queues = queues
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, dsn: str, *, on_note: Callable[[], None], application_name: str = "reproq", queues: Collection[str] | None = None
    ) -> Self:
        """Listen from now on; a connection that is lost later is made again by itself.

        Args:
          on_note: called on the event loop, without arguments; it should only set a flag.
          queues: whose notes to pass on; None for all. Cancel requests are always passed on.

        Raises:
          StoreUnavailable: the first connection failed.
        """
        listener = cls(dsn, f"{application_name} (listener)", on_note, queues)
        await listener._listen()
        listener._task = asyncio.create_task(listener._run(), name="store listener")
        return listener

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            await self._connection.close()

    async def _listen(self) -> None:
        async with _in_time():
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, application_name=self._application_name, connect_timeout=10, prepare_threshold=None
            )
            self._connection = connection
            # Not by a cursor, which would keep for itself the notes that come along.
            exchange = Exchange(connection, prepare=False)
            ((channel,),) = await exchange.rows(load("channel")["name_of"], {})
            await exchange.rows(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)).as_bytes(connection), None)

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if self._connection is None:
                    await self._listen()
                    retry_s = _FIRST_RETRY_S
                    self._on_note()
                await self._hear()
            except StoreUnavailable:
                if self._connection is not None:
                    await self._connection.close()
                self._connection = None
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread, not a secret
                retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def _hear(self) -> None:
        """Pass notes on, straight from the event loop: between a task's commit and its start, every turn of the loop counts."""
        assert self._connection is not None
        pgconn = self._connection.pgconn

        def pass_on(_: Readable) -> None:
            while (note := pgconn.notifies()) is not None:
                if self._concerns(note.extra.decode(errors="replace")):
                    self._on_note()

        with translated(), Readable(pgconn, pass_on) as readable:
            readable.look()  # at what came with the answer to LISTEN
            await readable.done

    def _concerns(self, payload: str) -> bool:
        kind, _, queue = payload.partition(":")
        return kind != "ready" or self._queues is None or queue in self._queues


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        with translated():
            async with asyncio.timeout(_LISTEN_WITHIN_S):
                yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer to LISTEN within {_LISTEN_WITHIN_S:g} s") from error
