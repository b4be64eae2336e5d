"""When a cron line fires, in UTC or in a zone whose clocks are put forward and back.

A line names *wall times*; in a zone these may be missing or come twice. So there are two kinds:

* The hour field is ``*``: the line means a rhythm. It fires at every moment whose wall time matches, also in the hour that comes twice.
* The hour field names hours: the line means times of day, and every wall time fires once. One that comes twice fires the first time; those
  that are skipped fire together at the moment to which the clocks are put.

This is what the cron daemons of Debian and of Vixie do. The search goes from wall time to moment for the second kind, and through stretches
of constant offset for the first; the test goes the other way, minute by minute.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo

_SECOND = timedelta(seconds=1)
_LOOKED_AHEAD_YEARS = 50
"""29 February on a given weekday comes every 28 years, and every 40 around a year such as 2100."""
_PROBE = timedelta(hours=12)
_NO_TWO_CHANGES_IN = timedelta(hours=3)

LAST = 0
"""The last day of a month among `days`; the last weekday of its kind among `nth`."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed line. All tuples are sorted and not empty.

    Attributes:
      days: of the month, and LAST; None for any.
      weekdays: 0 is Sunday; None for any. With `days` and `weekdays` a day needs only one of them, as everywhere in cron.
      nth: weekday → which ones of a month count, 1 to 5 and LAST; a weekday that is not here always counts.
      every_hour: the hour field is ``*``.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None
    nth: Mapping[int, frozenset[int]] = field(default_factory=dict)
    every_hour: bool = False


def next_firing(cron: Cron, zone: tzinfo, after: datetime) -> datetime | None:
    """Return the first moment later than *after* at which the line fires, None if there is none in the next fifty years.

    Args:
      after: aware; the answer is in UTC.
    """
    after = after.astimezone(UTC)
    if cron.every_hour:
        return _next_of_rhythm(cron, zone, after)
    wall: datetime | None = _wall(after, zone).replace(microsecond=0)
    while wall is not None and (wall := _next_wall(cron, wall + _SECOND)) is not None:
        moment = _moment(wall, zone)
        if moment > after:
            return moment
    return None


def _next_of_rhythm(cron: Cron, zone: tzinfo, after: datetime) -> datetime | None:
    at = after.replace(microsecond=0) + _SECOND
    while True:
        offset = _offset(at, zone)
        wall = _next_wall(cron, at.replace(tzinfo=None) + offset)
        if wall is None:
            return None
        moment = (wall - offset).replace(tzinfo=UTC)
        change = _first_change(zone, at, moment, offset)
        if change is None:
            return moment
        at = change


def _moment(wall: datetime, zone: tzinfo) -> datetime:
    """Return when a wall time fires: the first time that it comes, or the moment at which it is skipped."""
    first = wall.replace(tzinfo=zone, fold=0).utcoffset() or timedelta()
    second = wall.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
    if first >= second:
        return (wall - first).replace(tzinfo=UTC)
    before, beyond = (wall - second).replace(tzinfo=UTC), (wall - first).replace(tzinfo=UTC)
    return _change_between(zone, before, beyond, first)


def _first_change(zone: tzinfo, start: datetime, end: datetime, offset: timedelta) -> datetime | None:
    """Return the first moment in (start, end] at which the offset is another one than *offset*, that at *start*."""
    at = start
    while at < end:
        following = min(end, at + _PROBE) if end - at > _NO_TWO_CHANGES_IN else end
        if _offset(following, zone) != offset:
            return _change_between(zone, at, following, offset)
        at = following
    return None


def _change_between(zone: tzinfo, before: datetime, beyond: datetime, offset: timedelta) -> datetime:
    """Return the first moment after *before*, whose offset is *offset*, that has another one, as *beyond* has."""
    low, high = 0, round((beyond - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(before + timedelta(seconds=middle), zone) == offset:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _next_wall(cron: Cron, start: datetime) -> datetime | None:
    """Return the first matching wall time that is not before *start*."""
    day = start.date()
    if _matches(cron, day) and (found := _next_time(cron, start.time())) is not None:
        return datetime.combine(day, found)
    following = _next_day(cron, day + timedelta(days=1))
    return None if following is None else datetime.combine(following, time(cron.hours[0], cron.minutes[0], cron.seconds[0]))


def _next_time(cron: Cron, start: time) -> time | None:
    """Return the first matching time of a day that is not before *start*."""
    second = _at_least(cron.seconds, start.second)
    minute = _at_least(cron.minutes, start.minute)
    hour = _at_least(cron.hours, start.hour)
    if hour is None:
        return None
    if hour > start.hour:
        return time(hour, cron.minutes[0], cron.seconds[0])
    if minute == start.minute and second is not None:
        return time(hour, minute, second)
    if (minute := _at_least(cron.minutes, start.minute + 1)) is not None:
        return time(hour, minute, cron.seconds[0])
    if (hour := _at_least(cron.hours, start.hour + 1)) is not None:
        return time(hour, cron.minutes[0], cron.seconds[0])
    return None


def _at_least(values: tuple[int, ...], least: int) -> int | None:
    index = bisect_left(values, least)
    return values[index] if index < len(values) else None


def _next_day(cron: Cron, day: date) -> date | None:
    """Return the first matching day that is not before *day*."""
    last_year = min(day.year + _LOOKED_AHEAD_YEARS, 9998)
    while day.year <= last_year:
        if day.month not in cron.months:
            day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        elif _matches(cron, day):
            return day
        else:
            day += timedelta(days=1)
    return None


def _matches(cron: Cron, day: date) -> bool:
    if day.month not in cron.months:
        return False
    by_day = cron.days is not None and (day.day in cron.days or (LAST in cron.days and _is_in_last(day, 1)))
    by_weekday = cron.weekdays is not None and _matches_weekday(cron, day)
    if cron.days is None or cron.weekdays is None:
        return (cron.days is None or by_day) and (cron.weekdays is None or by_weekday)
    return by_day or by_weekday


def _matches_weekday(cron: Cron, day: date) -> bool:
    weekday = day.isoweekday() % 7
    if cron.weekdays is None or weekday not in cron.weekdays:
        return False
    nth = cron.nth.get(weekday)
    return nth is None or (day.day + 6) // 7 in nth or (LAST in nth and _is_in_last(day, 7))


def _is_in_last(day: date, days: int) -> bool:
    """Answer whether *day* is one of the last *days* of its month."""
    return (day + timedelta(days=days)).month != day.month
