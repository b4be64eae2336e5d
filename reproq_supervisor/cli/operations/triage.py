"""`triage`: what failed, why, and the way back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.operations.bulk import confirm, in_batches, summary
from reproq_supervisor.cli.operations.filters import filter_options
from reproq_supervisor.cli.operations.triage_view import as_place, place_words, show_story, story_data
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.tasks.result import UnknownRunError
from reproq_supervisor.cli.values import as_ids, as_maybe_id
from reproq_supervisor.core.runs import RunId, RunStatus

if TYPE_CHECKING:
    from reproq_supervisor.store.filters import Filter
    from reproq_supervisor.store.triage import EndedRun, Place, Retried

_ENDED = (RunStatus.FAILED, RunStatus.CANCELLED)
_DEFAULT_LIMIT = 50
_ERROR_WIDTH = 60

# Of several: how many, and what became of them.
_COUNTED = {
    "retried": "retried",
    "follows": "left: they run again when the task that they wait for succeeds",
    "duplicate": "left: an active task has the same content, and they were enqueued to be one",
    "expired": "left: their time is over (expires_at); `replay` makes new ones of them",
    "locked": "left: somebody else has them locked; try again",
    "refused": "left: PostgreSQL refuses the change, the server's log says why",
    "active": "left: they have not ended",
    "succeeded": "left: they have succeeded",
    "unknown": "unknown",
}
# Of one: what became of it.
_TOLD = {
    "retried": "retried",
    "follows": "left: it waits for {other}, which did not succeed; retry that one",
    "duplicate": "left: {other} is active, has the same content, and they were enqueued to be one",
    "expired": "left: its time is over (expires_at); `replay {run}` makes a new task of it",
    "locked": "left: somebody else has it locked; try again",
    "refused": "left: PostgreSQL refuses the change, the server's log says why",
    "active": "left: it has not ended",
    "succeeded": "left: it has succeeded; `replay {run}` makes a new task of it",
    "unknown": "unknown: expected a task with this id, found none",
}


@click.group()
def triage() -> None:
    """Look through failed tasks and run them again."""


@triage.command(
    "list",
    epilog=example(
        "reproq-supervisor triage list --queue mail --since 2h",
        "reproq-supervisor triage list --task 'shop.tasks.*' --kind timeout --limit 10",
        "reproq-supervisor triage list --status FAILED,CANCELLED --json",
    ),
)
@filter_options(*_ENDED, time="ended", usual=(RunStatus.FAILED,))
@click.option("--limit", metavar="N", type=int, default=_DEFAULT_LIMIT, show_default=True, help="How many at most.")
@click.option("--before", metavar="PLACE", callback=as_place, help="Go on where the list before ended: it says this word.")
@common_options
def list_(options: Options, wanted: "Filter | None", limit: int, before: "Place | None") -> None:
    """List failed tasks, the newest first.

    With other statuses than FAILED the order is that of the ids, and the whole history may be read for few matches.
    """
    from reproq_supervisor.store.filters import Filter
    from reproq_supervisor.store.triage import START, page

    with open_database(options) as connection:
        found = page(connection, wanted or Filter(), limit if limit > 0 else _DEFAULT_LIMIT, before or START)
    rest = place_words(found.rest)
    if options.output.as_json:
        runs = [{**asdict(run), "ended_at": run.ended_at.isoformat()} for run in found.runs]
        options.output.show_json({"tasks": runs, "before": rest})
        return
    options.output.table(
        ("id", "queue", "task", "attempts", "failed at", "kind", "last error"), map(_row, found.runs), empty="no failed tasks"
    )
    if rest is not None:
        options.output.line(f"there may be more: --before {rest}")


@triage.command(epilog=example("reproq-supervisor triage inspect 42", "reproq-supervisor triage inspect 42 --json"))
@click.argument("result_id", metavar="[ID]", callback=as_maybe_id, required=False)
@click.option("--id", "named_id", metavar="ID", callback=as_maybe_id, help="The same.")
@common_options
def inspect(options: Options, result_id: int | None, named_id: int | None) -> None:
    """Tell all there is to know about a task: attempts, errors, keys, workflow, who holds it, and what it was given."""
    from reproq_supervisor.store.story import tell

    if (run := result_id or named_id) is None:
        raise click.UsageError("expected the id of a task, got none")
    with open_database(options) as connection:
        story = tell(connection, RunId(run))
    if story is None:
        raise UnknownRunError(f"task {run}: expected a task with this id, found none; it may have been pruned")
    if options.output.as_json:
        options.output.show_json(story_data(story))
    else:
        show_story(options.output, story)


@triage.command(
    epilog=example(
        "reproq-supervisor triage retry 42 43",
        "reproq-supervisor triage retry --queue mail --kind timeout --since 2h",
        "reproq-supervisor triage retry --all --dry-run",
    )
)
@click.argument("result_ids", metavar="[ID]…", callback=as_ids, nargs=-1)
@click.option("--id", "named_ids", metavar="ID", callback=as_ids, multiple=True, help="The same as an argument.")
@filter_options(*_ENDED, time="ended", usual=(RunStatus.FAILED,))
@click.option("--all", "everything", is_flag=True, help="Every failed task that the other options let pass.")
@click.option("--limit", metavar="N", type=click.IntRange(0), default=0, help="No more than that many, the oldest first; 0: all.")
@click.option("--dry-run", is_flag=True, help="Say how many it would be; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before retrying --all; a script is not asked anyway.")
@common_options
def retry(
    options: Options,
    result_ids: tuple[int, ...],
    named_ids: tuple[int, ...],
    wanted: "Filter | None",
    everything: bool,
    limit: int,
    dry_run: bool,
    yes: bool,
) -> int:
    """Run failed or cancelled tasks again.

    By their ids, by a filter, or --all. They are due at once and have all their attempts again; their errors stay. A member of a workflow
    repairs it: what did not run because of it runs when it has succeeded. Each task is dealt with on its own. Interrupted, the same command
    goes on.

    Exit code 1 when a task that was named was left, or when one of many could not be changed.
    """
    from reproq_supervisor.store import triage as store
    from reproq_supervisor.store.filters import Filter

    named = list(dict.fromkeys(map(RunId, result_ids + named_ids)))
    if bool(named) == (wanted is not None or everything):
        raise click.UsageError("expected ids, or a filter such as --queue, or --all" + (", got both" if named else ", got none"))
    with open_database(options) as connection:
        runs = named or store.matching(connection, wanted or Filter())
        runs = runs[:limit] if limit else runs
        if dry_run:
            _tell_plan(options, runs)
            return 0
        if everything and runs:
            confirm(f"Retry {len(runs)} tasks?", yes=yes, unasked=True)
        done = list(in_batches(runs, "retrying", lambda batch: store.retry(connection, batch)))
        # What did not run because of another: that one may have come later in the list.
        again = [each.result_id for each in done if each.outcome is store.RetryOutcome.FOLLOWS]
        second = {each.result_id: each for each in in_batches(again, "retrying what follows", lambda batch: store.retry(connection, batch))}
    done = [second.get(each.result_id, each) for each in done]
    return _tell(options, done, is_named=bool(named))


def _tell_plan(options: Options, runs: Sequence[RunId]) -> None:
    if options.output.as_json:
        options.output.show_json({"ok": True, "dry_run": True, "ids": runs})
    else:
        options.output.line(f"{len(runs)} tasks would be retried")


def _tell(options: Options, done: "list[Retried]", *, is_named: bool) -> int:
    counts = Counter(str(each.outcome) for each in done)
    missed = [outcome for outcome in counts if (outcome != "retried" if is_named else outcome in ("locked", "refused"))]
    if options.output.as_json:
        tasks = [{"id": each.result_id, "outcome": each.outcome, "other": each.other} for each in done]
        options.output.show_json({"ok": not missed, "counts": dict(counts), "tasks": tasks})
    elif is_named:
        for each in done:
            options.output.line(f"{each.result_id} {_TOLD[each.outcome].format(run=each.result_id, other=each.other)}")
    else:
        for line in summary(counts, _COUNTED) or ["no tasks to retry"]:
            options.output.line(line)
    return 1 if missed else 0


def _row(run: "EndedRun") -> tuple[Any, ...]:
    error = " ".join((run.last_error or "").split())
    short = error if len(error) <= _ERROR_WIDTH else f"{error[: _ERROR_WIDTH - 1]}…"
    attempts = f"{run.attempts}/{run.max_attempts}"
    return run.result_id, run.queue_name, run.task_path, attempts, run.ended_at.isoformat("T", "seconds"), run.kind, short
