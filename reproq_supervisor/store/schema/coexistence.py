"""The step that switches co-existence with an older worker on or off: what it is, 014_coexist.sql says.

It only does what was asked for: a migration that says nothing of it, as every deployment runs one, leaves it as it is.
"""

from datetime import datetime

from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load


def coexists_since(connection: Connection) -> datetime | None:
    """Return since when the mode is on; None when it is off, or when there is no such table yet."""
    row = connection.execute(load("coexistence")["exists"]).fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute(load("coexistence")["since"]).fetchone()
    return row[0] if row else None


class Coexistence(Step):
    """Puts the mode as it is wanted; None: as it is. Before the steps that keep or drop what older workers need."""

    name = "co-existence with an older worker"
    locks = "none"
    is_required = False

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted

    def is_done(self, connection: Connection) -> bool:
        return self._wanted is None or self._wanted == (coexists_since(connection) is not None)

    def take(self, work: Work) -> None:
        statement = load("coexistence")["switch_on" if self._wanted else "switch_off"]
        work.commit(lambda connection: connection.execute(statement))
