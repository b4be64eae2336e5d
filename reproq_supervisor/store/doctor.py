"""Looks for what is wrong, or will be, with the database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg

from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.migrate import plan
from reproq_supervisor.store.statements import load

OLDEST_SERVER = 150000
_NEWEST_CHECKED = 1_000_000
_ENOUGH_UPDATES = 10_000
_LONG_TRANSACTION_S = 300


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `remedy`: what to do about it, '' when there is nothing to do."""

    level: Level
    check: str
    message: str
    remedy: str = ""


def doctor(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Run every check; with an old or absent schema only those that need none.

    Raises:
      StoreUnavailable: the database cannot be asked now.
      StoreError: the schema is newer than this program.
    """
    with translated():
        findings = [*_server(connection), *_schema(connection)]
        if all(finding.check != "schema" or finding.level is Level.OK for finding in findings):
            for check in _CHECKS:
                findings += check(connection)
    return findings


def _server(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    version, encoding, is_standby = _row(connection, "server")
    if version < OLDEST_SERVER:
        yield Finding(Level.ERROR, "server", f"PostgreSQL: expected 15 or later, got {version // 10000}", "upgrade the server")
    if encoding != "UTF8":
        yield Finding(Level.ERROR, "server", f"encoding: expected UTF8, got {encoding}", "create the database with ENCODING 'UTF8'")
    if is_standby:
        yield Finding(Level.ERROR, "server", "expected a primary, got a standby, which cannot be written to", "use the primary's address")


def _schema(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    missing = plan(connection)
    required = [step.name for step in missing if step.is_required]
    if required:
        yield Finding(Level.ERROR, "schema", f"not up to date, missing: {', '.join(required)}", "run `reproq-supervisor migrate`")
        return
    if missing:
        names = ", ".join(step.name for step in missing)
        yield Finding(Level.WARNING, "older layout", f"left over, and makes every write dearer: {names}", "run `reproq-supervisor migrate`")
    yield Finding(Level.OK, "schema", "up to date")


def _invariant(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    faults = connection.execute(load("doctor")["invariant"], {"newest": _NEWEST_CHECKED}).fetchall()
    for fault, count in faults:
        yield Finding(Level.ERROR, "invariant", f"{count} runs: {fault}", "restart the keeper: it repairs this when it starts")
    if not faults:
        yield Finding(Level.OK, "invariant", "every run that has not ended has its lane row, and no other has")


def _parked(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    (count,) = _row(connection, "unsupported")
    if count:
        yield Finding(
            Level.WARNING,
            "unsupported",
            f"{count} runs fall under a rate limit or belong to a workflow; this version does not claim them",
        )
    (count,) = _row(connection, "waiting")
    if count:
        yield Finding(Level.NOTE, "waiting", f"{count} runs wait for others; this version does not run workflows")


def _indexes(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    for (name,) in connection.execute(load("doctor")["foreign_indexes"]):
        yield Finding(
            Level.WARNING,
            "indexes",
            f"index {name} is not ours and makes every write dearer",
            f"drop it if nobody needs it: DROP INDEX {name}",
        )
    for (name,) in connection.execute(load("doctor")["invalid_indexes"]):
        yield Finding(
            Level.WARNING, "indexes", f"index {name} is invalid: it is kept up but never used", f"REINDEX INDEX CONCURRENTLY {name}"
        )


def _triggers(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    for (name,) in connection.execute(load("doctor")["triggers"]):
        yield Finding(
            Level.ERROR,
            "triggers",
            f"trigger {name} is missing or disabled: runs of some producers are lost",
            "ALTER TABLE task_runs ENABLE TRIGGER USER",
        )


def _updates(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    updates, share = _row(connection, "hot_ratio")
    if updates and updates > _ENOUGH_UPDATES:
        yield Finding(Level.NOTE, "updates", f"{share:.0%} of {updates} updates of task_runs touched no index")


def _transactions(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    (oldest_s,) = _row(connection, "oldest_snapshot")
    if oldest_s is not None and oldest_s > _LONG_TRANSACTION_S:
        yield Finding(
            Level.WARNING,
            "transactions",
            f"a transaction has been open for {oldest_s:.0f} s; no dead row is removed meanwhile, and claims grow slower",
            "end it (pg_stat_activity, oldest xact_start)",
        )


def _row(connection: psycopg.Connection[Any], name: str) -> tuple[Any, ...]:
    row = connection.execute(load("doctor")[name]).fetchone()
    assert row is not None, f"doctor.{name} has one row"
    return tuple(row)


_CHECKS: tuple[Callable[[psycopg.Connection[Any]], Iterator[Finding]], ...] = (
    _invariant,
    _parked,
    _indexes,
    _triggers,
    _updates,
    _transactions,
)
