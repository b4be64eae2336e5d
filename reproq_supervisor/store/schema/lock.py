"""One migration of a schema at a time.

The lock belongs to a transaction that stays open on a connection of its own: the steps need commits in between, and some run outside any
transaction. That works through a transaction pooler too, if it grants two server connections (three for progress on indexes).

    the lock's connection    BEGIN ── try ── (idle, without a snapshot) ───────────────────────────────── end of connection
    the steps' connection             step ── commit ── step ── CREATE INDEX CONCURRENTLY ── step ──

Who comes second tries again and again instead of waiting inside the database: its waiting transaction would have a snapshot, for whose end
CREATE INDEX CONCURRENTLY of the first waits. When it fails: if the first process is killed its connections end, and with them the lock; if
only the lock's connection is lost the first stops before its next step.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.schema.step import Connection
from reproq_supervisor.store.statements import load

_PAUSE_S = 0.3


def beside(connection: Connection) -> Connection:
    """Open another connection to the same database, as the same user, in autocommit mode."""
    return psycopg.connect(
        connection.info.dsn,
        password=connection.info.password or None,
        autocommit=True,
        application_name="reproq migrate",
        prepare_threshold=None,
    )


@contextmanager
def only_migration(connection: Connection, tell: Callable[[str], None], patience_s: float) -> Iterator[Callable[[], None]]:
    """Wait until nobody else migrates this schema, and keep others out for the block; gives a function that raises when the lock is lost.

    Raises:
      StoreUnavailable: somebody else migrated for *patience_s*.
    """
    deadline = time.monotonic() + patience_s
    with closing(beside(connection)) as holder:
        while not _begin_if_free(holder):
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"schema: expected to migrate it alone, somebody else has migrated for {patience_s:.0f} s")
            tell("another migration is under way, waits for its end")
            time.sleep(_PAUSE_S)
        yield lambda: _assert_held(holder)


def _begin_if_free(holder: Connection) -> bool:
    holder.autocommit = False
    holder.execute(load("migrating")["idle_as_long_as_it_takes"])
    row = holder.execute(load("reproq_schema_migrations")["try_lock"]).fetchone()
    if row and row[0]:
        return True
    holder.rollback()
    return False


def _assert_held(holder: Connection) -> None:
    # An error here is the end of the connection, which the caller translates.
    holder.execute(load("migrating")["nothing"])
