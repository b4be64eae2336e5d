"""Which firings are due: what was missed, what is on time, what somebody else did, whatever the clock does."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.core.policy.schedule import (
    CAUGHT_UP,
    MISSED_AFTER,
    MOST_AT_ONCE,
    SET_BACK,
    Firings,
    Missed,
    decide_firings,
    is_astray,
)
from reproq_supervisor.settings.cron import parse_schedule

START = datetime(2026, 1, 1, tzinfo=UTC)
LINES = st.sampled_from(["* * * * *", "*/15 * * * *", "@hourly", "30 2 * * *", "* * * * * */10", "0 0 1 * *", "0 9-17 * * mon-fri"])
RULES = st.sampled_from(Missed)


def decide(line: str, due: datetime, now: datetime, rule: Missed = Missed.ONE, last: datetime | None = None) -> Firings:
    return decide_firings(due, last, now, rule, partial(next_firing, *parse_schedule(line)))


def minutes(*numbers: float) -> tuple[datetime, ...]:
    return tuple(START + timedelta(minutes=n) for n in numbers)


@pytest.mark.parametrize(
    ("rule", "late", "fires", "following"),
    [
        (Missed.ONE, 0.0, (0,), 15),
        (Missed.ONE, 0.9, (0,), 15),
        (Missed.ONE, 40, (30,), 45),  # three were missed: the latest stands for all
        (Missed.ONE, 45.5, (45,), 60),  # and one that is on time for all that were missed
        (Missed.NONE, 40, (), 45),
        (Missed.NONE, 45.5, (45,), 60),
        (Missed.ALL, 45.5, (0, 15, 30, 45), 60),
    ],
)
def test_the_rule_says_what_becomes_of_what_was_missed(rule: Missed, late: float, fires: tuple[int, ...], following: int) -> None:
    found = decide("*/15 * * * *", START, START + timedelta(minutes=late), rule)
    assert found == Firings(minutes(*fires), *minutes(following))


def test_what_was_missed_more_than_a_day_ago_is_not_made_up_for() -> None:
    now = START + timedelta(days=30)
    assert decide("@hourly", START, now, Missed.ALL).times[0] == now - CAUGHT_UP


def test_a_time_that_somebody_set_fires_even_if_the_line_does_not_name_it() -> None:
    odd = START + timedelta(seconds=17, microseconds=3)
    assert decide("@hourly", odd, odd, Missed.NONE) == Firings((odd,), *minutes(60))


def test_what_somebody_else_enqueued_does_not_fire_again() -> None:
    now = START + timedelta(minutes=50)
    assert decide("*/15 * * * *", START, now, Missed.ALL, last=START + timedelta(minutes=30)).times == minutes(45)
    assert decide("*/15 * * * *", START, now, Missed.ONE, last=START + timedelta(minutes=45)).times == ()


def test_a_line_that_fires_no_more_has_no_next_time() -> None:
    assert decide("0 0 31 2 *", START, START) == Firings((START,), None)


@settings(deadline=None)
@given(line=LINES, rule=RULES, jumps=st.lists(st.integers(-3 * 86400, 3 * 86400), min_size=1, max_size=25))
def test_whatever_the_clock_does_nothing_fires_twice_or_ahead_of_time(line: str, rule: Missed, jumps: list[int]) -> None:
    cron, zone = parse_schedule(line)
    due = next_firing(cron, zone, START)
    now, last = START, None
    fired: list[datetime] = []
    for jump in jumps:
        now += timedelta(seconds=jump)
        if due is None or due > now:
            continue
        found = decide(line, due, now, rule, last)
        assert all(at <= now for at in found.times)
        fired += found.times
        last, due = max([*found.times, *([last] if last else [])], default=None), found.next_run_at
        assert due is not None
        assert len(found.times) <= MOST_AT_ONCE or rule is not Missed.ALL
    assert fired == sorted(set(fired))


@settings(deadline=None)
@given(
    line=st.sampled_from(["*/15 * * * *", "@hourly", "7 * * * *"]),
    rule=RULES,
    jumps=st.lists(st.integers(-40 * 86400, 40 * 86400), min_size=1, max_size=12),
)
def test_however_far_the_clock_was_set_no_schedule_is_silent_for_more_than_a_day(line: str, rule: Missed, jumps: list[int]) -> None:
    cron, zone = parse_schedule(line)
    due = next_firing(cron, zone, START)
    now, last, marked = START, None, START
    entered: set[datetime] = set()
    fired: list[datetime] = []

    def look() -> None:
        nonlocal due, last, marked
        assert due is not None
        if due > now and is_astray(marked, now):
            due, last, marked = next_firing(cron, zone, now), None, now
        assert due is not None
        if due > now:
            return
        found = decide(line, due, now, rule, last if last is None or not is_astray(last, now) else None)
        fired.extend(at for at in found.times if at not in entered)
        entered.update(found.times)
        last, due, marked = max([*found.times, *([last] if last else [])], default=None), found.next_run_at, now

    for jump in jumps:
        now += timedelta(seconds=jump)
        look()
    calm = now + SET_BACK
    while now < calm + timedelta(hours=2):
        now += timedelta(seconds=30)
        look()
    assert len(fired) == len(set(fired))
    at = next_firing(cron, zone, calm)
    while at is not None and at <= now:
        assert at in entered
        at = next_firing(cron, zone, at)


@settings(deadline=None)
@given(line=LINES, rule=RULES, steps=st.lists(st.integers(1, int(MISSED_AFTER.total_seconds())), min_size=1, max_size=60))
def test_who_looks_at_least_once_a_minute_misses_none(line: str, rule: Missed, steps: list[int]) -> None:
    cron, zone = parse_schedule(line)
    due = next_firing(cron, zone, START)
    now = START
    fired: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        if due is not None and due <= now:
            found = decide(line, due, now, rule)
            fired += found.times
            due = found.next_run_at
    expected = []
    at = next_firing(cron, zone, START)
    while at is not None and at <= now:
        expected.append(at)
        at = next_firing(cron, zone, at)
    assert fired == expected
