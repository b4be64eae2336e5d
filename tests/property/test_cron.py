"""When cron lines fire, against a model that knows nothing but the clock on the wall, minute by minute."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise

import pytest
from croniter import CroniterBadDateError, croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reproq_supervisor.core.policy.cron import LAST, Cron, next_firing
from reproq_supervisor.settings.cron import CronError, parse_schedule

MINUTE = timedelta(minutes=1)
# With clocks that change by an hour, by half an hour, by three, at midnight, twice within a month, or that lost a whole day.
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago", "Asia/Beirut"),
    *("Pacific/Apia", "Asia/Kathmandu", "Africa/Cairo", "America/St_Johns", "Antarctica/Troll", "Europe/Dublin", "Asia/Tehran"),
)


def matches(cron: Cron, wall: datetime) -> bool:
    """Answer whether a wall time, whole minutes, is one that the line names."""
    tomorrow = wall + timedelta(days=1)
    in_last_week = (wall + timedelta(days=7)).month != wall.month
    weekday = wall.isoweekday() % 7
    day = cron.days is None or wall.day in cron.days or (LAST in cron.days and tomorrow.month != wall.month)
    week = cron.weekdays is None or weekday in cron.weekdays
    if weekday in cron.nth:
        which = cron.nth[weekday]
        week = week and ((wall.day - 1) // 7 + 1 in which or (LAST in which and in_last_week))
    both = (day or week) if cron.days is not None and cron.weekdays is not None else (day and week)
    return both and wall.month in cron.months and wall.hour in cron.hours and wall.minute in cron.minutes


def model(cron: Cron, zone: tzinfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Say every firing in (start, end]: watch the clock on the wall, and note which times it has shown and which it jumped over."""
    at = start - timedelta(days=2)
    latest = (at - MINUTE).astimezone(zone).replace(tzinfo=None)
    while at <= end:
        wall = at.astimezone(zone).replace(tzinfo=None)
        if cron.every_hour:
            fires = matches(cron, wall)
        else:
            fires = False
            while latest < wall:  # all that the clock has passed since it last showed something new
                latest += MINUTE
                fires = fires or matches(cron, latest)
        if fires and at > start:
            yield at
        at += MINUTE


def firings(cron: Cron, zone: tzinfo, start: datetime, end: datetime) -> Iterator[datetime]:
    at: datetime | None = start
    while at is not None and (at := next_firing(cron, zone, at)) is not None and at <= end:
        yield at


@cache
def changes(zone: tzinfo, year: int) -> list[datetime]:
    """Return the moments of a year, to the hour, around which the clocks of a zone change."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(366 * 24)]
    return [later for earlier, later in pairwise(hours) if earlier.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset()]


MOMENTS = st.integers(946684800, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.just("*"),
        st.integers(2, max(2, high // 2)).map(lambda n: f"*/{n}"),
        st.lists(number, min_size=1, max_size=4).map(lambda ns: ",".join(map(str, ns))),
        spans.map(lambda s: f"{s[0]}-{s[1]}"),
    )


PLAIN_WEEKDAY = st.one_of(field(0, 6), st.sampled_from(["mon-fri", "sun", "7"]))
WEEKDAY = st.one_of(PLAIN_WEEKDAY, st.sampled_from(["1#2", "5#1", "L5"]))
DAY = st.one_of(field(1, 31), st.just("L"))
LINES = st.tuples(field(0, 59), field(0, 23), DAY, st.just("*"), WEEKDAY).map(" ".join)
# Where a line names days of the month and the nth of a weekday, croniter's own search looks through years.
PLAIN_LINES = st.tuples(field(0, 59), field(0, 23), DAY, st.sampled_from(["*", "2", "1-6", "4,11"]), PLAIN_WEEKDAY).map(" ".join)


@settings(deadline=None)
@given(line=LINES, zone_name=st.sampled_from(ZONES), year=st.integers(2009, 2037), data=st.data())
@example(line="30 2 * * *", zone_name="Europe/Berlin", year=2025, data=None)
@example(line="0 12 30 * *", zone_name="Pacific/Apia", year=2011, data=None)
def test_a_line_fires_when_the_clock_on_the_wall_says_so(line: str, zone_name: str, year: int, data: st.DataObject | None) -> None:
    cron, zone = parse_schedule(line, zone_name)
    around = changes(zone, year) or [datetime(year, 3, 1, tzinfo=UTC)]
    for middle in around if data is None else [data.draw(st.sampled_from(around))]:
        start, end = middle - timedelta(hours=30), middle + timedelta(hours=30)
        assert list(firings(cron, zone, start, end)) == list(model(cron, zone, start, end))


@settings(deadline=None)
@given(line=PLAIN_LINES, start=MOMENTS)
def test_in_utc_a_line_fires_as_croniter_says(line: str, start: datetime) -> None:
    cron, zone = parse_schedule(line)
    theirs = croniter(line, start)
    at: datetime | None = start
    for _ in range(3):
        at = next_firing(cron, zone, at)
        try:
            expected = theirs.get_next(datetime)
        except CroniterBadDateError:
            expected = None  # the 30th of February
        assert at == expected
        if at is None:
            break


@settings(deadline=None)
@example(line="0 0 * * * 1", start=datetime(2006, 9, 25, 4, 0, 1, tzinfo=UTC), zone_name="America/Santiago")
@given(
    line=st.tuples(field(0, 59), field(0, 23), st.just("*"), st.just("*"), st.just("*"), field(0, 59)).map(" ".join),
    start=MOMENTS,
    zone_name=st.sampled_from(ZONES),
)
def test_seconds_come_last_and_firings_only_go_forward(line: str, start: datetime, zone_name: str) -> None:
    cron, zone = parse_schedule(line, zone_name)
    at = start
    for _ in range(20):
        following = next_firing(cron, zone, at)
        assert following is not None
        assert following > at
        jumped = following.astimezone(zone).utcoffset() != (following - timedelta(seconds=1)).astimezone(zone).utcoffset()
        assert following.second in cron.seconds or jumped
        assert following.microsecond == 0
        at = following


@settings(deadline=None)
@given(line=LINES, zone_name=st.sampled_from(ZONES), early=MOMENTS, step=st.integers(1, 10**6))
def test_no_firing_lies_between_a_moment_and_the_next_one(line: str, zone_name: str, early: datetime, step: int) -> None:
    cron, zone = parse_schedule(line, zone_name)
    first = next_firing(cron, zone, early)
    later = early + timedelta(seconds=step)
    assert first is not None
    if later < first:
        assert next_firing(cron, zone, later) == first


@pytest.mark.parametrize(
    ("line", "zone", "after", "fires"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),  # skipped: at 3:00
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),  # twice: the first time
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["2026-10-25T00:30Z", "2026-10-25T01:30Z"]),  # a rhythm goes on
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z", ["2026-09-06T04:00Z", "2026-09-07T03:00Z"]),  # midnight is skipped
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", ["2104-02-29T00:00Z"]),
        ("0 0 L * *", "UTC", "2026-02-01T00:00Z", ["2026-02-28T00:00Z", "2026-03-31T00:00Z"]),
        ("0 0 13 * 5", "UTC", "2026-11-01T00:00Z", ["2026-11-06T00:00Z", "2026-11-13T00:00Z"]),  # one of the two is enough
        ("@daily", "Asia/Kathmandu", "2026-01-01T00:00Z", ["2026-01-01T18:15Z"]),
        ("CRON_TZ=America/New_York 0 9 * * *", "UTC", "2026-01-01T00:00Z", ["2026-01-01T14:00Z"]),
    ],
)
def test_examples(line: str, zone: str, after: str, fires: list[str]) -> None:
    cron, where = parse_schedule(line, zone)
    at: datetime | None = datetime.fromisoformat(after)
    for expected in fires:
        assert at is not None
        at = next_firing(cron, where, at)
        assert at == datetime.fromisoformat(expected)


def test_a_line_that_never_fires_is_told() -> None:
    cron, zone = parse_schedule("0 0 31 2 *")
    assert next_firing(cron, zone, datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "line",
    ["", "* * * *", "61 * * * *", "* * * * * * *", "@reboot", "@every 5s", "a b c d e", "R * * * *", "0 0 15W * *", "*" * 600, "0 0 * * 8"],
)
def test_a_line_that_means_nothing_is_refused_with_words(line: str) -> None:
    with pytest.raises(CronError, match="expected a cron line such as"):
        parse_schedule(line)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "Europe", "\x00"])
def test_a_zone_that_there_is_not_is_refused(zone: str) -> None:
    with pytest.raises(CronError, match="time zone"):
        parse_schedule("* * * * *", zone)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(line: str) -> None:
    try:
        cron, _ = parse_schedule(line)
    except CronError:
        return
    assert cron.minutes


def test_the_zones_of_this_test_are_known() -> None:
    assert set(ZONES) <= zoneinfo.available_timezones()
