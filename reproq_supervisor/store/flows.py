"""Inserts workflows as the contract has them: chains, groups and chords, whole or not at all."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.arrays import text_array
from reproq_supervisor.store.asking import Query, Question
from reproq_supervisor.store.enqueue import NewRun, columns_of
from reproq_supervisor.store.statements import load


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a new run stands in its workflow: what it waits for."""

    status: RunStatus
    parent_id: RunId | None = None
    wait_count: int = 0


def chaining(runs: Sequence[NewRun], workflow_id: uuid.UUID) -> Question[list[RunId]]:
    """Insert *runs*, of which each waits until the one before it has succeeded; return their ids in order."""
    ids = yield from _drawing(len(runs))
    places = [Placed(RunStatus.READY), *(Placed(RunStatus.WAITING, before, 1) for before in ids[:-1])]
    yield from _placing(runs, ids, places[: len(runs)], workflow_id)
    return ids


def grouping(runs: Sequence[NewRun], workflow_id: uuid.UUID) -> Question[list[RunId]]:
    """Insert *runs*, which have nothing but the id of their workflow in common; return their ids in order."""
    ids = yield from _drawing(len(runs))
    yield from _placing(runs, ids, [Placed(RunStatus.READY)] * len(runs), workflow_id)
    return ids


def chording(runs: Sequence[NewRun], callback: NewRun, workflow_id: uuid.UUID) -> Question[tuple[list[RunId], RunId]]:
    """Insert *runs* and a *callback* that waits until all of them have succeeded; return their ids in order, and the callback's."""
    *ids, last = yield from _drawing(len(runs) + 1)
    waits = Placed(RunStatus.WAITING, wait_count=len(runs)) if runs else Placed(RunStatus.READY)
    # First, so that no member can end before it.
    flow = {"id": workflow_id, "members": len(runs), "callback": last}
    yield Query(load("workflow_runs")["begin"], flow)
    yield from _placing([callback, *runs], [last, *ids], [waits, *[Placed(RunStatus.READY)] * len(runs)], workflow_id)
    return ids, last


def _drawing(count: int) -> Question[list[RunId]]:
    ((ids, _),) = yield Query(load("task_runs")["draw_ids"], {"count": count})
    return [RunId(run) for run in ids or ()]


def _placing(runs: Sequence[NewRun], ids: Sequence[RunId], places: Sequence[Placed], workflow_id: uuid.UUID) -> Question[None]:
    # The contract's own hash for runs of workflows: two of the same content are two.
    hashes = [uuid.uuid4().hex for _ in runs]
    parameters = {
        **columns_of(runs, [run.spec() for run in runs], hashes),
        "ids": list(ids),
        "statuses": text_array(place.status for place in places),
        "parents": [place.parent_id for place in places],
        "waits": [place.wait_count for place in places],
        "workflow_id": workflow_id,
    }
    yield Query(load("task_runs")["enqueue_flow"], parameters)
