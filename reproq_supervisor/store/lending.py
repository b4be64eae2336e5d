"""Connections to lend: made when needed, kept while idle, never shared between two questions, and never between two processes."""

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from reproq_supervisor.store.connect import AsyncConnection, Connection, open_async, open_one

MOST_IDLE = 4
"""More are closed after use: a crowd of threads that came at once should not hold the server's connections for ever."""


class Connections:
    """For threads; any number may ask at once."""

    def __init__(self, dsn: str, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection; it comes back only if it is as it was."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle if self._pid == os.getpid() else ():
            connection.close()

    def _take(self) -> Connection:
        if self._pid != os.getpid():
            # After a fork they are the parent's, who is using them: let go without a word to the server, which a close would say.
            self._lock, self._pid = threading.Lock(), os.getpid()
            _FORGOTTEN.extend(self._idle)
            self._idle = []
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not _is_broken(connection):
                    return connection
                connection.close()
        return open_one(self._dsn, application_name=self._application_name)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE and not _is_broken(connection):
                self._idle.append(connection)
                return
        connection.close()


class AsyncConnections:
    """The same for coroutines; those of one event loop are of no use in another."""

    def __init__(self, dsn: str, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._idle: WeakKeyDictionary[asyncio.AbstractEventLoop, list[AsyncConnection]] = WeakKeyDictionary()
        self._pid = os.getpid()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection; it comes back only if it is as it was."""
        idle = self._mine()
        connection: AsyncConnection | None = None
        while idle and connection is None:
            connection = idle.pop()
            if _is_broken(connection):
                await connection.close()
                connection = None
        if connection is None:
            connection = await open_async(self._dsn, application_name=self._application_name)
        try:
            yield connection
        finally:
            if len(idle) < MOST_IDLE and not _is_broken(connection):
                idle.append(connection)
            else:
                await connection.close()

    async def close(self) -> None:
        """Close what is idle on this event loop."""
        idle = self._mine()
        while idle:
            await idle.pop().close()

    def _mine(self) -> list[AsyncConnection]:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            _FORGOTTEN.extend(each for idle in self._idle.values() for each in idle)
            self._idle = WeakKeyDictionary()
        return self._idle.setdefault(asyncio.get_running_loop(), [])


# Collected, they would be closed.
_FORGOTTEN: list[Connection | AsyncConnection] = []


def _is_broken(connection: Connection | AsyncConnection) -> bool:
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return True
    # A server that ends a connection says so: then there is something to read, where nobody asked anything.
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
