"""Inserts runs, many in one statement, inside the caller's transaction."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.errors import StoreError, translated
from reproq_supervisor.store.statements import load

# Rows of one statement: past a few thousand nothing is gained, and the arrays grow large.
_BATCH = 2000


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to enqueue. Arguments must be JSON; times count from the database's clock.

    Attributes:
      delay_s: seconds until it is due; `run_after` (aware) says the same as a point in time and wins.
      expires_in_s: seconds after which it is no longer worth running.
      dedupe: True if an active run with the same spec shall be returned instead of a new one.
    """

    task_path: str
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue_name: str = "default"
    priority: int = 0
    run_after: datetime | None = None
    delay_s: float | None = None
    expires_in_s: float | None = None
    max_attempts: int = 3
    timeout_seconds: int = 900
    takes_context: bool = False
    lock_key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int = 0
    dedupe: bool = False

    def spec(self) -> str:
        """Return the contract's payload as canonical JSON, the text that `spec_hash` is taken of.

        Raises:
          ValueError: an argument is no JSON (NaN included).
          TypeError: an argument is no JSON.
        """
        payload = {
            "v": 1,
            "task_path": self.task_path,
            "args": list(self.args),
            "kwargs": self.kwargs,
            "takes_context": self.takes_context,
            "queue_name": self.queue_name,
            "priority": self.priority,
            "lock_key": self.lock_key,
            "concurrency_key": self.concurrency_key,
            "concurrency_limit": self.concurrency_limit,
            "run_after": self.run_after.isoformat() if self.run_after else None,
            "exec": {"timeout_seconds": self.timeout_seconds, "max_attempts": self.max_attempts},
            "provenance": {"code_ref": None, "pip_lock_hash": None},
        }
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def enqueue(connection: psycopg.Connection[Any], runs: Sequence[NewRun]) -> list[RunId]:
    """Insert *runs* and return their ids in order: in the caller's transaction, or where there is none, in one of our own.

    Raises:
      StoreError: a value cannot be stored (NUL in a text, say); nothing was enqueued.
      StoreUnavailable: the database cannot be asked now.
      ValueError, TypeError: an argument is no JSON.
    """
    outside = connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
    with translated(), connection.transaction() if outside else nullcontext():
        return [run for start in range(0, len(runs), _BATCH) for run in _enqueue(connection, runs[start : start + _BATCH])]


def _enqueue(connection: psycopg.Connection[Any], runs: Sequence[NewRun]) -> list[RunId]:
    specs = [run.spec() for run in runs]
    hashes = [hashlib.sha256(spec.encode()).hexdigest() for spec in specs]
    keys = [hash_ if run.dedupe else None for run, hash_ in zip(runs, hashes, strict=True)]
    statement = load("task_runs")["enqueue_unless_active" if any(keys) else "enqueue"]
    inserted = connection.execute(statement, _columns(runs, specs, hashes, keys)).fetchall()
    plain: Iterator[RunId] = iter([run for run, key in inserted if key is None])
    active: dict[str, RunId] = {key: run for run, key in inserted if key is not None}
    wanted = {key for key in keys if key is not None}
    if missing := sorted(wanted - active.keys()):
        active.update(connection.execute(load("task_runs")["active_by_dedupe_key"], {"keys": missing}).fetchall())
    # What was active at the insert and is not any more has ended in between: it is time for a new run.
    for index, key in enumerate(keys):
        if key is not None and key not in active:
            active[key] = _again(connection, runs[index])
    return [next(plain) if key is None else active[key] for key in keys]


def _again(connection: psycopg.Connection[Any], run: NewRun) -> RunId:
    for _ in range(10):
        spec = run.spec()
        key = hashlib.sha256(spec.encode()).hexdigest()
        row = connection.execute(load("task_runs")["enqueue_unless_active"], _columns([run], [spec], [key], [key])).fetchone()
        if row:
            return RunId(row[0])
        found = connection.execute(load("task_runs")["active_by_dedupe_key"], {"keys": [key]}).fetchone()
        if found:
            return RunId(found[1])
    raise StoreError(f"{run.task_path}: expected to insert the run or find its duplicate, got neither in ten attempts")


def _columns(runs: Sequence[NewRun], specs: list[str], hashes: list[str], keys: Sequence[str | None]) -> dict[str, Any]:
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
        "dedupe_keys": list(keys),
    }
