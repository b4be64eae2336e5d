"""`pg-cron`: let the database itself fire schedules."""

from datetime import UTC
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.core.errors import ReproqError

if TYPE_CHECKING:
    from reproq_supervisor.store.timetable import Schedule


class NoPgCronError(ReproqError):
    """The server has no pg_cron."""


@click.command("pg-cron", epilog=example("reproq-supervisor pg-cron --dry-run", "reproq-supervisor pg-cron --install --if-supported"))
@click.option("--install/--remove", default=True, help="Make a job for every enabled schedule (the default), or remove our jobs.")
@click.option("--prefix", metavar="NAME", default="reproq_periodic", show_default=True, help="Our jobs are called PREFIX_SCHEDULE.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--if-supported", is_flag=True, help="Where the server has no pg_cron, do nothing and succeed.")
@common_options
def pg_cron(options: Options, install: bool, prefix: str, dry_run: bool, if_supported: bool) -> None:
    """Let pg_cron fire the schedules, without any process of ours.

    pg_cron knows UTC and whole minutes: schedules with a zone, with seconds, with the last day of a month or the nth weekday are left out,
    and said. Set keeper.beat to false, or REPROQ_SCHEDULER_MODE to pg_cron; should both fire, every firing still enqueues one run. Say it
    again when schedules have changed.
    """
    from reproq_supervisor.store import pg_cron as jobs_of
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        is_supported = jobs_of.is_supported(connection)
        if not is_supported and not (if_supported or dry_run):
            raise NoPgCronError("pg_cron: expected the extension on this server, found none; --if-supported makes that no error")
        found = [each for each in timetable.every(connection) if each.enabled] if install else []
        lines = {each.name: _line_of(each) for each in found}
        left_out = [name for name, line in lines.items() if line is None]
        present = jobs_of.jobs_with(connection, prefix)
        goes = [] if install else [job for job, is_ours in present.items() if is_ours]
        foreign = [job for job, is_ours in present.items() if not is_ours]
        names = jobs_of.job_names(prefix, [name for name in lines if name not in left_out], foreign)
        jobs = [(job, line, name) for name, job in names.items() if (line := lines[name]) is not None]
        removed = 0
        if is_supported and not dry_run:
            if install:
                jobs_of.install(connection, prefix, jobs)
            else:
                removed = jobs_of.remove(connection, prefix)
    done = is_supported and not dry_run
    if options.output.as_json:
        listed = [{"job": job, "cron": line, "schedule": name} for job, line, name in jobs]
        options.output.show_json(
            {"ok": True, "supported": is_supported, "done": done, "jobs": listed, "left_out": left_out, "goes": goes, "removed": removed}
        )
        return
    if not is_supported:
        options.output.line("this server has no pg_cron")
    if install:
        options.output.table(("job", "cron", "schedule"), jobs, empty="no schedules that pg_cron can fire")
        for name in left_out:
            options.output.line(f"{name}: left out, pg_cron has no words for when it fires", style="yellow")
    else:
        for job in goes:
            options.output.line(f"{job} {'removed' if done else 'would be removed'}")
        if not goes:
            options.output.line("no jobs of ours")
    if not done:
        options.output.line("nothing was changed")


def _line_of(schedule: "Schedule") -> str | None:
    from reproq_supervisor.settings.cron import CronError, parse_schedule
    from reproq_supervisor.store.pg_cron import line_of

    try:
        cron, zone = parse_schedule(schedule.cron_expr, schedule.timezone, schedule.name)
    except CronError:
        return None
    return line_of(cron) if zone is UTC else None
