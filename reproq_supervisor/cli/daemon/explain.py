"""`explain`: why a pool is as it is."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.daemon.control import ask
from reproq_supervisor.cli.daemon.explain_view import queue_lines, work_line
from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.core.errors import ReproqError

if TYPE_CHECKING:
    from reproq_supervisor.store.commands import QueueStats

_DATABASE_TIMEOUT_S = 3.0


@click.command(epilog=example("reproq-supervisor explain mail"))
@click.argument("pool", metavar="POOL")
@common_options
def explain(options: Options, pool: str) -> None:
    """Say why a pool is as it is.

    First what the supervisor knows of its processes and what its executors do, then what waits in its queues, as the database has it.
    """
    answer = ask(options, "explain", pool=pool)
    try:
        queues, trouble = _look(options, list(answer["pool"]["queues"])), None
    except ReproqError as error:
        queues, trouble = {}, str(error)
    if options.output.as_json:
        options.output.show_json({"ok": True, **answer, "queues": {name: asdict(found) for name, found in queues.items()}})
        return
    for line in (*answer["lines"], *work_line(pool, answer["pool"])):
        options.output.line(line)
    for line in queue_lines(queues):
        options.output.line(line)
    if trouble is not None:
        options.output.line(f"Its queues could not be looked at: {trouble}", style="yellow")


def _look(options: Options, names: list[str]) -> "dict[str, QueueStats]":
    """Return what waits in the queues of these names.

    Raises:
      ReproqError: the database cannot be asked now.
    """
    from reproq_supervisor.store import commands

    with open_database(options, timeout_s=_DATABASE_TIMEOUT_S) as connection:
        found = commands.stats(connection).queues
    return {name: found.get(name) or commands.QueueStats() for name in names}
