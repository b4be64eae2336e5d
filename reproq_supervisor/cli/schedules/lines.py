"""Lines and zones, as commands get them: what they mean, or who is to blame."""

from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

import click

from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.policy.cron import Cron, next_firing

if TYPE_CHECKING:
    from reproq_supervisor.store.timetable import Schedule

Parsed = tuple[Cron, tzinfo]
"""A line and its zone."""


class BrokenScheduleError(ReproqError):
    """The line, the zone or the payload of a schedule that is there means nothing."""


def read_typed(line: str, timezone: str, name: str) -> Parsed:
    """Return what somebody typed means.

    Raises:
      click.BadParameter: it means nothing; the argument at fault is named.
    """
    from reproq_supervisor.settings.cron import CronError, find_zone, parse_schedule

    argument = "--timezone"
    try:
        find_zone(timezone)
        argument = "CRON"
        return parse_schedule(line, timezone, name)
    except CronError as error:
        raise click.BadParameter(str(error), param_hint=argument) from error


def read_kept(found: "Schedule") -> Parsed:
    """Return what a schedule's own line means.

    Raises:
      BrokenScheduleError: nothing.
    """
    from reproq_supervisor.settings.cron import CronError, parse_schedule

    try:
        return parse_schedule(found.cron_expr, found.timezone, found.name)
    except CronError as error:
        raise BrokenScheduleError(f"{found.name}: {error}") from error


def firings(parsed: Parsed, after: datetime) -> Iterator[datetime]:
    """Return when it fires after a moment, in order, without end where the line has none."""
    at = next_firing(*parsed, after)
    while at is not None:
        yield at
        at = next_firing(*parsed, at)
