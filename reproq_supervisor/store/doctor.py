"""Looks for what is wrong, or will be, with the database."""

from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.examine import beside, catalogue, runs, server, tables
from reproq_supervisor.store.examine.finding import Check, Connection, Finding, Level
from reproq_supervisor.store.statements import load

__all__ = ["Finding", "Level", "doctor", "served_queues"]

_ALWAYS: tuple[Check, ...] = (server.server, server.clocks, catalogue.schema, catalogue.triggers, server.transactions)
_OF_OUR_SCHEMA: tuple[Check, ...] = (
    runs.invariant,
    runs.statuses,
    runs.unsettled,
    runs.parentless,
    runs.shared_queues,
    runs.expired,
    runs.overdue,
    runs.workers,
    beside.older_workers,
    catalogue.indexes,
    server.rights,
    tables.updates,
    tables.statistics,
    tables.lane,
    tables.autovacuum,
)


def doctor(connection: Connection) -> list[Finding]:
    """Run every check; with an old or absent schema only those that need none, and what is known of its triggers.

    Raises:
      StoreUnavailable: the database cannot be asked now.
      StoreError: the schema is newer than this program, or the tables belong to another product.
    """
    with translated():
        findings = [finding for check in _ALWAYS for finding in check(connection)]
        if any(finding.check == "schema" and finding.level is Level.OK for finding in findings):
            findings += [finding for check in _OF_OUR_SCHEMA for finding in check(connection)]
    return findings


def served_queues(connection: Connection, within_s: float) -> frozenset[str]:
    """Return the queues that a worker serves which was seen within so many seconds, ours or an older one."""
    with translated():
        return frozenset(name for (name,) in connection.execute(load("doctor")["served_queues"], {"within_s": within_s}))
