"""Steps that are SQL files: numbered, each a transaction, entered in `reproq_schema_migrations` in the same commit.

A file that only makes functions is changed in place: its `-- revision: N` grows, and a database that has an older revision gets the file
again. Everything in a file can be repeated; a function whose arguments change is dropped first.
"""

import re
from functools import cache
from importlib import resources

from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load

_RECORD = "task_runs"
_FILE = re.compile(r"^(\d{3})_(\w+)\.sql$")
_REVISION = re.compile(r"^-- revision: (\d+)$", re.MULTILINE)
_TRIGGER = re.compile(r"^CREATE OR REPLACE TRIGGER (\w+)", re.MULTILINE)
_LOCKS = re.compile(r"^-- locks: (.+)$", re.MULTILINE)


class FileStep(Step):
    """One file of `migrations/`."""

    version: int

    def __init__(self, version: int, name: str, text: str) -> None:
        locks, revision = _LOCKS.search(text), _REVISION.search(text)
        self.version = version
        self.name = name
        self.locks = locks[1] if locks else ""
        self.revision = int(revision[1]) if revision else 1
        self._triggers = _TRIGGER.findall(text)
        self._sql = text.encode()

    def is_done(self, connection: Connection) -> bool:
        return applied(connection).get(self.version, 0) >= self.revision and self._triggers_fire(connection)

    def take(self, work: Work) -> None:
        def apply(connection: Connection) -> None:
            connection.execute(self._sql, prepare=False)  # many statements in one text
            self._enter(connection)

        if self._triggers:
            work.change(_RECORD, apply, timeout="0")
        else:
            work.commit(apply)

    def _triggers_fire(self, connection: Connection) -> bool:
        """Answer whether all triggers of this file are there and on; without them runs of some producers are lost."""
        if not self._triggers:
            return True
        firing = {row[0] for row in connection.execute(load("migrating")["firing_triggers"])}
        return firing.issuperset(self._triggers)

    def _enter(self, connection: Connection) -> None:
        statements = load("reproq_schema_migrations")
        connection.execute(statements["create"])
        connection.execute(statements["widen"])
        connection.execute(statements["add"], {"version": self.version, "name": self.name, "revision": self.revision})


def applied(connection: Connection) -> dict[int, int]:
    """Return the revisions of the files that were taken, by version."""
    row = connection.execute(load("reproq_schema_migrations")["exists"]).fetchone()
    if row is None or not row[0]:
        return {}
    return {int(version): int(revision) for version, revision in connection.execute(load("reproq_schema_migrations")["list"])}


@cache
def texts() -> dict[int, tuple[str, str]]:
    """Return name and text of every file, by version, in order."""
    found = {}
    for entry in (resources.files("reproq_supervisor.store") / "migrations").iterdir():
        if match := _FILE.match(entry.name):
            found[int(match[1])] = (match[2], entry.read_text())
    return dict(sorted(found.items()))
