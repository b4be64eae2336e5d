"""The step for the foreign key from a run to its parent."""

from psycopg import sql

from reproq_supervisor.store.schema.columns import found_columns
from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load

_NAME = "task_runs_parent_id_fkey"
_ADD = sql.SQL(
    "ALTER TABLE task_runs ADD CONSTRAINT {} FOREIGN KEY (parent_id) REFERENCES task_runs (result_id) ON DELETE SET NULL NOT VALID"
)
# As benchmarks/migrate.py showed it on two busy cores.
_ROWS_PER_S = 500_000


class Parents(Step):
    """A deleted parent leaves its children, by the database itself; some layouts left that to the application."""

    name = "foreign key of task_runs.parent_id"
    locks = "ACCESS EXCLUSIVE on task_runs, for milliseconds; then it is read beside producers"

    def is_done(self, connection: Connection) -> bool:
        keys = _keys(connection)
        return not found_columns(connection, "task_runs") or (set(keys) == {_NAME} and keys[_NAME] == (True, True))

    def estimate_s(self, rows: float) -> float:
        return rows / _ROWS_PER_S

    def take(self, work: Work) -> None:
        work.change("task_runs", _replace)
        validate = sql.SQL("ALTER TABLE task_runs VALIDATE CONSTRAINT {}").format(sql.Identifier(_NAME))
        work.change("task_runs", lambda connection: connection.execute(validate), timeout="0")


def _replace(connection: Connection) -> None:
    for name, (is_ours, _) in _keys(connection).items():
        if name != _NAME or not is_ours:
            connection.execute(sql.SQL("ALTER TABLE task_runs DROP CONSTRAINT {}").format(sql.Identifier(name)))
    if _NAME not in _keys(connection):
        connection.execute(_ADD.format(sql.Identifier(_NAME)))


def _keys(connection: Connection) -> dict[str, tuple[bool, bool]]:
    """Return the foreign keys on the parent: does it say what ours says, and was it validated?"""
    rows = connection.execute(load("migrating")["constraints"], {"table": "task_runs"})
    return {
        name: (definition.removesuffix(" NOT VALID").endswith("REFERENCES task_runs(result_id) ON DELETE SET NULL"), validated)
        for name, kind, definition, validated in rows
        if kind == "f" and definition.startswith("FOREIGN KEY (parent_id)")
    }
