"""What the command line and other blocking callers ask of the store, on a connection of theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import class_row

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

__all__ = ["CancelOutcome", "EndedCounts", "NewRun", "QueueStats", "RunView", "Stats", "cancel", "enqueue", "logs_uri", "result", "stats"]

# The history is counted as long as that reads no more than this; above, a sample of this size stands for it.
_COUNTED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as readers should see it: its record, and until it has ended, the truth of the lane.

    Attributes:
      lane_state: ready, running, parked or waiting; None when it has ended.
      park_reason: why it is parked.
      due_at: when it is or was due to run.
    """

    result_id: RunId
    task_path: str
    queue_name: str
    priority: int
    status: str
    lane_state: str | None
    park_reason: str | None
    attempts: int
    max_attempts: int
    enqueued_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    leased_by: str | None
    cancel_requested: bool
    return_json: Any
    errors_json: list[dict[str, Any]]
    last_error: str | None
    logs_uri: str | None


class CancelOutcome(StrEnum):
    """What `cancel` did with a run."""

    CANCELLED = "cancelled"  # it waited, and has ended now
    REQUESTED = "requested"  # it runs; its shard has been told
    ENDED = "ended"  # it had ended before
    UNKNOWN = "unknown"


@dataclass(slots=True)
class EndedCounts:
    """How many runs of a queue have ended, in the history that is kept."""

    successful: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(slots=True)
class QueueStats:
    """One queue now.

    Attributes:
      oldest_ready_s: seconds since its oldest ready run became due.
      paused: the reason ('' when none was given); None when it is not paused.
    """

    ready: int = 0
    running: int = 0
    parked: int = 0
    waiting: int = 0
    oldest_ready_s: float | None = None
    paused: str | None = None
    ended: EndedCounts = field(default_factory=EndedCounts)


@dataclass(frozen=True, slots=True)
class Stats:
    """All queues by name. `ended_is_estimate`: the ended ones were estimated from a sample, because the history is large."""

    queues: dict[str, QueueStats]
    ended_is_estimate: bool


def result(connection: psycopg.Connection[Any], run: RunId) -> RunView | None:
    """Return the run, None if there is none (it may have been pruned)."""
    with translated(), connection.cursor(row_factory=class_row(RunView)) as cursor:
        return cursor.execute(load("reading")["result"], {"id": run}).fetchone()


def logs_uri(connection: psycopg.Connection[Any], run: RunId) -> str | None:
    """Return where the captured output of the run's last attempt is; None if there is none, or no such run."""
    with translated():
        row = connection.execute(load("reading")["logs_uri"], {"id": run}).fetchone()
    return row[0] if row else None


def cancel(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> dict[RunId, CancelOutcome]:
    """Cancel runs: those that wait end at once, the shards of those that run are told when this transaction commits."""
    with translated():
        rows = connection.execute(load("reading")["cancel"], {"ids": list(runs)}).fetchall()
    return {run: CancelOutcome(outcome) for run, outcome in rows}


def stats(connection: psycopg.Connection[Any]) -> Stats:
    """Return what is in every queue. Reads the lane (as large as the backlog), and at most 64 MiB of the history."""
    queues: dict[str, QueueStats] = {}
    with translated():
        for queue, state, count, oldest_s in connection.execute(load("reading")["lane_stats"]):
            entry = queues.setdefault(queue, QueueStats())
            setattr(entry, state, count)
            if state == "ready":
                entry.oldest_ready_s = oldest_s
        for queue, reason in connection.execute(load("reading")["paused"]):
            queues.setdefault(queue, QueueStats()).paused = reason or ""
        share = _share_to_read(connection)
        for queue, status, count in _ended(connection, share):
            setattr(queues.setdefault(queue, QueueStats()).ended, status.lower(), round(count / share))
    return Stats(dict(sorted(queues.items())), ended_is_estimate=share < 1)


def _share_to_read(connection: psycopg.Connection[Any]) -> float:
    row = connection.execute(load("reading")["record_pages"]).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    pages, page_bytes = row
    size: int = pages * page_bytes
    return min(1.0, _COUNTED_BYTES / max(1, size))


def _ended(connection: psycopg.Connection[Any], share: float) -> list[tuple[str, str, int]]:
    if share >= 1:
        return connection.execute(load("reading")["ended_exact"]).fetchall()
    return connection.execute(load("reading")["ended_sampled"], {"percent": share * 100}).fetchall()
