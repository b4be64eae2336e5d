"""What a session of ours must be like, whatever its role, its database and the server would have it be.

Text is UTF-8 and times are ISO, or they are not read. A transaction sees what others have committed before each of its statements: under
REPEATABLE READ a claim would count the holders of a key as of before it got the key's lock, and let a second one in (seen once in six
thousand runs of eight keys over eight queues).

Nothing is set where it is right already, as it nearly always is: behind a transaction pooler a setting stays with a connection that others
use next. DateStyle is one that poolers keep for each client. The isolation level is none, so there it is not set: `reproq_admit` refuses.
"""

from typing import Any

import psycopg
from psycopg import IsolationLevel

from reproq_supervisor.store.statements import load

# To parse and plan the insert of a single run takes the server a third of what it takes in all.
_PREPARE_FROM = 5
_PLAIN = IsolationLevel.READ_COMMITTED.name.replace("_", " ").lower()

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


def connect_options(application_name: str, timeout_s: float) -> dict[str, Any]:
    """Return how to connect: in autocommit mode, without prepared statements, so that a transaction pooler may stand between."""
    return {
        "autocommit": True,
        "application_name": application_name,
        "connect_timeout": max(2, round(timeout_s)),
        "prepare_threshold": None,
        "client_encoding": "utf8",
    }


def reads_times(connection: AnyConnection) -> bool:
    """Answer whether the server writes times as psycopg reads them."""
    return (connection.pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")


def make_ours(connection: psycopg.Connection[Any]) -> None:
    """Make a new connection one of ours: its transactions, and the times that it is told."""
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    if not reads_times(connection):
        connection.execute(load("session")["tell_iso_times"])


async def make_ours_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """As `make_ours`."""
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    if not reads_times(connection):
        await connection.execute(load("session")["tell_iso_times"])


def prepare_if_direct(connection: psycopg.Connection[Any]) -> None:
    """Have statements that come again prepared, unless another process answers than was promised: then a pooler stands between."""
    row = connection.execute(load("session")["backend"]).fetchone()
    if row is not None and row[0] == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_FROM


async def prepare_if_direct_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """As `prepare_if_direct`."""
    row = await (await connection.execute(load("session")["backend"])).fetchone()
    if row is not None and row[0] == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_FROM


async def is_direct(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Answer whether the process that answers is the one that was promised at the start of the connection.

    If so, also its statements outside of transactions are made to see what others have committed.
    """
    cursor = await connection.execute(load("session")["backend"])
    row = await cursor.fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        return False
    if row[1] != _PLAIN:
        await connection.execute(load("session")["see_commits"])
    return True
