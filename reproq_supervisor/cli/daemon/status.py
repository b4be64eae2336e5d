"""`status`: pools, processes and what they do, once or live."""

import time
from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.daemon.control import ask
from reproq_supervisor.cli.daemon.record import NoDaemonError
from reproq_supervisor.cli.daemon.status_view import (
    DUTY_COLUMNS,
    POOL_COLUMNS,
    PROCESS_COLUMNS,
    SHORT_DUTY_COLUMNS,
    duty_rows,
    head_lines,
    pool_rows,
    process_rows,
    recycled_lines,
    remarks,
    short_duty_rows,
)
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import build_table

if TYPE_CHECKING:
    from rich.console import RenderableType

_EVERY_S = 1.0


@click.command(epilog=example("reproq-supervisor status", "reproq-supervisor status --watch", "reproq-supervisor status --json"))
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one object a second.")
@click.option("--processes", is_flag=True, help="Show every process, too, and all that the keeper's duties have done.")
@common_options
def status(options: Options, watch: bool, processes: bool) -> None:
    """Show pools, processes and what they do.

    Below the pools are the duties of this daemon's keeper. Totals and rates are of the processes that live now. Memory is the
    proportional set size: what is shared is counted once.
    """
    if not watch:
        _show(options, _look(options), processes=processes)
        return
    try:
        _watch(options, processes=processes)
    except KeyboardInterrupt:
        return  # the usual way to end it


def _watch(options: Options, *, processes: bool) -> None:
    """Show it again and again; a daemon that goes away may come back."""
    from rich.live import Live
    from rich.text import Text

    if options.output.as_json or not options.output.console.is_terminal:
        while True:
            _show(options, _look(options), processes=processes)
            time.sleep(_EVERY_S)
    with Live(console=options.output.console, auto_refresh=False) as live:
        while True:
            try:
                live.update(_render(_look(options), processes=processes), refresh=True)
            except NoDaemonError as error:
                live.update(Text(str(error), style="red"), refresh=True)
            time.sleep(_EVERY_S)


def _look(options: Options) -> dict[str, Any]:
    """Return the daemon's answer, with `memory` as this process can see it: bytes by pid of each direct child and the supervisor."""
    from reproq_supervisor.process.memory import family_pss_bytes

    found: dict[str, Any] = ask(options, "status")["status"]
    found["memory"] = family_pss_bytes(found["pid"])
    return found


def _show(options: Options, found: dict[str, Any], *, processes: bool) -> None:
    if options.output.as_json:
        options.output.show_json(found)
    else:
        options.output.console.print(_render(found, processes=processes))


def _render(found: dict[str, Any], *, processes: bool) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    memory = found["memory"]
    parts: list[RenderableType] = [Text(line.text, style=line.style or "") for line in head_lines(found, memory)]
    parts += ["", build_table(POOL_COLUMNS, pool_rows(found, memory))]
    if processes:
        parts += ["", build_table(PROCESS_COLUMNS, process_rows(found, memory))]
        parts += ["", build_table(DUTY_COLUMNS, duty_rows(found))]
    elif duties := short_duty_rows(found):
        parts += ["", build_table(SHORT_DUTY_COLUMNS, duties)]
    notes = [*remarks(found), *recycled_lines(found)]
    parts += ["", *(Text(line.text, style=line.style or "") for line in notes)] if notes else []
    return Group(*parts)
