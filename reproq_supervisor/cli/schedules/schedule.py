"""`schedule`: what fires when."""

import json
from dataclasses import asdict
from datetime import MAXYEAR, UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.schedules.lines import BrokenScheduleError, firings, read_kept, read_typed
from reproq_supervisor.cli.values import MOST_INT32, as_delay, as_duration, as_json, as_queue, as_text
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.core.policy.schedule import Missed, Overlap

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import Connection
    from reproq_supervisor.store.timetable import Schedule


class NoSuchScheduleError(ReproqError):
    """There is no schedule of that name."""


class ScheduleExistsError(ReproqError):
    """There is one already, or a file has it."""


@click.group()
def schedule() -> None:
    """List, add, change and try schedules."""


@schedule.command("list", epilog=example("reproq-supervisor schedule list", "reproq-supervisor schedule list --json"))
@common_options
def list_(options: Options) -> None:
    """List the schedules: when they fire next, when they fired last, and why those that are disabled are."""
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        found = timetable.every(connection)
    if options.output.as_json:
        options.output.show_json([_as_fields(each) for each in found])
        return
    rows = [
        (
            each.name,
            each.cron_expr,
            each.timezone,
            each.task_path,
            _short(each.next_run_at if each.enabled else None),
            _short(each.last_run_at),
            _state(each),
        )
        for each in found
    ]
    options.output.table(("schedule", "cron", "zone", "task", "next", "last", ""), rows, empty="no schedules")


@schedule.command(
    epilog=example(
        "reproq-supervisor schedule add nightly '30 2 * * *' myapp.tasks.report --timezone Europe/Berlin",
        """reproq-supervisor schedule add poll '*/10 * * * *' myapp.tasks.poll --args '["eu"]' --overlap skip --jitter 30s""",
    )
)
@click.argument("name", metavar="NAME", callback=as_text)
@click.argument("cron", metavar="CRON", callback=as_text)
@click.argument("task_path", metavar="TASK_PATH", callback=as_text)
@click.option("--args", "args", metavar="JSON", callback=as_json(list, '[1, "two"]'), default="[]", help="Arguments, a JSON list.")
@click.option("--kwargs", "kwargs", metavar="JSON", callback=as_json(dict, '{"to": "me"}'), default="{}", help="Arguments by name.")
@click.option("--queue", "queue_name", metavar="NAME", callback=as_queue, default="default", show_default=True)
@click.option("--priority", metavar="N", type=click.IntRange(-MOST_INT32 - 1, MOST_INT32), default=0, help="Higher runs earlier.")
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="Whose wall clock the line means, e.g. Europe/Berlin.")
@click.option("--jitter", "jitter_s", metavar="DURATION", callback=as_delay, default="0", help="Runs start up to so much later, spread.")
@click.option(
    "--overlap",
    type=click.Choice([each.value for each in Overlap]),
    default=Overlap.ALLOW.value,
    show_default=True,
    help="While its last run has not ended.",
)
@click.option(
    "--missed",
    type=click.Choice([each.value for each in Missed]),
    default=Missed.ONE.value,
    show_default=True,
    help="Which of the firings that nobody saw are made up for.",
)
@click.option(
    "--timeout", metavar="DURATION", callback=as_duration, default="15m", show_default=True, help="Runs are killed after that long."
)
@click.option("--max-attempts", metavar="N", type=click.IntRange(1, MOST_INT32), default=3, show_default=True)
@click.option("--concurrency-key", metavar="KEY", help="Run beside fewer than --concurrency-limit tasks with this key.")
@click.option(
    "--concurrency-limit", metavar="N", type=click.IntRange(0, MOST_INT32), default=0, help="How many tasks with the key may run at once."
)
@click.option("--disabled", is_flag=True, help="It does not fire until `schedule enable`.")
@click.option("--replace", is_flag=True, help="Change the schedule of this name, if there is one.")
@common_options
def add(options: Options, name: str, cron: str, task_path: str, disabled: bool, replace: bool, timeout: float, **given: Any) -> None:
    """Add a schedule.

    CRON has five fields, minute to weekday, and may have seconds as a sixth; @hourly, @daily, @weekly, @monthly and @yearly are known.
    """
    from reproq_supervisor.store import timetable

    if not name or not task_path or "\0" in name + task_path:
        raise click.UsageError("NAME and TASK_PATH: expected a text, got nothing")
    if not 1 <= timeout <= MOST_INT32 or timeout % 1:
        raise click.BadParameter(f"expected whole seconds, at least 1, got {timeout:g}", param_hint="--timeout")
    payload = json.dumps({"args": given.pop("args"), "kwargs": given.pop("kwargs")})
    columns = {
        **given,
        "cron_expr": cron,
        "task_path": task_path,
        "payload_json": payload,
        "enabled": not disabled,
        "timeout_seconds": int(timeout),
    }
    with open_database(options) as connection:
        first = next_firing(*read_typed(cron, given["timezone"], name), timetable.database_clock(connection))
        if first is None:
            raise click.BadParameter(f"expected a line that fires in the next fifty years, got {cron!r}", param_hint="CRON")
        if not timetable.add(connection, name, columns, first, replace=replace):
            raise ScheduleExistsError(f"{name}: expected a new name, there is such a schedule; --replace changes it")
        first = _found(connection, name).next_run_at
    _tell(
        options, f"{name} fires next at {_short(first)} UTC" if not disabled else f"{name} is added, disabled", name=name, next_run_at=first
    )


@schedule.command("rm", epilog=example("reproq-supervisor schedule rm nightly"))
@click.argument("name", metavar="NAME")
@common_options
def remove(options: Options, name: str) -> None:
    """Remove a schedule; what it has enqueued stays. One that the configuration file has is removed there."""
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        if _found(connection, name).is_declared:
            raise ScheduleExistsError(f"{name}: comes from a configuration file: remove it there, or `schedule disable {name}`")
        timetable.remove(connection, name)
    _tell(options, f"{name} removed", name=name)


@schedule.command(epilog=example("reproq-supervisor schedule enable nightly"))
@click.argument("name", metavar="NAME")
@common_options
def enable(options: Options, name: str) -> None:
    """Let a schedule fire again, from now on; what was missed meanwhile is not made up for."""
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        found = _found(connection, name)
        first = next_firing(*read_kept(found), timetable.database_clock(connection))
        if first is None:
            raise BrokenScheduleError(f"{name}: expected a line that fires in the next fifty years, got {found.cron_expr!r}")
        timetable.enable(connection, name, first)
        now = _found(connection, name).next_run_at
    _tell(options, f"{name} fires next at {_short(now)} UTC", name=name, next_run_at=now)


@schedule.command(epilog=example("reproq-supervisor schedule disable nightly --reason 'the mail relay moves'"))
@click.argument("name", metavar="NAME")
@click.option("--reason", metavar="TEXT", help="Shown by `schedule list`.")
@common_options
def disable(options: Options, name: str, reason: str | None) -> None:
    """Keep a schedule from firing."""
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        _found(connection, name)
        timetable.disable(connection, name, reason)
    _tell(options, f"{name} is disabled; `schedule enable {name}` lets it fire again", name=name)


@schedule.command(epilog=example("reproq-supervisor schedule run nightly"))
@click.argument("name", metavar="NAME")
@common_options
def run(options: Options, name: str) -> None:
    """Enqueue a schedule's task now, besides its firings; also when it is disabled. Prints the result id."""
    from reproq_supervisor.keeper.beat import read_arguments
    from reproq_supervisor.store import commands, timetable

    with open_database(options) as connection, connection.transaction():
        found = _found(connection, name)
        try:
            args, kwargs = read_arguments(found.payload_json)
        except ValueError as error:
            raise BrokenScheduleError(f"{name}: {error}") from error
        new = commands.NewRun(
            found.task_path,
            args,
            kwargs,
            queue_name=found.queue_name or "default",
            priority=found.priority,
            max_attempts=max(found.max_attempts, 1),
            timeout_seconds=found.timeout_seconds,
            concurrency_key=found.concurrency_key,
            concurrency_limit=found.concurrency_limit,
        )
        (made,) = commands.enqueue(connection, [new])
        timetable.note_run(connection, name, made)
    _tell(options, str(made), name=name, id=made)


@schedule.command(
    "next",
    epilog=example("reproq-supervisor schedule next '30 2 * * *' --timezone Europe/Berlin", "reproq-supervisor schedule next nightly"),
)
@click.argument("what", metavar="NAME_OR_CRON")
@click.option("--timezone", metavar="ZONE", help="Whose wall clock a line means; a schedule has its own.")
@click.option("--count", metavar="N", type=click.IntRange(1, 1000), default=5, show_default=True)
@common_options
def next_(options: Options, what: str, timezone: str | None, count: int) -> None:
    """Say when a schedule fires, or when a line would. A line needs no database."""
    from reproq_supervisor.store import timetable

    if what.startswith("@") or len(what.split()) >= 5:
        now = datetime.now(UTC)
        parsed = read_typed(what, timezone or "UTC", what)
    else:
        with open_database(options) as connection:
            found = _found(connection, what)
            now = timetable.database_clock(connection)
        parsed = read_kept(found) if timezone is None else read_typed(found.cron_expr, timezone, what)
    times = list(islice(firings(parsed, now), count))
    if options.output.as_json:
        options.output.show_json(times and [at.isoformat() for at in times])
        return
    zone = parsed[1]  # a line's own wins
    options.output.table(("UTC", str(zone)), [(_short(at), f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %a}") for at in times], empty="never")


def _found(connection: "Connection", name: str) -> "Schedule":
    from reproq_supervisor.store import timetable

    if (found := timetable.find(connection, name)) is None:
        raise NoSuchScheduleError(f"{name}: expected the name of a schedule, found none; see `schedule list`")
    return found


def _tell(options: Options, line: str, **fields: Any) -> None:
    if options.output.as_json:
        options.output.show_json({"ok": True, **fields})
    else:
        options.output.line(line)


def _as_fields(found: "Schedule") -> dict[str, Any]:
    return asdict(found) | {"payload_json": json.loads(found.payload_json)}


def _state(found: "Schedule") -> str:
    if found.enabled:
        return ""
    return f"disabled: {found.disabled_reason}" if found.disabled_reason else "disabled"


def _short(at: datetime | None) -> str:
    if at is None:
        return ""
    return "never" if at.year == MAXYEAR else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
