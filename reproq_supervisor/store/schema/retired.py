"""The step that removes the older layouts' trigger, whose work ours do, and functions that nothing calls any more."""

from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load


class DropRetired(Step):
    """Harmless; the trigger is a call for every row."""

    name = "drop older trigger and functions"
    locks = "ACCESS EXCLUSIVE on task_runs, for milliseconds"
    is_required = False

    def is_done(self, connection: Connection) -> bool:
        row = connection.execute(load("migrating")["has_retired"]).fetchone()
        return row is None or not row[0]

    def take(self, work: Work) -> None:
        def drop(connection: Connection) -> None:
            connection.execute(load("migrating")["drop_retired"], prepare=False)

        work.change("task_runs", drop)
