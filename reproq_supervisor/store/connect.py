"""A plain connection for a command: opened, used, closed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from reproq_supervisor.store.errors import translated

Connection = psycopg.Connection[Any]


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
        with closing(connection):
            yield connection
