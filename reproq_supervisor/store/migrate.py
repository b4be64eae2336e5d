"""Brings a database of any known layout to the schema of this program: empty, of an older product, or of an earlier version.

Forward only. What a step made is how the next call knows that it is done (files are entered in `reproq_schema_migrations`, all else is seen
in the catalogue), so a call that was cut off anywhere is continued by the next, and what others changed since is brought back. Producers go
on inserting meanwhile: no step keeps them waiting for a second.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reproq_supervisor.store.errors import SchemaNewer, translated
from reproq_supervisor.store.schema.columns import refuse_strangers
from reproq_supervisor.store.schema.files import FileStep, applied
from reproq_supervisor.store.schema.lock import only_migration
from reproq_supervisor.store.schema.order import steps
from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load

__all__ = ["Planned", "Progress", "Step", "migrate", "plan", "schema_is_current", "steps", "survey"]

_PATIENCE_S = 600.0

# Told at the beginning of each step, with no words, and then of its progress.
Progress = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, and how it stands. `estimate_s`: a guess from the size of the record as the server last counted it."""

    step: Step
    is_done: bool
    estimate_s: float


def survey(connection: Connection, *, coexist: bool | None = None) -> list[Planned]:
    """Return every step, done or not, as the database is now; a later one may have something to do because of an earlier one.

    Args:
      coexist: as in `migrate`.

    Raises:
      SchemaNewer: the schema was made by a newer program.
      StoreError: the tables belong to another product.
      StoreUnavailable: the database cannot be asked now.
    """
    with translated(), connection.transaction():
        _refuse_newer(applied(connection))
        refuse_strangers(connection)
        row = connection.execute(load("migrating")["estimate"], {"table": "task_runs"}).fetchone()
        rows = float(row[0]) if row else 0.0
        return [Planned(step, step.is_done(connection), step.estimate_s(rows)) for step in steps(coexist)]


def plan(connection: Connection, *, coexist: bool | None = None) -> list[Step]:
    """Return the steps that `migrate` would take. Raises as `survey`."""
    return [planned.step for planned in survey(connection, coexist=coexist) if not planned.is_done]


def schema_is_current(connection: Connection) -> bool:
    """Answer whether this program can work with the schema; steps that only tidy up may be left."""
    return not any(step.is_required for step in plan(connection))


def migrate(
    connection: Connection, progress: Progress | None = None, *, coexist: bool | None = None, patience_s: float = _PATIENCE_S
) -> list[Step]:
    """Take every step that is missing; return those taken.

    Args:
      connection: outside a transaction; a second one is opened beside it, and a third for the progress of long indexes.
      coexist: whether an older worker goes on beside this product; None leaves it as it is.
      patience_s: how long to come back for a lock that others hold, and to wait for somebody else who migrates.

    Raises:
      StoreError: a step was refused; call again when its reason is gone.
      StoreUnavailable: the database cannot be asked now, or others were in the way for too long; call again.
    """
    if not plan(connection, coexist=coexist):
        return []
    tell: Progress = progress or (lambda _, __: None)
    taken: list[Step] = []
    with translated(), _autocommit(connection):
        step = steps(coexist)[0]
        with only_migration(connection, lambda words: tell(step, words), patience_s) as assert_alone:
            if not is_pooled(connection):
                connection.execute(load("migrating")["unlimit"])
            for step in steps(coexist):
                assert_alone()
                if not step.is_done(connection):
                    tell(step, "")
                    step.take(Work(connection, _of(step, tell), patience_s))
                    taken.append(step)
    return taken


def _refuse_newer(there: dict[int, int]) -> None:
    known = {step.version: step.revision for step in steps() if isinstance(step, FileStep)}
    if newer := there.keys() - known.keys():
        raise SchemaNewer(f"schema: expected steps up to {max(known)}, got {max(newer)}; use the newer program that made it")
    if revised := [version for version, revision in there.items() if revision > known[version]]:
        version = max(revised)
        raise SchemaNewer(
            f"schema: expected step {version} in revision {known[version]}, got {there[version]}; use the newer program that made it"
        )


def _of(step: Step, tell: Progress) -> Callable[[str], None]:
    return lambda words: tell(step, words)


def is_pooled(connection: Connection) -> bool:
    """Answer whether another process answers than the one promised at the start of the connection: then the session is not ours alone."""
    row = connection.execute(load("session")["backend"]).fetchone()
    return row is None or row[0] != connection.info.backend_pid


@contextmanager
def _autocommit(connection: Connection) -> Iterator[None]:
    before = connection.autocommit
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = before
