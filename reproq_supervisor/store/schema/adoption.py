"""The step that brings runs which were there before our triggers into the lane."""

from reproq_supervisor.store.schema.files import FileStep
from reproq_supervisor.store.schema.step import Connection, Work
from reproq_supervisor.store.schema.walk import walk
from reproq_supervisor.store.statements import load

FILE = 20
# As benchmarks/migrate.py showed it on two busy cores.
_ROWS_PER_S = 100_000


class Adoption(FileStep):
    """A file with a function that is then called for every batch of records; entered as done when all of them are through.

    The triggers are in force before, so what producers insert meanwhile is complete already, and a walk meets every run that is not.
    """

    def estimate_s(self, rows: float) -> float:
        return rows / _ROWS_PER_S

    def take(self, work: Work) -> None:
        work.commit(lambda connection: connection.execute(self._sql, prepare=False))
        placed = doubled = 0

        def adopt(connection: Connection, after: int, upto: int) -> int:
            nonlocal placed, doubled
            row = connection.execute(load("migrating")["adopt"], {"after": after, "upto": upto}).fetchone()
            assert row is not None, "the function has one row"
            placed += row[0]
            doubled += row[1]
            return int(row[2])

        walk(work, adopt)
        if placed:
            work.tell(f"{placed:,} runs that have not ended were taken over")
        if doubled:
            work.tell(f"{doubled:,} of them are duplicates of another active run: both stay, only the older one owns the key")
        work.commit(self._enter)
