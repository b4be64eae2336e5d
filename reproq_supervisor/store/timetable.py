"""Schedules as commands see them: list, add, remove, switch on and off."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.asking import Query, Question
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

COLUMNS = (
    *("cron_expr", "timezone", "task_path", "payload_json", "queue_name", "priority", "max_attempts", "timeout_seconds"),
    *("concurrency_key", "concurrency_limit", "jitter_s", "overlap", "missed", "enabled"),
)
"""What people say of a schedule, beside its name."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of `periodic_tasks`.

    Attributes:
      payload_json: JSON text in one of the contract's forms.
      disabled_reason: why it was disabled, if somebody said.
      is_declared: a configuration file, or code, has made it.
    """

    name: str
    cron_expr: str
    timezone: str
    task_path: str
    payload_json: str
    queue_name: str
    priority: int
    max_attempts: int
    timeout_seconds: int
    concurrency_key: str | None
    concurrency_limit: int
    jitter_s: float
    overlap: str
    missed: str
    enabled: bool
    next_run_at: datetime
    last_run_at: datetime | None
    disabled_reason: str | None
    last_result_id: int | None
    is_declared: bool


def database_clock(connection: psycopg.Connection[Any]) -> datetime:
    """Return the clock by which schedules fire."""
    with translated():
        row = connection.execute(load("timetable")["clock"]).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    found: datetime = row[0]
    return found


def every(connection: psycopg.Connection[Any]) -> list[Schedule]:
    """Return all schedules by name."""
    with translated(), connection.cursor(row_factory=class_row(Schedule)) as cursor:
        return cursor.execute(load("timetable")["list"], {"name": None}).fetchall()


def find(connection: psycopg.Connection[Any], name: str) -> Schedule | None:
    """Return one schedule; None if there is none of that name."""
    with translated(), connection.cursor(row_factory=class_row(Schedule)) as cursor:
        return cursor.execute(load("timetable")["list"], {"name": name}).fetchone()


def add(connection: psycopg.Connection[Any], name: str, columns: Mapping[str, Any], next_run_at: datetime, *, replace: bool) -> bool:
    """Add a schedule, or with *replace* change the one of that name; answer whether that was done.

    Args:
      columns: all of `COLUMNS`; `payload_json` as JSON text.
    """
    parameters = {**columns, "name": name, "next_run_at": next_run_at, "replace": replace}
    with translated():
        return connection.execute(load("timetable")["add"], parameters).fetchone() is not None


def remove(connection: psycopg.Connection[Any], name: str) -> bool:
    """Remove a schedule; runs that it has enqueued stay. Answer whether there was one."""
    with translated():
        return connection.execute(load("timetable")["remove"], {"name": name}).fetchone() is not None


def enable(connection: psycopg.Connection[Any], name: str, next_run_at: datetime) -> bool:
    """Let a schedule fire, from *next_run_at* on; answer whether there is one of that name."""
    with translated():
        return connection.execute(load("timetable")["enable"], {"name": name, "next_run_at": next_run_at}).fetchone() is not None


def disable(connection: psycopg.Connection[Any], name: str, reason: str | None) -> bool:
    """Keep a schedule from firing; answer whether there is one of that name."""
    with translated():
        return connection.execute(load("timetable")["disable"], {"name": name, "reason": reason}).fetchone() is not None


def declaring(by: str, schedules: str) -> Question[dict[str, str]]:
    """Bring the schedules (JSON) that *by* declares, and remove those that it does not any more: what was done with each that needed it.

    Returns `added`, `changed` or `removed` by name. What somebody else changed since stays as he left it.
    """
    return dict((yield Query(load("schedules")["declare"], {"by": by, "schedules": schedules})))


def note_run(connection: psycopg.Connection[Any], name: str, run: RunId) -> None:
    """Remember that *run* is the latest of the schedule, for its rule of overlap."""
    with translated():
        connection.execute(load("timetable")["note_run"], {"name": name, "run": run})
