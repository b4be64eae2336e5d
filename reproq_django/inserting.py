"""Inserts runs, and asks the store, on Django's own connections: in the caller's transaction, where there is one."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from django.db import DatabaseError, OperationalError, connections, transaction
from django.utils import timezone

from reproq_django.models import RunState, TaskRun
from reproq_django.routing import is_postgres
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.asking import Question, ask
from reproq_supervisor.store.enqueue import Entered, entering, hash_of
from reproq_supervisor.store.errors import StoreError, StoreUnavailable

T = TypeVar("T")
_NAMES_AT_ONCE = 500  # SQLite takes no more than 999 parameters in old versions


def insert(alias: str, runs: Sequence[NewRun]) -> list[Entered]:
    """Insert *runs* into the database *alias*, all of them or none, and return what became of each, in order.

    A duplicate is found without an error of the database, so the caller's transaction can go on.

    Raises:
      django.db.DatabaseError: the database refused, or cannot be asked now.
    """
    return ask_store(alias, entering(runs)) if is_postgres(alias) else _insert_by_models(alias, runs)


def ask_store(alias: str, question: Question[T]) -> T:
    """Answer *question* on Django's connection to *alias*.

    Raises:
      django.db.DatabaseError: the database refused; OperationalError if it cannot be asked now.
    """
    connection = connections[alias]
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    connection.ensure_connection()
    try:
        return ask(connection.connection, question)
    except StoreUnavailable as error:
        connection.errors_occurred = True
        raise OperationalError(str(error)) from error
    except StoreError as error:
        connection.errors_occurred = True
        raise DatabaseError(str(error)) from error


def _insert_by_models(alias: str, runs: Sequence[NewRun]) -> list[Entered]:
    specs = [run.spec() for run in runs]
    hashes = [hash_of(spec) for spec in specs]
    with transaction.atomic(using=alias):
        active = _active(alias, [hash_ for run, hash_ in zip(runs, hashes, strict=True) if run.dedupe])
        entered: list[Entered] = []
        for run, hash_ in zip(runs, hashes, strict=True):
            if run.dedupe and hash_ in active:
                entered.append(active[hash_])
                continue
            row = TaskRun.objects.using(alias).create(**row_of(run, hash_))
            entered.append(Entered(RunId(row.result_id), row.enqueued_at))
            active.setdefault(hash_, entered[-1])
    return entered


def _active(alias: str, hashes: Sequence[str]) -> dict[str, Entered]:
    found: dict[str, Entered] = {}
    for start in range(0, len(hashes), _NAMES_AT_ONCE):
        rows = TaskRun.objects.using(alias).filter(
            spec_hash__in=hashes[start : start + _NAMES_AT_ONCE], status__in=(RunState.READY, RunState.RUNNING)
        )
        found.update({hash_: Entered(RunId(run), None) for hash_, run in rows.values_list("spec_hash", "result_id")})
    return found


def row_of(run: NewRun, spec_hash: str) -> dict[str, Any]:
    """Return the columns of *run*, for a database that is written to by models."""
    now = timezone.now()
    return {
        "backend_alias": run.backend_alias,
        "queue_name": run.queue_name,
        "priority": run.priority,
        "run_after": run.run_after,
        "spec_json": run.payload(),
        "spec_hash": spec_hash,
        "task_path": run.task_path,
        "enqueued_at": now,
        "max_attempts": run.max_attempts,
        "timeout_seconds": run.timeout_seconds,
        "lock_key": run.lock_key,
        "concurrency_key": run.concurrency_key,
        "concurrency_limit": run.concurrency_limit,
        "expires_at": None if run.expires_in_s is None else now + timedelta(seconds=run.expires_in_s),
    }
