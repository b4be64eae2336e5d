"""A COPY into a table in two halves, between which its client can do something else: send all of it, and hear what became of it.

psycopg's own `copy` sends the end with the wish to hear the outcome. Generators for `Connection.wait`, which does the waiting, of either
kind, and has a server give up that nobody waits for any more.
"""

from collections.abc import Generator

from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

Waiting = Generator[Wait, Ready | int, None]


def send_copy(pgconn: PGconn, statement: bytes, text: bytes) -> Waiting:
    """Begin the COPY that *statement* says, and send all of its *text*.

    Raises:
      psycopg.Error: it was refused at once. Then there is no end to wait for.
    """
    pgconn.send_query(statement)
    yield from _send(pgconn)
    while pgconn.is_busy():
        yield from _read(pgconn)
    begun = pgconn.get_result()
    assert begun is not None, "a statement without a result"
    if begun.status != ExecStatus.COPY_IN:
        yield from _hear(pgconn, [begun])
    while not pgconn.put_copy_data(text):
        yield from _send(pgconn)
    while not pgconn.put_copy_end():
        yield from _send(pgconn)
    yield from _send(pgconn)


def end_copy(pgconn: PGconn) -> Waiting:
    """Wait until the server has taken in what was sent; what was not sent whole is taken back.

    Where nothing was begun, or all of it was heard, there is nothing to wait for.

    Raises:
      psycopg.Error: it refused.
    """
    yield from _hear(pgconn, [])


def _hear(pgconn: PGconn, results: list[PGresult]) -> Waiting:
    while True:
        while pgconn.is_busy():
            yield from _read(pgconn)
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == ExecStatus.COPY_IN:
            # Its client was interrupted; the server says so again and again until it hears of the end.
            while not pgconn.put_copy_end(b"interrupted"):
                yield from _send(pgconn)
            yield from _send(pgconn)
            continue
        results.append(result)
    for result in results:
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result, pgconn._encoding)


def _read(pgconn: PGconn) -> Waiting:
    if (yield Wait.R):
        pgconn.consume_input()


def _send(pgconn: PGconn) -> Waiting:
    while pgconn.flush():
        # Both ways at once: a server may have to say something before it reads on. Nothing is ready when `wait` goes on after an interrupt.
        while not (ready := (yield Wait.RW)):
            continue
        if ready & Ready.R:
            pgconn.consume_input()
