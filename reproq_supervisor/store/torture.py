"""What the command `torture` asks of the runs it enqueued, thousands at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.commands import cancel
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What the database says of a run.

    Attributes:
      lane_state: ready, running, parked or waiting; None when it has ended.
      errors: attempts that failed.
      waited_s: from enqueue to the start of its first attempt, by the database's clock; None when it has not started.
      ran_s: from there to its end; None when it has not ended.
    """

    result_id: RunId
    status: str
    lane_state: str | None = None
    park_reason: str | None = None
    attempts: int = 1
    return_json: Any = None
    last_error: str | None = None
    errors: int = 0
    waited_s: float | None = None
    ran_s: float | None = None


def open_count(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> int:
    """Return how many of *runs* have not ended."""
    with translated():
        row = connection.execute(load("torture")["open_count"], {"ids": list(runs)}).fetchone()
    assert row is not None, "a count has one row"
    return int(row[0])


def outcomes(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> dict[RunId, RunOutcome]:
    """Return what became of *runs*, by id; those that are gone are not there."""
    with translated(), connection.cursor(row_factory=class_row(RunOutcome)) as cursor:
        return {each.result_id: each for each in cursor.execute(load("torture")["outcomes"], {"ids": list(runs)})}


def cancel_open(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> int:
    """Cancel those of *runs* that have not ended; return how many that were."""
    with translated():
        left = [run for (run,) in connection.execute(load("torture")["open_ids"], {"ids": list(runs)})]
    for start in range(0, len(left), _BATCH):
        cancel(connection, left[start : start + _BATCH])
    return len(left)


def remove(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> None:
    """Remove the records of *runs*; those that have not ended stay."""
    with translated():
        for start in range(0, len(runs), _BATCH):
            connection.execute(load("torture")["remove"], {"ids": list(runs[start : start + _BATCH])})
