"""Connections to lend: made when needed, kept while idle, never shared between two questions, and never between two processes."""

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from reproq_supervisor.store.connect import AsyncConnection, Connection, open_async, open_one

MOST_IDLE = 4
"""More are closed after use: a crowd of threads that came at once should not hold the server's connections for ever."""
MOST_LENT = 12
"""Who comes when as many are lent waits for one to come back: a server has a hundred, for everybody, and a hundred coroutines are soon
there."""


class Connections:
    """For threads; any number may ask at once."""

    def __init__(self, dsn: str, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._lock = threading.Lock()
        self._places = threading.Semaphore(MOST_LENT)
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection; it comes back only if it is as it was. Not to be asked for again by who has one."""
        self._forget_if_forked()
        with self._places:
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

    def _forget_if_forked(self) -> None:
        if self._pid != os.getpid():
            # They are the parent's, who is using them: let go without a word to the server, which a close would say.
            self._lock, self._places, self._pid = threading.Lock(), threading.Semaphore(MOST_LENT), os.getpid()
            _FORGOTTEN.extend(self._idle)
            self._idle = []

    def _take(self) -> Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not _is_broken(connection):
                    return connection
                connection.close()
        return open_one(self._dsn, application_name=self._application_name, prepares=True)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE and not _is_broken(connection):
                self._idle.append(connection)
                return
        connection.close()


@dataclass(slots=True)
class _OfLoop:
    """What there is for one event loop."""

    idle: list[AsyncConnection] = field(default_factory=list)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LENT))


class AsyncConnections:
    """The same for coroutines; those of one event loop are of no use in another."""

    def __init__(self, dsn: str, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()
        self._pid = os.getpid()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection; it comes back only if it is as it was. Not to be asked for again by who has one."""
        mine = self._mine()
        async with mine.places:
            connection = await self._take(mine.idle)
            try:
                yield connection
            finally:
                if len(mine.idle) < MOST_IDLE and not _is_broken(connection):
                    mine.idle.append(connection)
                else:
                    await connection.close()

    async def close(self) -> None:
        """Close what is idle on this event loop."""
        idle = self._mine().idle
        while idle:
            await idle.pop().close()

    async def _take(self, idle: list[AsyncConnection]) -> AsyncConnection:
        while idle:
            connection = idle.pop()
            if not _is_broken(connection):
                return connection
            await connection.close()
        return await open_async(self._dsn, application_name=self._application_name, prepares=True)

    def _mine(self) -> _OfLoop:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            _FORGOTTEN.extend(each for loop in self._loops.values() for each in loop.idle)
            self._loops = WeakKeyDictionary()
        return self._loops.setdefault(asyncio.get_running_loop(), _OfLoop())


# Collected, they would be closed.
_FORGOTTEN: list[Connection | AsyncConnection] = []


def _is_broken(connection: Connection | AsyncConnection) -> bool:
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return True
    # A server that ends a connection says so: then there is something to read, where nobody asked anything.
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
