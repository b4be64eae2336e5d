"""A command's connection to the database, and what to tell people when there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reproq_supervisor.cli.daemon.record import NoDaemonError, find_record, how_to_start
from reproq_supervisor.cli.options import Options
from reproq_supervisor.core.errors import ReproqError

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import Connection

EMBEDDED = "embedded"


class DatabaseAwayError(ReproqError):
    """The database does not answer now."""

    exit_code = 69


class SchemaOutdatedError(ReproqError):
    """The database has an older schema, or none."""

    exit_code = 75


class SchemaNewerError(ReproqError):
    """The database was brought further by a newer program: starting this one again would not help."""

    exit_code = 78


class DatabaseRefusedError(ReproqError):
    """The database refused what we said; nothing was changed."""


def find_dsn(options: Options) -> str:
    """Return the libpq URL of the database that the options mean.

    That is the one named for this command; else that of the running daemon, which may have been started with `--dsn` or have got it
    from systemd, and whose file may have changed since; else the file's.

    Raises:
      NoDaemonError: it is the embedded one, and no daemon runs it.
      ConfigError: the file decides and is wrong.
    """
    named = options.named_database()
    if named is not None and named != EMBEDDED:
        return named
    record = find_record(options.config_path, os.environ)
    if record is not None and record.dsn is not None and (named is None or record.embedded) and record.answers:
        return record.dsn
    dsn = named or options.database()
    if dsn == EMBEDDED:
        raise NoDaemonError(f"database: expected the embedded one to run, found no daemon; start it with: {how_to_start(options)}")
    return dsn


@contextmanager
def open_database(options: Options, *, timeout_s: float = 10) -> Iterator["Connection"]:
    """Connect for the length of the block; what the store cannot do leaves as an error with an exit code.

    Raises:
      DatabaseAwayError, SchemaOutdatedError, SchemaNewerError, DatabaseRefusedError, and what `find_dsn` raises.
    """
    from reproq_supervisor.store.connect import connected

    dsn = find_dsn(options)
    with worded(dsn), connected(dsn, timeout_s=timeout_s) as connection:
        yield connection


@contextmanager
def worded(dsn: str) -> Iterator[None]:
    """Raise errors with an exit code in place of the store's. `failures` masks what is secret in *dsn*."""
    from reproq_supervisor.store.errors import SchemaNewer, SchemaOutdated, StoreError, StoreUnavailable

    try:
        yield
    except StoreUnavailable as error:
        raise DatabaseAwayError(f"database {dsn}: expected an answer, got: {_on_one_line(error)}") from error
    except SchemaOutdated as error:
        raise SchemaOutdatedError(f"database {dsn}: expected the schema of this version; {_on_one_line(error)}") from error
    except SchemaNewer as error:
        raise SchemaNewerError(f"database {dsn}: {_on_one_line(error)}") from error
    except StoreError as error:
        raise DatabaseRefusedError(f"database {dsn}: {_on_one_line(error)}") from error


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
