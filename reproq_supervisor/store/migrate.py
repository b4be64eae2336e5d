"""Brings the schema up to date: numbered SQL files, forward only, one transaction each.

A file that only makes functions is changed in place: its `-- revision: N` grows, and a database that has an older revision gets the file
again. Everything in such a file can be repeated; a function whose arguments change is dropped first.

Whoever comes second waits for the first (an advisory lock of the transaction, so that it works through a pooler) and then finds nothing to
do. A run that was interrupted anywhere continues where it stopped, since a step and its entry in `reproq_schema_migrations` are one commit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import psycopg

from reproq_supervisor.store.errors import StoreError, translated
from reproq_supervisor.store.statements import load

_FILE = re.compile(r"^(\d{3})_(\w+)\.sql$")
_LOCKS = re.compile(r"^-- locks: (.+)$", re.MULTILINE)
_REVISION = re.compile(r"^-- revision: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One migration. `locks` says, for people, which lock it takes and for how long."""

    version: int
    name: str
    locks: str
    sql: bytes
    revision: int = 1


@cache
def steps() -> tuple[Step, ...]:
    """Return every step that this program knows, in order."""
    found = []
    for entry in (resources.files(__package__) / "migrations").iterdir():
        match = _FILE.match(entry.name)
        if match:
            text = entry.read_text()
            locks, revision = _LOCKS.search(text), _REVISION.search(text)
            found.append(Step(int(match[1]), match[2], locks[1] if locks else "", text.encode(), int(revision[1]) if revision else 1))
    return tuple(sorted(found, key=lambda step: step.version))


def plan(connection: psycopg.Connection[Any]) -> list[Step]:
    """Return the steps that `migrate` would take.

    Raises:
      StoreError: the schema was made by a newer program.
      StoreUnavailable: the database cannot be asked now.
    """
    with translated(), connection.transaction():
        applied = _applied(connection)
    known = {step.version: step.revision for step in steps()}
    if newer := applied.keys() - known.keys():
        raise StoreError(f"schema: expected steps up to {max(known)}, got {max(newer)}; use the newer program that made it")
    if revised := [version for version, revision in applied.items() if revision > known[version]]:
        version = max(revised)
        raise StoreError(
            f"schema: expected step {version} in revision {known[version]}, got {applied[version]}; use the newer program that made it"
        )
    return [step for step in steps() if step.revision > applied.get(step.version, 0)]


def schema_is_current(connection: psycopg.Connection[Any]) -> bool:
    """Answer whether nothing is left to migrate."""
    return not plan(connection)


def migrate(connection: psycopg.Connection[Any], progress: Callable[[Step], None] | None = None) -> list[Step]:
    """Take every step that is missing; return those taken. *progress* is told before each.

    Raises:
      StoreError: a step was refused, e.g. because the tables belong to another product; nothing of that step remains.
      StoreUnavailable: the database cannot be asked now; call again.
    """
    taken = []
    for step in plan(connection):
        if progress:
            progress(step)
        with translated(), connection.transaction():
            connection.execute(load("reproq_schema_migrations")["lock"])
            # Functions remember this path (SET search_path FROM CURRENT), so they find their tables whatever path a producer has.
            connection.execute(load("reproq_schema_migrations")["pin_path"])
            connection.execute(load("reproq_schema_migrations")["create"])
            connection.execute(load("reproq_schema_migrations")["widen"])
            if step.revision > _applied(connection).get(step.version, 0):
                connection.execute(step.sql, prepare=False)  # many statements in one text
                entry = {"version": step.version, "name": step.name, "revision": step.revision}
                connection.execute(load("reproq_schema_migrations")["add"], entry)
                taken.append(step)
    return taken


def _applied(connection: psycopg.Connection[Any]) -> dict[int, int]:
    """Return the revision of every step that was taken."""
    row = connection.execute(load("reproq_schema_migrations")["exists"]).fetchone()
    if row is None or not row[0]:
        return {}
    return {int(version): int(revision) for version, revision in connection.execute(load("reproq_schema_migrations")["list"])}
