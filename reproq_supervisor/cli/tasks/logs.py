"""`logs`: what a task printed."""

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.tasks.result import UnknownRunError
from reproq_supervisor.cli.values import as_maybe_id
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.runs import RunId

if TYPE_CHECKING:
    from reproq_supervisor.store.commands import RunView


class NoOutputError(ReproqError):
    """There is nothing to show, or it is elsewhere."""


@click.command(epilog=example("reproq-supervisor logs 42", "reproq-supervisor logs 42 --tail 20", "reproq-supervisor logs 42 --show-path"))
@click.argument("result_id", metavar="[ID]", callback=as_maybe_id, required=False)
@click.option("--id", "named_id", metavar="ID", callback=as_maybe_id, help="The same as the argument.")
@click.option("--tail", metavar="N", type=click.IntRange(0), help="Only the last N lines.")
@click.option("--max-bytes", metavar="N", type=click.IntRange(1), help="Only the last N bytes.")
@click.option("--show-path", is_flag=True, help="Say where it is instead, whether or not that is on this host.")
@common_options
def logs(options: Options, result_id: int | None, named_id: int | None, tail: int | None, max_bytes: int | None, show_path: bool) -> None:
    """Show what a task printed.

    That is standard output and error of its last finished attempt, up to 1 MiB each, where the configuration names a `logs_dir`. What an
    attempt prints is kept when it ends; while it runs, that of the attempt before is shown, and said so.
    """
    if (run := result_id or named_id) is None:
        raise click.UsageError("expected the id of a task, got none")
    path, running = _path_of(options, RunId(run))
    if show_path:
        if options.output.as_json:
            options.output.show_json({"id": run, "path": str(path), "running_attempt": running})
        else:
            click.echo(path)
        return
    text = _read(path, run, tail, max_bytes)
    if options.output.as_json:
        options.output.show_json({"id": run, "path": str(path), "text": text, "running_attempt": running})
    else:
        if running is not None:
            click.echo(f"attempt {running} runs and prints into memory until it ends; this is of the attempt before", err=True)
        click.echo(text, nl=False)


def _path_of(options: Options, run: RunId) -> tuple[Path, int | None]:
    """Return the file of the run's output, and which later attempt runs now.

    Raises:
      UnknownRunError, NoOutputError: there is none, and why.
    """
    from reproq_supervisor.store import commands

    with open_database(options) as connection:
        view = commands.result(connection, run)
    if view is None:
        raise UnknownRunError(f"task {run}: expected a task with this id, found none; it may have been pruned")
    if view.logs_uri is None:
        why = _why_nothing(view)
        raise NoOutputError(f"task {run}: expected captured output, found none: {why}")
    path = view.logs_uri.removeprefix("file://")
    if "://" in path:
        raise NoOutputError(f"task {run}: expected its output in a file, found it at {view.logs_uri}; look there")
    return Path(path), view.attempts if view.lane_state == "running" else None


def _why_nothing(view: "RunView") -> str:
    if view.finished_at is not None:
        return "it printed nothing, or the configuration has no logs_dir"
    if view.lane_state == "running":
        return f"its attempt {view.attempts} still runs; what it prints is kept when it ends"
    return "it has not finished an attempt"


def _read(path: Path, run: int, tail: int | None, max_bytes: int | None) -> str:
    """Return the text; bytes that are no UTF-8 are shown as replacement characters."""
    try:
        with path.open("rb") as file:
            if max_bytes is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            lines = file if tail is None else deque(file, maxlen=tail)
            return b"".join(lines).decode(errors="replace")
    except OSError as error:
        hint = "it is kept on the host that ran the task, readable by that daemon's user"
        raise NoOutputError(f"task {run}: expected its output in {path}, got: {error.strerror}; {hint}") from error
