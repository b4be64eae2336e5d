"""Inserts runs by models, where the store does not speak the database's SQL: SQLite, on which many projects run their own tests.

The rows are those that PostgreSQL would get. Nobody runs them, so there is no lane, and whoever inserts a duplicate looks for it first.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from reproq_django.models import RunState, TaskRun, WorkflowRun
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import Entered, hash_of

_NAMES_AT_ONCE = 500  # SQLite takes no more than 999 parameters in old versions


def insert_by_models(alias: str, runs: Sequence[NewRun]) -> list[Entered]:
    """Insert *runs*, all of them or none, and return what became of each, in order."""
    specs = [run.spec() for run in runs]
    hashes = [hash_of(spec) for spec in specs]
    with transaction.atomic(using=alias):
        active = _active(alias, [hash_ for run, hash_ in zip(runs, hashes, strict=True) if run.dedupe])
        entered: list[Entered] = []
        for run, hash_ in zip(runs, hashes, strict=True):
            if run.dedupe and hash_ in active:
                entered.append(active[hash_])
                continue
            row = TaskRun.objects.using(alias).create(**_row_of(run, hash_))
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


def _row_of(run: NewRun, spec_hash: str) -> dict[str, Any]:
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


def chain_by_models(alias: str, runs: Sequence[NewRun], workflow_id: uuid.UUID) -> list[RunId]:
    """Insert *runs*, of which each waits for the one before it; return their ids in order."""
    ids: list[RunId] = []
    with transaction.atomic(using=alias):
        for run in runs:
            waits = {"status": RunState.WAITING, "parent_id": ids[-1], "wait_count": 1} if ids else {}
            ids.append(_place(alias, run, workflow_id, waits))
    return ids


def group_by_models(alias: str, runs: Sequence[NewRun], workflow_id: uuid.UUID) -> list[RunId]:
    """Insert *runs* beside each other; return their ids in order."""
    with transaction.atomic(using=alias):
        return [_place(alias, run, workflow_id, {}) for run in runs]


def chord_by_models(alias: str, runs: Sequence[NewRun], callback: NewRun, workflow_id: uuid.UUID) -> tuple[list[RunId], RunId]:
    """Insert *runs* and the *callback* that waits for all of them; return their ids in order, and the callback's."""
    with transaction.atomic(using=alias):
        ids = group_by_models(alias, runs, workflow_id)
        last = _place(alias, callback, workflow_id, {"status": RunState.WAITING, "wait_count": len(runs)} if runs else {})
        WorkflowRun.objects.using(alias).create(
            workflow_id=workflow_id,
            expected_count=len(runs),
            callback_result_id=last,
            status="RUNNING" if runs else "WAITING_CALLBACK",
        )
    return ids, last


def _place(alias: str, run: NewRun, workflow_id: uuid.UUID, waits: dict[str, Any]) -> RunId:
    row = TaskRun.objects.using(alias).create(**{**_row_of(run, uuid.uuid4().hex), "workflow_id": workflow_id, **waits})
    return RunId(row.result_id)
