"""Inserts runs, many in one statement, inside the caller's transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.asking import Query, Question, Rows, ask
from reproq_supervisor.store.copying import Check, parts_of
from reproq_supervisor.store.errors import StoreError
from reproq_supervisor.store.hashes import hash_of
from reproq_supervisor.store.statements import load

__all__ = ["COPY_FROM", "Entered", "NewRun", "columns_of", "enqueue", "enqueuing", "entering", "hash_of"]

# Rows of one statement: past a few thousand nothing is gained, and the arrays grow large.
_BATCH = 2000
# From here on COPY: the server works at its rows while the next are written. It cannot look for duplicates.
COPY_FROM = 5000


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of a run that was to be enqueued. `enqueued_at`: None if it was not inserted, for an active run has the same content."""

    result_id: RunId
    enqueued_at: datetime | None


def enqueue(connection: psycopg.Connection[Any], runs: Sequence[NewRun]) -> list[RunId]:
    """Insert *runs* and return their ids in order: in the caller's transaction, or where there is none, in one of our own.

    Raises:
      StoreError: a value cannot be stored (NUL in a text, say); nothing was enqueued.
      StoreUnavailable: the database cannot be asked now.
      ValueError, TypeError: an argument is no JSON.
    """
    return ask(connection, enqueuing(runs))


def enqueuing(runs: Sequence[NewRun], check: Check | None = None) -> Question[list[RunId]]:
    """Insert *runs*, and return their ids in order.

    Args:
      check: raises for a run that is not to be stored, and then none is.
    """
    if _is_for_copy(runs):
        return (yield from _copying(runs, check))[0]
    if check:
        for run in runs:
            check(run)
    return [each.result_id for each in (yield from entering(runs))]


def entering(runs: Sequence[NewRun]) -> Question[list[Entered]]:
    """Insert *runs*, and return what became of each, in order."""
    if _is_for_copy(runs):
        ids, at = yield from _copying(runs, None)
        return [Entered(id_, at) for id_ in ids]
    if len(runs) == 1 and not runs[0].dedupe:
        return (yield from _inserting_one(runs[0]))
    entered: list[Entered] = []
    for start in range(0, len(runs), _BATCH):
        entered += yield from _inserting(runs[start : start + _BATCH])
    return entered


def _inserting_one(run: NewRun) -> Question[list[Entered]]:
    spec = run.spec()
    rows = yield Query(load("task_runs")["enqueue_one"], {**_values_of(run), "spec": spec, "spec_hash": hash_of(spec)}, is_whole=True)
    return [Entered(RunId(id_), at) for id_, _, at in rows]


def _inserting(runs: Sequence[NewRun]) -> Question[list[Entered]]:
    specs = [run.spec() for run in runs]
    hashes = [hash_of(spec) for spec in specs]
    keys = [hash_ if run.dedupe else None for run, hash_ in zip(runs, hashes, strict=True)]
    statement = load("task_runs")["enqueue_unless_active" if any(keys) else "enqueue"]
    inserted = yield Query(statement, {**columns_of(runs, specs, hashes), "dedupe_keys": keys})
    plain: Iterator[Entered] = iter([Entered(run, at) for run, key, at in inserted if key is None])
    active: dict[str, Entered] = {key: Entered(run, at) for run, key, at in inserted if key is not None}
    wanted = {key for key in keys if key is not None}
    if missing := sorted(wanted - active.keys()):
        found = yield Query(load("task_runs")["active_by_dedupe_key"], {"keys": missing})
        active.update({key: Entered(run, None) for key, run in found})
    # What was active at the insert and is not any more has ended in between: it is time for a new run.
    for index, key in enumerate(keys):
        if key is not None and key not in active:
            active[key] = yield from _again(runs[index])
    return [next(plain) if key is None else active[key] for key in keys]


def _again(run: NewRun) -> Question[Entered]:
    for _ in range(10):
        spec = run.spec()
        key = hash_of(spec)
        parameters = {**columns_of([run], [spec], [key]), "dedupe_keys": [key]}
        if rows := (yield Query(load("task_runs")["enqueue_unless_active"], parameters)):
            return Entered(RunId(rows[0][0]), rows[0][2])
        if found := (yield Query(load("task_runs")["active_by_dedupe_key"], {"keys": [key]})):
            return Entered(RunId(found[0][1]), None)
    raise StoreError(f"{run.task_path}: expected to insert the run or find its duplicate, got neither in ten attempts")


def _is_for_copy(runs: Sequence[NewRun]) -> bool:
    return len(runs) >= COPY_FROM and not any(run.dedupe for run in runs)


def _copying(runs: Sequence[NewRun], check: Check | None) -> Question[tuple[list[RunId], datetime]]:
    ((ids, now),) = yield Query(load("task_runs")["draw_ids"], {"count": len(runs)})
    yield Rows(load("task_runs")["enqueue_by_copy"], parts_of(runs, ids, now, check))
    return ids, now


def _values_of(run: NewRun) -> dict[str, Any]:
    return {
        "queue_name": run.queue_name,
        "priority": run.priority,
        "run_after": run.run_after,
        "delay_s": run.delay_s,
        "task_path": run.task_path,
        "max_attempts": run.max_attempts,
        "timeout_s": run.timeout_seconds,
        "lock_key": run.lock_key,
        "concurrency_key": run.concurrency_key,
        "concurrency_limit": run.concurrency_limit,
        "expires_in_s": run.expires_in_s,
        "backend_alias": run.backend_alias,
    }


def columns_of(runs: Sequence[NewRun], specs: Sequence[str], hashes: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that every insert of runs takes."""
    return {
        "queue_names": [run.queue_name for run in runs],
        "priorities": [run.priority for run in runs],
        "run_afters": [run.run_after for run in runs],
        "delays_s": [run.delay_s for run in runs],
        "specs": text_array(specs),
        "spec_hashes": text_array(hashes),
        "task_paths": [run.task_path for run in runs],
        "max_attempts": [run.max_attempts for run in runs],
        "timeouts_s": [run.timeout_seconds for run in runs],
        "lock_keys": [run.lock_key for run in runs],
        "concurrency_keys": [run.concurrency_key for run in runs],
        "concurrency_limits": [run.concurrency_limit for run in runs],
        "expire_ins_s": [run.expires_in_s for run in runs],
        "backend_aliases": [run.backend_alias for run in runs],
    }
