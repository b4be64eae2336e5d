"""Schedules as jobs of pg_cron, for those who want nothing to run but the database. Only our own jobs are ever touched."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from reproq_supervisor.core.policy.cron import LAST, Cron
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

_LONGEST_NAME = 63
_UTC = frozenset({"GMT", "UTC", "ETC/GMT", "ETC/UTC"})


@dataclass(frozen=True, slots=True)
class Support:
    """What a database has of pg_cron.

    Attributes:
      is_made: jobs can be scheduled.
      is_available: the server has the extension.
      home: the one database of the server in which it can be made; None where the server does not load it.
      timezone: in which its jobs start.
    """

    is_made: bool
    is_available: bool
    home: str | None
    database: str
    timezone: str = "GMT"

    def __bool__(self) -> bool:
        """Answer whether this database has pg_cron, or whether it is worth a try."""
        return self.is_made or self.is_available

    def hindrance(self) -> str | None:
        """Return why no job of ours can be made here, if that is known."""
        if self.timezone.upper() not in _UTC:
            return f"pg_cron of this server fires in {self.timezone}: expected GMT in cron.timezone"
        if self.is_made:
            return None
        if not self.is_available:
            return "this server has no pg_cron"
        if self.home is None:
            return "this server has pg_cron, but does not load it: expected pg_cron in shared_preload_libraries"
        if self.home != self.database:
            return f"this server keeps the jobs of pg_cron in the database {self.home}: expected {self.database} in cron.database_name"
        return None


def support(connection: psycopg.Connection[Any]) -> Support:
    """Return what this database has of pg_cron."""
    with translated():
        row = connection.execute(load("timetable")["pg_cron_state"]).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    return Support(*row)


def install(connection: psycopg.Connection[Any], prefix: str, jobs: Iterable[tuple[str, str, str]]) -> None:
    """Put these (job, line, schedule) in the place of all our jobs with this prefix, in one transaction."""
    with translated(), connection.transaction():
        if not support(connection).is_made:
            connection.execute(load("timetable")["pg_cron_extension"])
        connection.execute(load("timetable")["pg_cron_remove"], {"prefix": prefix})
        for job, line, name in jobs:
            connection.execute(load("timetable")["pg_cron_schedule"], {"job": job, "line": line, "name": name})


def jobs_with(connection: psycopg.Connection[Any], prefix: str) -> dict[str, bool]:
    """Return the names of the jobs with this prefix that there are; is it ours?"""
    if not support(connection).is_made:
        return {}
    with translated():
        return dict(connection.execute(load("timetable")["pg_cron_jobs"], {"prefix": prefix}).fetchall())


def remove(connection: psycopg.Connection[Any], prefix: str) -> int:
    """Remove our jobs with this prefix; return how many."""
    if not support(connection).is_made:
        return 0
    with translated():
        row = connection.execute(load("timetable")["pg_cron_remove"], {"prefix": prefix}).fetchone()
    return int(row[0]) if row else 0


class NoWordsError(ValueError):
    """pg_cron has no words for when a line fires; the message says for what."""


def line_of(cron: Cron) -> str:
    """Return the line as pg_cron takes it.

    Raises:
      NoWordsError: it names seconds, the last day of a month, or the nth weekday.
    """
    if cron.seconds != (0,):
        raise NoWordsError("seconds")
    if cron.days is not None and LAST in cron.days:
        raise NoWordsError("the last day of a month")
    if cron.nth:
        raise NoWordsError("the nth weekday of a month")
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
