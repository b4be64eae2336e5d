"""The objects of the schema: steps that are missing, indexes, triggers."""

from collections.abc import Iterator

from reproq_supervisor.store.examine.finding import Connection, Finding, error, note, ok, warning
from reproq_supervisor.store.migrate import plan
from reproq_supervisor.store.statements import load

MIGRATE = "run `reproq-supervisor migrate`"


def schema(connection: Connection) -> Iterator[Finding]:
    missing = plan(connection)
    required = [step.name for step in missing if step.is_required]
    if required:
        yield error("schema", f"not up to date, missing: {', '.join(required)}", MIGRATE)
        return
    yield ok("schema", "up to date")
    if missing:
        names = ", ".join(step.name for step in missing)
        yield warning("older layout", f"left over, and makes every write dearer: {names}", MIGRATE)


def indexes(connection: Connection) -> Iterator[Finding]:
    for name, columns in connection.execute(load("doctor")["foreign_indexes"]):
        drop = f"drop it if nobody needs it: DROP INDEX CONCURRENTLY {name}"
        if columns:
            message = f"index {name} mentions {', '.join(columns)}: the end of every run writes to it, and to all others of the table"
            yield warning("indexes", message, drop)
        else:
            yield note("indexes", f"index {name} is not ours and makes every insert dearer", drop)
    for (name,) in connection.execute(load("doctor")["invalid_indexes"]):
        message = f"index {name} is invalid: it is kept up but never used"
        yield warning("indexes", message, f"REINDEX INDEX CONCURRENTLY {name}")


def triggers(connection: Connection) -> Iterator[Finding]:
    """Find triggers that do not fire. Also with a schema that is not up to date: it is how a missing one shows there."""
    for name, is_there in connection.execute(load("doctor")["silent_triggers"]):
        state = "disabled" if is_there else "missing"
        yield error("triggers", f"trigger {name} is {state}: runs of some producers are lost", f"{MIGRATE}, then restart the keeper")
