"""What a check found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg

from reproq_supervisor.store.statements import load

Connection = psycopg.Connection[Any]


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


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, message)


def note(check: str, message: str, remedy: str = "") -> Finding:
    """Something to know."""
    return Finding(Level.NOTE, check, message, remedy)


def warning(check: str, message: str, remedy: str) -> Finding:
    """It works, and will not for ever."""
    return Finding(Level.WARNING, check, message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding(Level.ERROR, check, message, remedy)


Check = Callable[[Connection], Iterator[Finding]]


def one_row(connection: Connection, name: str, **parameters: Any) -> tuple[Any, ...]:
    """Return the only row of a statement of `sql/doctor.sql`."""
    row = connection.execute(load("doctor")[name], parameters).fetchone()
    assert row is not None, f"doctor.{name} has one row"
    return tuple(row)
