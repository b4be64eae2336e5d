"""A plain connection for a command: opened, used, closed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader

from reproq_supervisor.store.errors import translated

Connection = psycopg.Connection[Any]


class _NearestTime(Loader):
    """Reads a time; one outside the years of Python (`infinity`, BC, after 9999) as the first or the last that it has."""

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


@contextmanager
def connected(dsn: str, *, application_name: str = "reproq command", timeout_s: float = 10) -> Iterator[Connection]:
    """Connect in autocommit mode, without prepared statements, so that a transaction pooler may stand between; close at the end.

    Raises:
      StoreUnavailable: no connection within *timeout_s* (whole seconds, 2 at least, for each address of the host), or it was lost.
      StoreError: the database refused a statement of the block that its own call did not translate.
    """
    with translated():
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            application_name=application_name,
            connect_timeout=max(2, round(timeout_s)),
            prepare_threshold=None,
        )
        # Whoever inserts a run by SQL may say when as PostgreSQL can; a command that reads it must not fail.
        connection.adapters.register_loader("timestamptz", _NearestTime)
        with closing(connection):
            yield connection
