"""Leases that have expired, taken back by an operator's hand; the keeper does the same every few seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg

from reproq_supervisor.core.runs import LeaseNo, RunId
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load


class ReclaimAction(StrEnum):
    """What follows for a run whose lease has expired."""

    REQUEUE = "requeue"  # as the keeper does: an attempt that counts, and another while any is left
    FAIL = "fail"


class ReclaimOutcome(StrEnum):
    """What became of it; `reproq_reclaim_these` says more."""

    REQUEUED = "requeued"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RENEWED = "renewed"
    LOCKED = "locked"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A lease that has ended. `ago_s`: for how long."""

    result_id: RunId
    lease_no: LeaseNo
    leased_by: str
    ago_s: float


def expired_leases(connection: psycopg.Connection[Any], older_s: float, limit: int | None) -> list[ExpiredLease]:
    """Return leases that ended at least so long ago, the oldest first."""
    with translated():
        rows = connection.execute(load("triage")["expired_leases"], {"older_s": older_s, "limit": limit})
        return [ExpiredLease(*row) for row in rows]


def reclaim(
    connection: psycopg.Connection[Any], leases: Sequence[ExpiredLease], older_s: float, action: ReclaimAction
) -> dict[RunId, ReclaimOutcome]:
    """End these attempts, in one transaction, each on its own, if their leases still are the ones that expired."""
    parameters = {
        "ids": [lease.result_id for lease in leases],
        "lease_nos": [lease.lease_no for lease in leases],
        "older_s": older_s,
        "action": str(action),
    }
    with translated():
        return {run: ReclaimOutcome(outcome) for run, outcome in connection.execute(load("triage")["reclaim"], parameters)}
