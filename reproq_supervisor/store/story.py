"""All there is to know about one run, for an operator."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.commands import RunView, result
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load


@dataclass(frozen=True, slots=True)
class Details:
    """What the record and the lane say beside the view.

    Attributes:
      is_deduped: whether it is the active run of its content.
      on_key: the key or the rate that it is parked on.
      releases: attempts given back uncounted; `crashes`: lost to a dead executor or lease; `deaths`: of shards before it was seen to run.
    """

    spec: Any
    spec_hash: str
    metadata: Any
    worker_ids: Any
    last_attempted_at: datetime | None
    failed_at: datetime | None
    expires_at: datetime | None
    timeout_s: int
    lock_key: str | None
    concurrency_key: str | None
    concurrency_limit: int
    is_deduped: bool
    on_key: str | None
    leased_until: datetime | None
    lease_no: int | None
    releases: int | None
    crashes: int | None
    deaths: int | None
    parent_id: RunId | None
    workflow_id: UUID | None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A run that holds a key which this one names."""

    key: str
    result_id: RunId
    leased_by: str


@dataclass(frozen=True, slots=True)
class Child:
    """A run that waits, or waited, for this one."""

    result_id: RunId
    task_path: str
    status: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """The workflow of a run. `status`, `callback` and `expected` are of a chord; `runs`: how many are in each status."""

    workflow_id: UUID
    status: str | None
    callback: RunId | None
    expected: int | None
    runs: dict[str, int]


@dataclass(frozen=True, slots=True)
class Story:
    """One run, and what it has to do with others."""

    run: RunView
    details: Details
    key_holders: list[KeyHolder]
    children: list[Child]
    workflow: Workflow | None


def tell(connection: psycopg.Connection[Any], run: RunId) -> Story | None:
    """Return the run's story, None if there is no such run."""
    statements = load("story")
    with translated(), connection.transaction():
        view = result(connection, run)
        row = connection.execute(statements["story"], {"id": run}).fetchone()
        if view is None or row is None:
            return None
        details = Details(*row)
        holders = [KeyHolder(*each) for each in connection.execute(statements["key_holders"], {"id": run})]
        children = [Child(*each) for each in connection.execute(statements["children"], {"id": run})]
        return Story(view, details, holders, children, _workflow(connection, details.workflow_id))


def _workflow(connection: psycopg.Connection[Any], workflow_id: UUID | None) -> Workflow | None:
    if workflow_id is None:
        return None
    row = connection.execute(load("story")["workflow"], {"workflow_id": workflow_id}).fetchone()
    assert row is not None, "a LEFT JOIN of one row has one row"
    status, callback, expected, runs = row
    return Workflow(workflow_id, status, callback, expected, runs or {})
