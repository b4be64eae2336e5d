"""`migrate`: the database's schema, step by step."""

from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import Output

if TYPE_CHECKING:
    from reproq_supervisor.store.coexistence import Coexistence
    from reproq_supervisor.store.migrate import Planned, Step

# Older workers say every 30 s that they are there.
_ALIVE_S = 90.0


@click.command(
    epilog=example(
        "reproq-supervisor migrate --plan", "reproq-supervisor migrate --dsn postgresql://app@db/app", "reproq-supervisor migrate --coexist"
    )
)
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps, the locks they take and a guess of their time; change nothing.")
@click.option(
    "--coexist/--no-coexist",
    default=None,
    help="Provide for an older worker that goes on beside this program, until --no-coexist. Without either it stays as it is.",
)
@common_options
def migrate(options: Options, only_plan: bool, coexist: bool | None) -> None:
    """Bring the database to the schema of this version.

    From an empty database, from the tables of the older worker or of its Django package, or from an earlier version. Producers can go on:
    no step keeps them waiting for a second. Interrupted anywhere, the next call goes on from there. Of two calls at once one waits.

    With --coexist an older worker and this program share the runs of one database. Claims and endings are dearer meanwhile.
    """
    from reproq_supervisor.store import migrate as migration
    from reproq_supervisor.store.coexistence import coexistence

    output = options.output
    if only_plan:
        with open_database(options) as connection:
            planned = migration.survey(connection, coexist=coexist)
        _show_plan(output, planned)
        return
    with open_database(options) as connection:
        taken = migration.migrate(connection, None if output.as_json else Narrator(output).tell, coexist=coexist)
        beside = coexistence(connection, _ALIVE_S)
    if output.as_json:
        since = beside.since.isoformat() if beside.since else None
        older = [worker.worker_id for worker in beside.older_workers]
        output.show_json(
            {"ok": True, "applied": True, "steps": [_as_data(step) for step in taken], "coexist_since": since, "older_workers": older}
        )
        return
    output.line(f"{len(taken)} steps taken; up to date" if taken else "up to date")
    _tell_of_older(output, beside)


def _tell_of_older(output: Output, beside: "Coexistence") -> None:
    alive = ", ".join(worker.worker_id for worker in beside.older_workers[:3])
    if beside.since is not None:
        line = (
            f"co-existence is on since {beside.since.isoformat(' ', 'minutes')}; when the last older worker is gone: migrate --no-coexist"
        )
        output.line(line)
    elif alive:
        output.line(f"an older worker is at work ({alive}): it does no harm, but may stand still; stop it, or: migrate --coexist")


class Narrator:
    """Says each step once, and each new word on its progress."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = ""

    def tell(self, step: "Step", words: str) -> None:
        line = f"  {words}" if words else f"{step.name} …"
        if line != self._last:
            self._output.line(line)
        self._last = line


def _show_plan(output: Output, planned: "list[Planned]") -> None:
    if output.as_json:
        steps = [{**_as_data(each.step), "done": each.is_done, "estimate_s": round(each.estimate_s, 1)} for each in planned]
        output.show_json({"ok": True, "applied": False, "steps": steps})
        return
    rows = [(each.step.name, "done" if each.is_done else _duration(each.estimate_s), each.step.locks) for each in planned]
    output.table(["step", "time", "locks"], rows)
    missing = sum(not each.is_done for each in planned)
    output.line(f"{missing} steps to take" if missing else "up to date")


def _duration(seconds: float) -> str:
    return "under 1 s" if seconds < 1 else f"about {seconds:.0f} s"


def _as_data(step: "Step") -> dict[str, Any]:
    return {"version": step.version, "name": step.name, "locks": step.locks, "required": step.is_required}
