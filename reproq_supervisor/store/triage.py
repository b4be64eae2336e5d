"""Ended runs for an operator: found by filters, page by page, and made to run again one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg

from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.asking import Query, Question, ask
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.filters import Filter
from reproq_supervisor.store.statements import load

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the line of ended runs, which is read from the newest on: the run that was read last."""

    at: str
    result_id: int


START = Place("infinity", 2**63 - 1)


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run as the list shows it. `kind`: of its last error."""

    result_id: RunId
    queue_name: str
    task_path: str
    status: str
    attempts: int
    max_attempts: int
    ended_at: datetime
    last_error: str | None
    kind: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some ended runs, the newest first. `rest`: where the next page begins, None after the last."""

    runs: list[EndedRun]
    rest: Place | None


class RetryOutcome(StrEnum):
    """What became of a run that was to be retried; `reproq_retry` says more."""

    RETRIED = "retried"
    DUPLICATE = "duplicate"
    FOLLOWS = "follows"
    EXPIRED = "expired"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    LOCKED = "locked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Retried:
    """What `retry` did with one run. `other`: the run that stands in its way, or that it waits for."""

    result_id: RunId
    outcome: RetryOutcome
    other: RunId | None


def page(connection: psycopg.Connection[Any], wanted: Filter, limit: int, before: Place = START) -> Page:
    """Return up to *limit* ended runs that match, the newest first, of those behind *before*.

    Failures alone are read in the order of their times, by an index; with other statuses it is the order of ids, and the whole history may
    be read for few matches.
    """
    name = "failed" if wanted.statuses == (RunStatus.FAILED,) else "ended"
    parameters = {**wanted.parameters(), "before_at": before.at, "before_id": before.result_id, "limit": limit}
    with translated():
        rows = connection.execute(load("triage")[name], parameters).fetchall()
    runs = [EndedRun(*row[:-1]) for row in rows]
    return Page(runs, Place(rows[-1][-1], rows[-1][0]) if len(rows) == limit else None)


def matching(connection: psycopg.Connection[Any], wanted: Filter) -> list[RunId]:
    """Return every ended run that matches, the oldest first."""
    return [run.result_id for run in _all(connection, wanted)][::-1]


def retry(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> list[Retried]:
    """Make ended runs active again, in one transaction, each on its own; what stands in the way of one costs the others nothing."""
    return ask(connection, retrying(runs))


def retrying(runs: Sequence[RunId]) -> Question[list[Retried]]:
    """Make ended runs active again, and return what became of each."""
    rows = yield Query(load("triage")["retry"], {"ids": list(runs)})
    return [Retried(run, RetryOutcome(outcome), other) for run, outcome, other in rows]


def _all(connection: psycopg.Connection[Any], wanted: Filter) -> Iterator[EndedRun]:
    rest: Place | None = START
    while rest is not None:
        found = page(connection, wanted, _PAGE, rest)
        yield from found.runs
        rest = found.rest


def active(connection: psycopg.Connection[Any], wanted: Filter) -> list[RunId]:
    """Return every run that has not ended and matches, the oldest first; `since` and `until` are about when it was enqueued."""
    runs: list[RunId] = []
    while True:
        parameters = {**wanted.parameters(), "after_id": runs[-1] if runs else 0, "limit": _PAGE}
        with translated():
            found = [RunId(row[0]) for row in connection.execute(load("triage")["active"], parameters)]
        runs += found
        if len(found) < _PAGE:
            return runs


class ReplayOutcome(StrEnum):
    """What became of a run whose task was to be enqueued anew; `reproq_replay` says more."""

    ENQUEUED = "enqueued"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What `replay` did with one run. `other`: the new run, or the active one of the same content."""

    result_id: RunId
    outcome: ReplayOutcome
    other: RunId | None


def replay(connection: psycopg.Connection[Any], runs: Sequence[RunId]) -> list[Replayed]:
    """Enqueue the tasks of runs anew, in one transaction, each on its own."""
    with translated():
        rows = connection.execute(load("triage")["replay"], {"ids": list(runs)}).fetchall()
    return [Replayed(run, ReplayOutcome(outcome), other) for run, outcome, other in rows]


def newest_by_hash(connection: psycopg.Connection[Any], spec_hash: str) -> RunId | None:
    """Return the newest run with this content; may read the whole history."""
    with translated():
        row = connection.execute(load("triage")["newest_by_hash"], {"spec_hash": spec_hash}).fetchone()
    return row[0] if row else None
