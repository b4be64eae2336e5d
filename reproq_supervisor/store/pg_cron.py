"""Schedules as jobs of pg_cron, for those who want nothing to run but the database. Only our own jobs are ever touched."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import psycopg

from reproq_supervisor.core.policy.cron import LAST, Cron
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

_LONGEST_NAME = 63


def is_supported(connection: psycopg.Connection[Any]) -> bool:
    """Answer whether this database has pg_cron, or could have it."""
    return any(_state(connection))


def install(connection: psycopg.Connection[Any], prefix: str, jobs: Iterable[tuple[str, str, str]]) -> None:
    """Put these (job, line, schedule) in the place of all our jobs with this prefix, in one transaction."""
    with translated(), connection.transaction():
        if not _state(connection)[0]:
            connection.execute(load("timetable")["pg_cron_extension"])
        connection.execute(load("timetable")["pg_cron_remove"], {"prefix": prefix})
        for job, line, name in jobs:
            connection.execute(load("timetable")["pg_cron_schedule"], {"job": job, "line": line, "name": name})


def jobs_with(connection: psycopg.Connection[Any], prefix: str) -> dict[str, bool]:
    """Return the names of the jobs with this prefix that there are; is it ours?"""
    if not _state(connection)[0]:
        return {}
    with translated():
        return dict(connection.execute(load("timetable")["pg_cron_jobs"], {"prefix": prefix}).fetchall())


def remove(connection: psycopg.Connection[Any], prefix: str) -> int:
    """Remove our jobs with this prefix; return how many."""
    if not _state(connection)[0]:
        return 0
    with translated():
        row = connection.execute(load("timetable")["pg_cron_remove"], {"prefix": prefix}).fetchone()
    return int(row[0]) if row else 0


def line_of(cron: Cron) -> str | None:
    """Return the line as pg_cron takes it, None if it has no words for it: seconds, the last day, the nth weekday."""
    if cron.seconds != (0,) or cron.nth or (cron.days is not None and LAST in cron.days):
        return None
    fields = (
        _field(cron.minutes, 60),
        "*" if cron.every_hour else _field(cron.hours, 24),
        "*" if cron.days is None else _field(sorted(cron.days), 32),
        _field(sorted(cron.months), 12),
        "*" if cron.weekdays is None else _field(sorted(cron.weekdays), 8),
    )
    return " ".join(fields)


def job_names(prefix: str, names: Iterable[str], foreign: Iterable[str] = ()) -> dict[str, str]:
    """Return the job of each schedule: `<prefix>_<name>`, shortened and made unique as the contract does it.

    Args:
      foreign: names that jobs of others have.
    """
    taken = set(foreign)
    found = {}
    for name in names:
        job = f"{prefix}_{re.sub('[^A-Za-z0-9_]+', '_', name)}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        if len(job) > _LONGEST_NAME:
            job = f"{job[: _LONGEST_NAME - 9]}_{digest[:8]}"
        suffix = 4
        while job in taken:
            job, suffix = f"{job[: _LONGEST_NAME - suffix - 1]}_{digest[:suffix]}", suffix + 4
        taken.add(job)
        found[name] = job
    return found


def _field(values: Iterable[int], whole: int) -> str:
    listed = list(values)
    return "*" if len(listed) == whole else ",".join(map(str, listed))


def _state(connection: psycopg.Connection[Any]) -> tuple[bool, bool]:
    with translated():
        row = connection.execute(load("timetable")["pg_cron_state"]).fetchone()
    return (bool(row[0]), bool(row[1])) if row else (False, False)
