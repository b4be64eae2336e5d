"""What the command line and other blocking callers ask of the store, on a connection of theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import class_row

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.asking import Query, Question, ask
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

__all__ = [
    "CancelOutcome",
    "EndedCounts",
    "NewRun",
    "QueueStats",
    "RunView",
    "Stats",
    "cancel",
    "cancelling",
    "counting",
    "enqueue",
    "logs_uri",
    "reading",
    "result",
    "stats",
    "watching",
]

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
    metadata_json: dict[str, Any] = field(default_factory=dict)


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


def reading(runs: Sequence[RunId]) -> Question[dict[RunId, RunView]]:
    """Return those of these runs that exist."""
    rows = yield Query(load("reading")["results"], {"ids": list(runs)})
    return {view.result_id: view for view in (RunView(*row) for row in rows)}


def watching(runs: Sequence[RunId]) -> Question[frozenset[RunId]]:
    """Return those of these runs that have not ended."""
    return frozenset(RunId(run) for (run,) in (yield Query(load("reading")["open_runs"], {"ids": list(runs)})))


def cancel(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> dict[RunId, CancelOutcome]:
    """Cancel runs: those that wait end at once, the shards of those that run are told when this transaction commits."""
    return ask(connection, cancelling(runs))


def cancelling(runs: Sequence[RunId], *, leaves_word: bool = False) -> Question[dict[RunId, CancelOutcome]]:
    """Cancel runs, and return what that did.

    Args:
      leaves_word: in a transaction that others may keep open: who waits for the runs' keys or workflows is seen to after its commit, by a
        shard or the keeper, and nobody is kept waiting until then.
    """
    rows = yield Query(load("reading")["cancel"], {"ids": list(runs), "leaves_word": leaves_word})
    return {run: CancelOutcome(outcome) for run, outcome in rows}


def stats(connection: psycopg.Connection[Any]) -> Stats:
    """Return what is in every queue. Reads the lane (as large as the backlog), and at most 64 MiB of the history."""
    return ask(connection, counting())


def counting() -> Question[Stats]:
    """Return what is in every queue."""
    queues: dict[str, QueueStats] = {}
    for queue, state, count, oldest_s in (yield Query(load("reading")["lane_stats"], {})):
        entry = queues.setdefault(queue, QueueStats())
        setattr(entry, state, count)
        if state == "ready":
            entry.oldest_ready_s = oldest_s
    for queue, reason in (yield Query(load("reading")["paused"], {})):
        queues.setdefault(queue, QueueStats()).paused = reason or ""
    ((pages, page_bytes),) = yield Query(load("reading")["record_pages"], {})
    share: float = min(1.0, _COUNTED_BYTES / max(1, pages * page_bytes))
    how = Query(load("reading")["ended_sampled"], {"percent": share * 100}) if share < 1 else Query(load("reading")["ended_exact"], {})
    for queue, status, count in (yield how):
        setattr(queues.setdefault(queue, QueueStats()).ended, status.lower(), round(count / share))
    return Stats(dict(sorted(queues.items())), ended_is_estimate=share < 1)
