"""One statement and its rows, asked of libpq itself.

psycopg's own `execute` makes a cursor and a plan of the parameters for every call, and waits in several turns of the event loop: 0.3 ms of
processor for a cycle that the server answers in as much. A shard on an idle pool asks it between the commit of a task and its start. What
values mean is still psycopg's business: its adapters write the parameters and read the rows.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_PLACE = re.compile(rb"%\((\w+)\)s")
_OK = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
GIVES_UP_WITHIN_S = 5.0
"""How long a server that was asked to give up may take to do so; then its connection is closed."""


class Exchange:
    """Asks over a connection that nobody else uses meanwhile. Not for concurrent use: one call at a time.

    Args:
      prepare: prepare each statement once; False for poolers, behind which the next call may meet another session.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, prepare: bool) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._values = Transformer(connection)
        self._prepare = prepare
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._named = 0

    async def rows(self, statement: bytes, parameters: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        """Run *statement*, a transaction of its own, and return its rows; without *parameters* it is taken as it stands.

        Raises:
          psycopg.Error: of the server, or of a connection that was lost; and what an interruption leaves behind is a connection that is
            either idle or still active, and then good for nothing.
        """
        query, names = (statement, ()) if parameters is None else _numbered(statement)
        values = self._values
        told = values.dump_sequence([parameters[name] for name in names] if parameters else (), [PyFormat.AUTO] * len(names))
        types, formats = values.types or (), values.formats
        pgconn = self._pgconn
        if not self._prepare:
            return self._read(await self._answer(lambda: pgconn.send_query_params(query, told, types, formats)))
        name = self._prepared.get((query, types))
        if name is None:
            # A new one for every try: whether one that was interrupted came to its end, nobody knows.
            self._named += 1
            name = b"reproq_%d" % self._named
            self._read(await self._answer(lambda: pgconn.send_prepare(name, query, types)))
            self._prepared[query, types] = name
        return self._read(await self._answer(lambda: pgconn.send_query_prepared(name, told, formats)))

    def _read(self, results: list[PGresult]) -> list[tuple[Any, ...]]:
        result = results[-1]
        if result.status not in _OK:
            raise error_from_result(result, self._pgconn._encoding)
        if not result.ntuples:
            return []
        self._values.set_pgresult(result)
        return self._values.load_rows(0, result.ntuples, tuple)

    async def _answer(self, send: Callable[[], None]) -> list[PGresult]:
        send()
        reply = _Reply(self._pgconn)
        try:
            await reply.wait()
        except asyncio.CancelledError:
            await self._give_up(reply)
            raise
        return reply.results

    async def _give_up(self, reply: "_Reply") -> None:
        """Have the server stop what nobody waits for any more, so that it holds no lock for it, and read what it says."""
        with contextlib.suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(GIVES_UP_WITHIN_S):
                await self._connection.cancel_safe(timeout=GIVES_UP_WITHIN_S)
                await reply.wait()


class _Reply:
    """What comes back for one request: all of its results, the last of which counts."""

    def __init__(self, pgconn: Any) -> None:
        self.results: list[PGresult] = []
        self._pgconn = pgconn

    async def wait(self) -> None:
        """Wait until all of it is there; may be called again after an interruption."""
        with Readable(self._pgconn, self._look) as readable:
            readable.flush()
            await readable.done

    def _look(self, readable: "Readable") -> None:
        # Both ways at once: a server may have much to say before it has read everything.
        readable.flush()
        pgconn = self._pgconn
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                readable.end()
                return
            self.results.append(result)


class Readable:
    """Calls *on_input* for what the server says, straight from the event loop, until its block ends.

    libpq closes the descriptor of a lost connection itself, and the next socket of anybody here may get its number. So nothing may be left
    registered when a callback returns: taken back a turn of the loop later, it would be the other's.

    Attributes:
      done: ends by `end`, or with the error of psycopg.
    """

    def __init__(self, pgconn: Any, on_input: "Callable[[Readable], None]") -> None:
        self._pgconn = pgconn
        self._on_input = on_input
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._writes = False
        self.done: asyncio.Future[None] = self._loop.create_future()

    def __enter__(self) -> "Readable":
        self._fd = self._pgconn.socket
        self._loop.add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def end(self) -> None:
        """Nothing more is expected."""
        self._forget()
        if not self.done.done():
            self.done.set_result(None)

    def flush(self) -> None:
        """Send what waits to be sent, now and as soon as there is room."""
        writes = bool(self._pgconn.flush())
        if writes != self._writes:
            self._writes = writes
            if writes:
                self._loop.add_writer(self._fd, self._read)
            else:
                self._loop.remove_writer(self._fd)

    def look(self) -> None:
        """Look at what has been read already."""
        self._on_input(self)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            self._on_input(self)
        except psycopg.Error as error:
            self._forget()
            if not self.done.done():
                self.done.set_exception(error)

    def _forget(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1


@cache
def _numbered(statement: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the statement with numbered places as the server has them, and the names of its parameters in that order."""
    names: dict[bytes, int] = {}

    def number(match: re.Match[bytes]) -> bytes:
        return b"$%d" % names.setdefault(match[1], len(names) + 1)

    return _PLACE.sub(number, statement).replace(b"%%", b"%"), tuple(name.decode() for name in names)
