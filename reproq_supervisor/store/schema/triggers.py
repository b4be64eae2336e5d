"""The step that removes the older layouts' trigger: ours does its work, for inserts and updates alike."""

from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load


class DropOlderTrigger(Step):
    """Harmless, but a call for every row."""

    name = "drop older trigger"
    locks = "ACCESS EXCLUSIVE on task_runs, for milliseconds"
    is_required = False

    def is_done(self, connection: Connection) -> bool:
        row = connection.execute(load("migrating")["has_older_trigger"]).fetchone()
        return row is None or not row[0]

    def take(self, work: Work) -> None:
        def drop(connection: Connection) -> None:
            connection.execute(load("migrating")["drop_older_trigger"], prepare=False)

        work.change("task_runs", drop)
