"""Steps that fill in what older producers left NULL, and only then forbid it: nothing reads the table under a lock that stops anybody.

CHECK (… IS NOT NULL) NOT VALID ──► fill in, in batches ──► VALIDATE (reads, beside producers) ──► SET NOT NULL, which trusts the check
"""

from psycopg import sql

from reproq_supervisor.store.schema.columns import found_columns
from reproq_supervisor.store.schema.shape import Column, Table
from reproq_supervisor.store.schema.step import CHANGE_TIMEOUT, Connection, Step, Work
from reproq_supervisor.store.schema.walk import walk
from reproq_supervisor.store.statements import load

RECORD = "task_runs"
PATH_CHECK = "task_runs_task_path_not_empty"
_PREFIX = "reproq_not_null_"
# As benchmarks/migrate.py showed it on two busy cores.
_ROWS_PER_S = 300_000


class Values(Step):
    """No NULLs in the columns of one table where the contract has a default; for the record also: no run without a task path."""

    locks = "ACCESS EXCLUSIVE on the table, twice, for milliseconds; meanwhile it is read beside producers"

    def __init__(self, table: Table) -> None:
        self.name = f"values of {table.name}"
        self._table = table
        self._id = sql.Identifier(table.name)

    def is_done(self, connection: Connection) -> bool:
        checks = self._checks(connection)
        return not self._nullable(connection) and all(validated and name == PATH_CHECK for name, validated in checks.items())

    def estimate_s(self, rows: float) -> float:
        return rows / _ROWS_PER_S if self._table.name == RECORD else 0.0

    def take(self, work: Work) -> None:
        columns = self._nullable(work.connection)
        mendable = [column for column in columns if column.default]
        work.change(self._table.name, lambda connection: self._add_checks(connection, columns))
        if self._table.name == RECORD:
            walk(work, lambda connection, after, upto: self._mend_batch(connection, mendable, after, upto))
        elif mendable:
            work.commit(lambda connection: self._mend(connection, mendable))
        for name, validated in self._checks(work.connection).items():
            if not validated:
                self._alter(work, sql.SQL("VALIDATE CONSTRAINT {}").format(sql.Identifier(name)), timeout="0")
        parts = [sql.SQL("ALTER COLUMN {} SET NOT NULL").format(sql.Identifier(column.name)) for column in columns]
        helpers = [name for name in self._checks(work.connection) if name != PATH_CHECK]
        parts += [sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name)) for name in helpers]
        if parts:
            self._alter(work, sql.SQL(", ").join(parts), timeout=CHANGE_TIMEOUT)

    def _nullable(self, connection: Connection) -> list[Column]:
        found = found_columns(connection, self._table.name)
        return [column for column in self._table.columns if column.not_null and column.name in found and not found[column.name].not_null]

    def _checks(self, connection: Connection) -> dict[str, bool]:
        """Return which of our checks there are, and whether they are validated; that on the path is False where it is missing."""
        if not found_columns(connection, self._table.name):
            return {}
        rows = connection.execute(load("migrating")["constraints"], {"table": self._table.name})
        checks = {name: bool(validated) for name, _, _, validated in rows if name.startswith(_PREFIX) or name == PATH_CHECK}
        return {PATH_CHECK: False, **checks} if self._table.name == RECORD else checks

    def _add_checks(self, connection: Connection, columns: list[Column]) -> None:
        there = {row[0] for row in connection.execute(load("migrating")["constraints"], {"table": self._table.name})}
        add = sql.SQL("ADD CONSTRAINT {} CHECK ({}) NOT VALID")
        wanted: dict[str, sql.Composable] = {
            f"{_PREFIX}{column.name}": sql.SQL("{} IS NOT NULL").format(sql.Identifier(column.name)) for column in columns
        }
        if self._table.name == RECORD:
            wanted[PATH_CHECK] = sql.SQL("task_path IS NOT NULL AND task_path <> ''")
        parts = [add.format(sql.Identifier(name), condition) for name, condition in wanted.items() if name not in there]
        if parts:
            connection.execute(sql.SQL("ALTER TABLE {} {}").format(self._id, sql.SQL(", ").join(parts)))

    def _mend_batch(self, connection: Connection, columns: list[Column], after: int, upto: int) -> int:
        """Fill in, and return how many rows still miss something: those that others have locked."""
        broken = sql.SQL("result_id > {} AND result_id <= {} AND ({} OR coalesce(task_path, '') = '')").format(
            sql.Literal(after), sql.Literal(upto), _any_null(columns)
        )
        picked = sql.SQL("SELECT result_id FROM task_runs WHERE {} ORDER BY result_id FOR NO KEY UPDATE SKIP LOCKED").format(broken)
        connection.execute(
            sql.SQL("WITH picked AS MATERIALIZED ({}) UPDATE task_runs r SET {} FROM picked p WHERE r.result_id = p.result_id").format(
                picked, sql.SQL(", ").join([*_fillings(columns), *map(sql.SQL, _PATH)])
            )
        )
        left = connection.execute(sql.SQL("SELECT count(*) FROM task_runs WHERE {}").format(broken)).fetchone()
        return left[0] if left else 0

    def _mend(self, connection: Connection, columns: list[Column]) -> None:
        connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE {}").format(self._id, sql.SQL(", ").join(_fillings(columns)), _any_null(columns))
        )

    def _alter(self, work: Work, part: sql.Composable, *, timeout: str) -> None:
        statement = sql.SQL("ALTER TABLE {} {}").format(self._id, part)
        work.change(self._table.name, lambda connection: connection.execute(statement), timeout=timeout)


# A run without any path has failed or will; its record says so instead of stopping the migration. `rev` grows by one: it is our own write.
_PATH = ("task_path = coalesce(nullif(task_path, ''), nullif(spec_json ->> 'task_path', ''), '(none)')", "rev = rev + 1")


def _fillings(columns: list[Column]) -> list[sql.Composed]:
    filled = sql.SQL("{0} = coalesce({0}, {1})")
    return [filled.format(sql.Identifier(column.name), sql.SQL(column.default)) for column in columns if column.default]


def _any_null(columns: list[Column]) -> sql.Composable:
    nulls = [sql.SQL("{} IS NULL").format(sql.Identifier(column.name)) for column in columns]
    return sql.SQL(" OR ").join(nulls) if nulls else sql.SQL("false")
