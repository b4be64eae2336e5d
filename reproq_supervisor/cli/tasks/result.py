"""`result`: what became of a task."""

import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.database import DatabaseAwayError, open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_duration, as_id
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.progress import progress_in
from reproq_supervisor.core.runs import TERMINAL, RunId, RunStatus

if TYPE_CHECKING:
    from reproq_supervisor.cli.output import Output
    from reproq_supervisor.store.commands import RunView

# Between two looks while waiting: soon at first, for short tasks, then ever less often.
_FIRST_PAUSE_S = 0.02
_LAST_PAUSE_S = 0.5

_COLOURS: dict[str, str] = {
    RunStatus.SUCCESSFUL: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "yellow",
    RunStatus.RUNNING: "cyan",
}
_PARKED = {
    "due": "parked until it is due",
    "key": "parked: its lock_key or concurrency_key is full; it comes back by itself",
    "rate": "parked until its rate limit has a token; see `limit ls`",
}
EXIT_FAILED = 1


class UnknownRunError(ReproqError):
    """No such task, or its row was pruned."""


class NotEndedError(ReproqError):
    """The task has not ended in the time that was given; ask again."""

    exit_code = 75


@click.command(epilog=example("reproq-supervisor result 42", "reproq-supervisor result 42 --wait 30 --json"))
@click.argument("result_id", metavar="ID", callback=as_id)
@click.option("--wait", "wait_s", metavar="DURATION", callback=as_duration, help="Wait that long for its end.")
@common_options
def result(options: Options, result_id: int, wait_s: float | None) -> int:
    """Show what became of a task.

    Exit code 0 when it succeeded or has not ended, 1 when it failed, was cancelled or is unknown, 75 when --wait was not long enough.
    """
    run = _look(options, RunId(result_id), wait_s)
    if wait_s is not None and run.status not in TERMINAL:
        raise NotEndedError(f"task {result_id}: expected to end within {wait_s:g} s, found {run.status}; ask again, or wait longer")
    if options.output.as_json:
        options.output.show_json(plain(run))
    else:
        _show(options.output, run)
    return EXIT_FAILED if run.status in (RunStatus.FAILED, RunStatus.CANCELLED) else 0


def _look(options: Options, run: RunId, wait_s: float | None) -> "RunView":
    """Return the run; when waiting, as soon as it has ended. A database that goes away meanwhile may come back until the time is up.

    Raises:
      UnknownRunError: there is no such run.
    """
    deadline = time.monotonic() + (wait_s or 0)
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            with open_database(options) as connection:
                return _watch(connection, run, deadline)
        except DatabaseAwayError:
            if time.monotonic() + pause_s >= deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(_LAST_PAUSE_S, pause_s * 1.5)


def _watch(connection: Any, run: RunId, deadline: float) -> "RunView":
    from reproq_supervisor.store import commands

    pause_s = _FIRST_PAUSE_S
    while True:
        view = commands.result(connection, run)
        if view is None:
            raise UnknownRunError(f"task {run}: expected a task with this id, found none; it may have been pruned")
        left = deadline - time.monotonic()
        if view.status in TERMINAL or left <= 0:
            return view
        time.sleep(min(pause_s, left))
        pause_s = min(_LAST_PAUSE_S, pause_s * 1.5)


def plain(run: "RunView") -> dict[str, Any]:
    """Return the run as JSON data: the contract's `return_json` and `errors_json` are called what they are."""
    fields = asdict(run)
    fields["result"] = fields.pop("return_json")
    fields["errors"] = fields.pop("errors_json")
    fields["metadata"] = fields.pop("metadata_json")
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in fields.items()}


def _show(output: "Output", run: "RunView") -> None:
    output.line(f"{run.result_id} {run.task_path}", style="bold")
    output.line(f"  status    {run.status}{remark(run)}", style=_COLOURS.get(run.status))
    if run.status == RunStatus.SUCCESSFUL:
        output.line(f"  result    {json.dumps(run.return_json, ensure_ascii=False)}")
    if (progress := progress_in(run.metadata_json)) is not None:
        output.line(f"  progress  {progress}")
    output.line(f"  queue     {run.queue_name}, priority {run.priority}")
    output.line(f"  attempts  {run.attempts} of {run.max_attempts}")
    due_at = None if run.due_at == run.enqueued_at else run.due_at
    for name, at in (("enqueued", run.enqueued_at), ("due", due_at), ("started", run.started_at), ("finished", run.finished_at)):
        if at is not None:
            output.line(f"  {name:<9} {at.isoformat(sep=' ', timespec='milliseconds')}")
    if run.started_at and run.finished_at:
        since = " since the first attempt began" if run.attempts > 1 else ""
        output.line(f"  took      {(run.finished_at - run.started_at).total_seconds():.3f} s{since}")
    if run.leased_by:
        output.line(f"  held by   {run.leased_by}")
    if run.logs_uri:
        output.line(f"  output    reproq-supervisor logs {run.result_id}")
    for error in run.errors_json:
        output.line(f"  {headline(error)}", style="red")
        for line in str(error.get("traceback") or "").splitlines():
            output.line(f"    {line}")


def headline(error: dict[str, Any]) -> str:
    """Return when and how an attempt failed; the message alone may be no more than `3`."""
    attempt = error.get("attempt", "?")
    when = "before an attempt" if attempt == 0 else f"attempt {attempt}"
    words = [str(error.get(key) or "") for key in ("kind", "exception_class", "message")]
    return ": ".join([when, *(word for word in words if word)])


def remark(run: "RunView") -> str:
    """Return what is to be added to a status, in brackets: why it is parked, and whether it is to be cancelled."""
    remarks = [_PARKED.get(run.park_reason, f"parked: {run.park_reason}")] if run.park_reason else []
    if run.cancel_requested and run.status not in TERMINAL:
        remarks.append("to be cancelled")
    return f" ({', '.join(remarks)})" if remarks else ""
