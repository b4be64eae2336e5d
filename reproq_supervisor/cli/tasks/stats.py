"""`stats`: how many tasks are where."""

from dataclasses import asdict

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import rough_age, short_name

# Eighty characters hold them; `oldest` is the age of the oldest ready run.
_COLUMNS = ("queue", "ready", "oldest", "running", "parked", "waiting", "done", "failed", "cancelled")


@click.command(epilog=example("reproq-supervisor stats", "reproq-supervisor stats --json"))
@common_options
def stats(options: Options) -> None:
    """Count tasks by queue and state.

    Parked tasks are due later, or ask for a lock, limit or rate; waiting ones wait for other tasks. `oldest` is how long the oldest ready
    task has been due. What has ended is counted while the history is small, and estimated from a sample above that (~).
    """
    from reproq_supervisor.store import commands

    with open_database(options) as connection:
        found = commands.stats(connection)
    if options.output.as_json:
        options.output.show_json(asdict(found))
        return
    about = "~" if found.ended_is_estimate else ""
    rows = [
        (
            short_name(name),
            queue.ready,
            "" if queue.oldest_ready_s is None else rough_age(queue.oldest_ready_s),
            queue.running,
            queue.parked,
            queue.waiting,
            *(f"{about}{count}" if about else count for count in (queue.ended.successful, queue.ended.failed, queue.ended.cancelled)),
        )
        for name, queue in found.queues.items()
    ]
    options.output.table(_COLUMNS, rows, empty="no tasks")
    for name, queue in found.queues.items():
        if queue.paused is not None:
            why = f": {queue.paused}" if queue.paused else ""
            options.output.line(f"{short_name(name)} is paused, nobody claims from it{why}", style="yellow")
