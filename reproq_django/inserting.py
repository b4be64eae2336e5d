"""Inserts runs, and asks the store, on Django's own connections: in the caller's transaction, where there is one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import DatabaseError, OperationalError, connections

from reproq_django.by_models import insert_by_models
from reproq_django.routing import is_postgres
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.store.asking import Question, ask
from reproq_supervisor.store.connect import Connection
from reproq_supervisor.store.enqueue import Entered, entering
from reproq_supervisor.store.errors import StoreError, StoreUnavailable

T = TypeVar("T")


def insert(alias: str, runs: Sequence[NewRun]) -> list[Entered]:
    """Insert *runs* into the database *alias*, all of them or none, and return what became of each, in order.

    A duplicate is found without an error of the database, so the caller's transaction can go on.

    Raises:
      django.db.DatabaseError: the database refused, or cannot be asked now.
    """
    return ask_store(alias, entering(runs)) if is_postgres(alias) else insert_by_models(alias, runs)


def ask_store(alias: str, question: Question[T]) -> T:
    """Answer *question* on Django's connection to *alias*. Raises as `on_store`."""
    return on_store(alias, lambda connection: ask(connection, question))


def on_store(alias: str, call: Callable[[Connection], T]) -> T:
    """Make a call of the store on Django's own connection to *alias*: in the caller's transaction, where there is one.

    Raises:
      django.db.DatabaseError: the database refused; OperationalError if it cannot be asked now.
    """
    connection = connections[alias]
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    try:
        return call(connection.connection)
    except StoreUnavailable as error:
        connection.errors_occurred = True
        raise OperationalError(str(error)) from error
    except StoreError as error:
        connection.errors_occurred = True
        raise DatabaseError(str(error)) from error
