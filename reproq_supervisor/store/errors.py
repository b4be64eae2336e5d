"""What can go wrong with the database, split by what the caller must do."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

# Classes of SQLSTATE after which the same request can succeed: connection, resources, operator intervention, system, rollback of a
# transaction (deadlock, serialization), and the invalid state of a server that is starting, stopping or a standby.
_RETRY_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_RETRY_STATES = frozenset({"25006", "55P03"})
_TERM_STATE = "RQ001"
_SCHEMA_STATES = frozenset({"42P01", "42883", "42703", "3F000"})


class StoreUnavailable(Exception):
    """The database cannot be asked now: try again later."""


class StoreError(Exception):
    """The database refused a statement: a bug, or a schema that is not ours. Trying again does not help."""


class SchemaOutdated(StoreError):
    """The schema is older than this program, or absent: run `reproq-supervisor migrate`."""


class SchemaNewer(StoreError):
    """The schema was made by a newer program: use that one."""


class TermLost(Exception):
    """Somebody else keeps by now, or nobody: drop the duty. Nothing of it happened."""


def translate(error: psycopg.Error) -> StoreUnavailable | StoreError | TermLost:
    """Return the error of ours that tells the caller what to do about *error*. Texts are never looked at, only SQLSTATE."""
    state = error.sqlstate
    words = f"{state}: {error.diag.message_primary}" if state else str(error).strip()
    if state is None:
        # No answer from a server: the connection failed, was lost or is closed. A refused value (DataError) is raised before anything is
        # sent.
        return StoreUnavailable(words) if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) else StoreError(words)
    if state[:2] in _RETRY_CLASSES or state in _RETRY_STATES:
        return StoreUnavailable(words)
    if state == _TERM_STATE:
        return TermLost(words)
    if state in _SCHEMA_STATES:
        return SchemaOutdated(f"{words}; the schema is absent or old, run `reproq-supervisor migrate`")
    return StoreError(words)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `StoreUnavailable`, `StoreError` or `TermLost` in place of psycopg's errors."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
