"""`cancel`: tasks that nobody wants any more."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.operations.bulk import confirm, in_batches, summary
from reproq_supervisor.cli.operations.filters import filter_options
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_ids
from reproq_supervisor.core.runs import RunId, RunStatus

if TYPE_CHECKING:
    from reproq_supervisor.store.commands import CancelOutcome
    from reproq_supervisor.store.filters import Filter

_ACTIVE = (RunStatus.READY, RunStatus.WAITING, RunStatus.RUNNING)
_WORDS = {
    "cancelled": "cancelled",
    "requested": "is running; asked to stop",
    "ended": "had ended before",
    "unknown": "unknown: expected a task with this id, found none",
}
_COUNTED = {
    "cancelled": "cancelled",
    "requested": "are running; asked to stop",
    "ended": "ended meanwhile",
    "unknown": "were deleted meanwhile",
}


@click.command(
    epilog=example(
        "reproq-supervisor cancel 42",
        "reproq-supervisor cancel 42 43 44 --json",
        "reproq-supervisor cancel --task 'shop.tasks.*' --status READY,WAITING",
        "reproq-supervisor cancel --queue bulk --all --dry-run",
    )
)
@click.argument("result_ids", metavar="[ID]…", callback=as_ids, nargs=-1)
@click.option("--id", "named_ids", metavar="ID", callback=as_ids, multiple=True, help="The same as an argument.")
@filter_options(*_ACTIVE, time="were enqueued", usual=_ACTIVE)
@click.option("--all", "everything", is_flag=True, help="Every task that has not ended and that the other options let pass.")
@click.option("--dry-run", is_flag=True, help="Say how many it would be; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before cancelling --all.")
@common_options
def cancel(
    options: Options,
    result_ids: tuple[int, ...],
    named_ids: tuple[int, ...],
    wanted: "Filter | None",
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Cancel waiting or running tasks.

    By their ids, by a filter, or --all. A waiting task ends at once, a running one is stopped within a second; `result` tells. Tasks that
    wait for a cancelled one fail with it. Each task is dealt with on its own, and interrupted, the same command goes on. Exit code 1 when
    an id is unknown or its task had ended before.
    """
    from reproq_supervisor.store import commands, triage
    from reproq_supervisor.store.filters import Filter

    named = list(dict.fromkeys(map(RunId, result_ids + named_ids)))
    if bool(named) == (wanted is not None or everything):
        raise click.UsageError("expected ids, or a filter such as --queue, or --all" + (", got both" if named else ", got none"))
    with open_database(options) as connection:
        runs = named or triage.active(connection, wanted or Filter(_ACTIVE))
        if dry_run:
            _tell_plan(options, runs)
            return 0
        if everything and runs:
            confirm(f"Cancel {len(runs)} tasks?", yes=yes)
        outcomes = dict(in_batches(runs, "cancelling", lambda batch: commands.cancel(connection, batch).items()))
    return _tell(options, outcomes, is_named=bool(named))


def _tell_plan(options: Options, runs: list[RunId]) -> None:
    if options.output.as_json:
        options.output.show_json({"ok": True, "dry_run": True, "ids": runs})
    else:
        options.output.line(f"{len(runs)} tasks would be cancelled")


def _tell(options: Options, outcomes: "dict[RunId, CancelOutcome]", *, is_named: bool) -> int:
    if options.output.as_json:
        options.output.show_json([{"id": run, "outcome": outcome} for run, outcome in outcomes.items()])
    elif is_named:
        for run, outcome in outcomes.items():
            options.output.line(f"{run} {_WORDS[outcome]}")
    else:
        for line in summary(Counter(map(str, outcomes.values())), _COUNTED) or ["no tasks to cancel"]:
            options.output.line(line)
    return 1 if is_named and {"ended", "unknown"} & set(outcomes.values()) else 0
