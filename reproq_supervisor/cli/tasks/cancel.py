"""`cancel`: tasks that nobody wants any more."""

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_ids
from reproq_supervisor.core.runs import RunId

_WORDS = {
    "cancelled": "cancelled",
    "requested": "is running; asked to stop",
    "ended": "had ended before",
    "unknown": "unknown: expected a task with this id, found none",
}


@click.command(epilog=example("reproq-supervisor cancel 42", "reproq-supervisor cancel 42 43 44 --json"))
@click.argument("result_ids", metavar="ID…", callback=as_ids, nargs=-1, required=True)
@common_options
def cancel(options: Options, result_ids: tuple[int, ...]) -> int:
    """Cancel waiting or running tasks.

    A waiting task ends at once, a running one is stopped within a second; `result` tells. Exit code 1 when an id is unknown or its task had
    ended before.
    """
    from reproq_supervisor.store import commands

    wanted = list(dict.fromkeys(map(RunId, result_ids)))
    with open_database(options) as connection:
        outcomes = commands.cancel(connection, wanted)
    if options.output.as_json:
        options.output.show_json([{"id": run, "outcome": outcome} for run, outcome in outcomes.items()])
    else:
        for run, outcome in outcomes.items():
            options.output.line(f"{run} {_WORDS[outcome]}")
    missed = {commands.CancelOutcome.ENDED, commands.CancelOutcome.UNKNOWN}
    return 1 if missed & set(outcomes.values()) else 0
