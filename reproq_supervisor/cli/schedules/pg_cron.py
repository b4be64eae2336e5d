"""`pg-cron`: let the database itself fire schedules."""

from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.core.errors import ReproqError

if TYPE_CHECKING:
    from reproq_supervisor.store.timetable import Schedule


class NoPgCronError(ReproqError):
    """The server has no pg_cron, or none that fires in UTC."""


@click.command("pg-cron", epilog=example("reproq-supervisor pg-cron --dry-run", "reproq-supervisor pg-cron --install --if-supported"))
@click.option("--install/--remove", default=True, help="Make a job for every enabled schedule (the default), or remove our jobs.")
@click.option("--prefix", metavar="NAME", default="reproq_periodic", show_default=True, help="Our jobs are called PREFIX_SCHEDULE.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--if-supported", is_flag=True, help="Where the server has no pg_cron, do nothing and succeed.")
@common_options
def pg_cron(options: Options, install: bool, prefix: str, dry_run: bool, if_supported: bool) -> None:
    """Let pg_cron fire the schedules, without any process of ours.

    pg_cron knows UTC and whole minutes: schedules with a zone, with seconds, with the last day of a month or the nth weekday are left out,
    and the reason is said. Set keeper.beat to false, or REPROQ_SCHEDULER_MODE to pg_cron; should both fire, every firing still enqueues one
    run. Say it again when schedules have changed.
    """
    from reproq_supervisor.store import pg_cron as jobs_of
    from reproq_supervisor.store import timetable

    with open_database(options) as connection:
        support = jobs_of.support(connection)
        if not (support or if_supported or dry_run):
            raise NoPgCronError("pg_cron: expected the extension on this server, found none; --if-supported makes that no error")
        if install and support.is_made and not dry_run and (hindrance := support.hindrance()):
            raise NoPgCronError(hindrance)
        lines, left_out = _sort(timetable.every(connection)) if install else ({}, {})
        present = jobs_of.jobs_with(connection, prefix)
        foreign = [job for job, is_ours in present.items() if not is_ours]
        names = jobs_of.job_names(prefix, lines, foreign)
        jobs = [(job, lines[name], name) for name, job in names.items()]
        goes = [job for job, is_ours in present.items() if is_ours and job not in names.values()]
        removed = 0
        done = bool(support) and not dry_run
        if done and install:
            jobs_of.install(connection, prefix, jobs)
        elif done:
            removed = jobs_of.remove(connection, prefix)
    if options.output.as_json:
        listed = [{"job": job, "cron": line, "schedule": name} for job, line, name in jobs]
        answer = {"ok": True, "supported": bool(support), "hindrance": support.hindrance(), "done": done}
        options.output.show_json({**answer, "jobs": listed, "left_out": left_out, "goes": goes, "removed": removed})
        return
    if install:
        options.output.table(("job", "cron", "schedule"), jobs, empty="no schedules that pg_cron can fire")
    for name, cause in left_out.items():
        options.output.line(f"{name}: left out, {cause}", style="yellow")
    for job in goes:
        options.output.line(f"{job} {'removed' if done else 'would be removed'}")
    if not (install or goes):
        options.output.line("no jobs of ours")
    if not done:
        if hindrance := support.hindrance():
            options.output.line(hindrance, style="yellow")
        options.output.line("nothing was changed")


def _sort(schedules: Iterable["Schedule"]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the line of each schedule that pg_cron can fire, and why it cannot fire each of the others."""
    lines: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for each in schedules:
        try:
            lines[each.name] = _line_of(each)
        except ValueError as error:
            left_out[each.name] = str(error)
    return lines, left_out


def _line_of(schedule: "Schedule") -> str:
    from reproq_supervisor.settings.cron import parse_schedule
    from reproq_supervisor.store.pg_cron import NoWordsError, line_of

    if not schedule.enabled:
        raise ValueError("it is disabled")
    cron, zone = parse_schedule(schedule.cron_expr, schedule.timezone, schedule.name)
    if zone is not UTC:
        raise ValueError(f"pg_cron fires in UTC, and its zone is {zone}")
    try:
        return line_of(cron)
    except NoWordsError as error:
        raise ValueError(f"pg_cron has no words for {error}") from error
