"""A day of ten thousand schedules, by the very functions that the beat decides with, in simulated time."""

import heapq
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.core.policy.schedule import Missed, decide_firings
from reproq_supervisor.settings.cron import parse_schedule

SCHEDULES = 10_000
LINES = (
    "@hourly",
    "@daily",
    "*/30 * * * *",
    "17 */2 * * *",
    "30 2 * * *",
    "0 9-17 * * mon-fri",
    "H H * * *",
    "5,35 8-20 * * *",
    "0 0 1 * *",
)
ZONES = ("UTC", "UTC", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
# The clocks of Europe are put forward on that day.
START = datetime(2026, 3, 28, 12, tzinfo=UTC)
END = START + timedelta(days=1)


@pytest.mark.timeout(300)
def test_a_day_of_ten_thousand_schedules_fires_each_firing_once() -> None:
    chance = random.Random(6)
    parsed = [parse_schedule(chance.choice(LINES), chance.choice(ZONES), f"s{n}") for n in range(SCHEDULES)]
    due = [(next_firing(cron, zone, START), n) for n, (cron, zone) in enumerate(parsed)]
    heap = [(at, n) for at, n in due if at is not None]
    heapq.heapify(heap)
    fired: Counter[tuple[int, datetime]] = Counter()
    decisions = 0
    now = START
    while heap and heap[0][0] <= END:
        # The beat wakes when the next one is due, sometimes late: a keeper was replaced.
        now = max(now, heap[0][0]) + timedelta(seconds=chance.choice([0, 0, 0, 0.02, 5]))
        while heap[0][0] <= now:
            at, n = heapq.heappop(heap)
            found = decide_firings(at, None, now, Missed.ALL, partial(next_firing, *parsed[n]))
            decisions += 1
            fired.update((n, time) for time in found.times)
            assert found.next_run_at is not None
            heapq.heappush(heap, (found.next_run_at, n))
    assert set(fired.values()) == {1}
    for n in chance.sample(range(SCHEDULES), 200):
        expected = []
        at = next_firing(*parsed[n], START)
        while at is not None and at <= now:
            expected.append(at)
            at = next_firing(*parsed[n], at)
        assert [time for time in expected if (n, time) in fired] == [time for time in expected if time <= END or (n, time) in fired]
    assert decisions <= len(fired)  # nothing is computed for a schedule that is not due
