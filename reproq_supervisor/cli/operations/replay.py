"""`replay`: a task once more, as a new one."""

import re

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.operations.bulk import in_batches
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.tasks.result import UnknownRunError
from reproq_supervisor.cli.values import as_ids
from reproq_supervisor.core.runs import RunId

_HASH = re.compile(r"[0-9a-zA-Z_-]{1,64}")
_WORDS = {
    "enqueued": "Requeued task {run} as new result_id {other}",
    "duplicate": "{run} left: {other} is active, has the same content, and they were enqueued to be one",
    "refused": "{run} left: PostgreSQL refuses the new row, the server's log says why",
    "unknown": "{run} unknown: expected a task with this id, found none",
}


def _as_hash(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _HASH.fullmatch(value):
        raise click.BadParameter(f"expected a spec_hash, up to 64 letters and digits, got {value[:70]!r}", ctx, param)
    return value


@click.command(epilog=example("reproq-supervisor replay 42", "reproq-supervisor replay --spec-hash 2d6721014757fa10799d528b6b15aee6"))
@click.argument("result_ids", metavar="[ID]…", callback=as_ids, nargs=-1)
@click.option("--id", "named_ids", metavar="ID", callback=as_ids, multiple=True, help="The same as an argument.")
@click.option("--spec-hash", metavar="HASH", callback=_as_hash, help="Instead of an id: the newest task with this content.")
@common_options
def replay(options: Options, result_ids: tuple[int, ...], named_ids: tuple[int, ...], spec_hash: str | None) -> int:
    """Enqueue tasks once more, as new ones.

    A new task gets the content, queue, priority, keys and limits of the old one, and is due at once; it belongs to no workflow and does
    not expire. To run the same task again, in its workflow: `triage retry`. Exit code 1 when a task is unknown or an active one has its
    content.
    """
    from reproq_supervisor.store import triage as store

    named = list(dict.fromkeys(map(RunId, result_ids + named_ids)))
    if bool(named) == (spec_hash is not None):
        raise click.UsageError("expected ids or --spec-hash, got " + ("both" if named else "neither"))
    with open_database(options) as connection:
        if spec_hash is not None:
            newest = store.newest_by_hash(connection, spec_hash)
            if newest is None:
                raise UnknownRunError(f"spec_hash {spec_hash}: expected a task with this content, found none; it may have been pruned")
            named = [newest]
        # The same command would enqueue once more what it has.
        goes_on = "name only the others, which come after these, to go on"
        done = list(in_batches(named, "replaying", lambda batch: store.replay(connection, batch), goes_on=goes_on))
    is_whole = all(each.outcome is store.ReplayOutcome.ENQUEUED for each in done)
    if options.output.as_json:
        tasks = [{"id": each.result_id, "outcome": each.outcome, "other": each.other} for each in done]
        options.output.show_json({"ok": is_whole, "tasks": tasks})
    else:
        for each in done:
            options.output.line(_WORDS[each.outcome].format(run=each.result_id, other=each.other))
    return 0 if is_whole else 1
