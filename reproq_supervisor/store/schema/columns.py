"""Steps that bring the columns of an older layout to ours by changing the catalogue only: milliseconds, whatever the table holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from reproq_supervisor.store.errors import StoreError
from reproq_supervisor.store.schema.shape import ELSEWHERE, Column, Table
from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load

_VARYING = "character varying"
# What becomes what without a rewrite of the table.
_KINDRED = {"text": (_VARYING,), "bpchar": (_VARYING, "character(")}
# Found in every layout of the contract. A table without them is somebody else's.
_CONTRACT = {"result_id", "queue_name", "spec_json", "spec_hash", "status", "enqueued_at", "attempts", "max_attempts"}


@dataclass(frozen=True, slots=True)
class Found:
    """A column as it is."""

    type: str
    default: str | None
    not_null: bool
    is_identity: bool


def found_columns(connection: Connection, table: str) -> dict[str, Found]:
    """Return the columns of *table* by name; nothing when there is no such table."""
    rows = connection.execute(load("migrating")["columns"], {"table": table})
    return {name: Found(type_, default, not_null, is_identity) for name, type_, default, not_null, is_identity in rows}


def changes(table: Table, found: dict[str, Found]) -> Iterator[str]:
    """Say the parts of ALTER TABLE that bring columns to their shape; what would read or rewrite the table is left to other steps.

    Raises:
      StoreError: a column has a type that does not become ours.
    """
    for wanted in table.columns:
        column = found.get(wanted.name)
        if column is None:
            yield _new(wanted)
            continue
        if column.type != wanted.type:
            if not column.type.startswith(_KINDRED.get(wanted.type, ())):
                raise StoreError(f"{table.name}.{wanted.name}: expected the type {wanted.type}, got {column.type}")
            if wanted.type != "bpchar":
                yield f"ALTER COLUMN {wanted.name} TYPE {wanted.type}"
        if not wanted.is_identity and wanted.default != ELSEWHERE and column.default != wanted.default:
            yield (
                f"ALTER COLUMN {wanted.name} SET DEFAULT {wanted.default}" if wanted.default else f"ALTER COLUMN {wanted.name} DROP DEFAULT"
            )
        if column.not_null and not wanted.not_null:
            yield f"ALTER COLUMN {wanted.name} DROP NOT NULL"


def _new(column: Column) -> str:
    default = f" DEFAULT {column.default}" if column.default not in (None, ELSEWHERE) else ""
    return f"ADD COLUMN {column.name} {column.type}{default}{' NOT NULL' if column.not_null else ''}"


class Columns(Step):
    """Names, types, defaults and storage of the columns of one table."""

    locks = "ACCESS EXCLUSIVE on the table, for milliseconds"

    def __init__(self, table: Table) -> None:
        self.name = f"columns of {table.name}"
        self._table = table

    def is_done(self, connection: Connection) -> bool:
        return not self._changes(connection)

    def take(self, work: Work) -> None:
        def change(connection: Connection) -> None:
            parts = sql.SQL(", ").join(map(sql.SQL, self._changes(connection)))
            connection.execute(sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(self._table.name), parts))

        work.change(self._table.name, change)

    def _changes(self, connection: Connection) -> list[str]:
        """Return the parts of ALTER TABLE; none where there is no table, since a file makes it as it should be."""
        found = found_columns(connection, self._table.name)
        if not found:
            return []
        options = {row[0] for row in connection.execute(load("migrating")["options"], {"table": self._table.name})}
        missing = [option for option in self._table.options if option not in options]
        return [*changes(self._table, found), *([f"SET ({', '.join(missing)})"] if missing else [])]


class Identity(Step):
    """The number of a new run comes from an identity: a producer then needs no right on a sequence, whatever layout it grew up with."""

    name = "identity of task_runs"
    locks = "ACCESS EXCLUSIVE on task_runs, for milliseconds"

    def is_done(self, connection: Connection) -> bool:
        column = found_columns(connection, "task_runs").get("result_id")
        return column is None or column.is_identity

    def take(self, work: Work) -> None:
        work.change("task_runs", _make_identity)


def _make_identity(connection: Connection) -> None:
    connection.execute(load("migrating")["lock_task_runs"])
    sequence = connection.execute(load("migrating")["sequence"], {"table": "task_runs", "column": "result_id"}).fetchone()
    following = connection.execute(load("migrating")["largest_id"]).fetchone()
    start = following[0] if following else 1
    change = sql.SQL("ALTER TABLE task_runs ALTER COLUMN result_id {}")
    connection.execute(change.format(sql.SQL("DROP DEFAULT")))
    if sequence:
        reached = connection.execute(sql.SQL("SELECT last_value + is_called::int FROM {}").format(sql.Identifier(*sequence))).fetchone()
        start = max(start, reached[0] if reached else 1)
        connection.execute(sql.SQL("DROP SEQUENCE {}").format(sql.Identifier(*sequence)))
    connection.execute(change.format(sql.SQL("ADD GENERATED BY DEFAULT AS IDENTITY (START WITH {})").format(sql.Literal(start))))


class SpecHash(Step):
    """Fixed and varying lengths become one type of any length. After the older indexes on it are gone: they would be rebuilt."""

    name = "type of task_runs.spec_hash"
    locks = "ACCESS EXCLUSIVE on task_runs, for milliseconds"

    def is_done(self, connection: Connection) -> bool:
        column = found_columns(connection, "task_runs").get("spec_hash")
        return column is None or column.type == "bpchar"

    def take(self, work: Work) -> None:
        work.change("task_runs", _free_spec_hash)


def _free_spec_hash(connection: Connection) -> None:
    connection.execute(load("migrating")["free_spec_hash"])
    # A session that has called a trigger before would go on with the older type, and have every insert refused, until it sees a new
    # function.
    for (definition,) in connection.execute(load("migrating")["trigger_functions"]).fetchall():
        connection.execute(definition.encode())


def refuse_strangers(connection: Connection) -> None:
    """Raise StoreError when there is a `task_runs` that no layout of the contract knows."""
    found = found_columns(connection, "task_runs")
    if found and (missing := _CONTRACT - found.keys()):
        raise StoreError(
            f"task_runs: expected no table, or one with the contract's columns, got one without {', '.join(sorted(missing))}; give "
            "reproq-supervisor a database or a schema of its own (options=-csearch_path=... in the database URL)"
        )
