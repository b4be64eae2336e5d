"""Our rule for the number of executors against those of others, in simulated hours."""

import math

import pytest

from tests.sim.plant import Scenario, run
from tests.sim.scenarios import BY_NAME, EQUAL, SCENARIOS, Ours, made
from tests.sim.sizing_table import PAGE, table

A_LITTLE_S = 0.5
"""A 95th percentile of waits below this is as good as none."""
NAMES = pytest.mark.parametrize("scenario", list(BY_NAME))


@NAMES
def test_it_waits_no_longer_than_the_rules_of_others(scenario: str) -> None:
    ours = made(scenario, "this")
    for rival in ("Celery-like", "uWSGI-like"):
        assert ours.p95_s <= max(A_LITTLE_S, 1.02 * made(scenario, rival).p95_s)


@NAMES
def test_a_rule_that_follows_what_is_busy_starts_three_times_as_often_and_turns_five_times_as_often(scenario: str) -> None:
    ours, celery = made(scenario, "this"), made(scenario, "Celery-like")
    if scenario == "all at its most":
        assert (ours.starts, ours.reversals) == (celery.starts, celery.reversals)
    else:
        assert ours.starts < celery.starts / 3
        assert ours.reversals < max(1.0, celery.reversals / 5)


@NAMES
def test_a_rule_that_goes_to_its_most_and_stays_there_turns_as_often_and_costs_more_or_waits_longer(scenario: str) -> None:
    ours, uwsgi = made(scenario, "this"), made(scenario, "uWSGI-like")
    assert ours.average < uwsgi.average or ours.p95_s < uwsgi.p95_s
    assert ours.reversals <= max(1.0, uwsgi.reversals)
    # It adds one in three seconds, whatever waits: too few in a minute to start more than are of use when they are there.
    assert ours.starts <= uwsgi.starts * (1.1 if scenario == "boot of a minute" else 1.0)


@NAMES
def test_at_equal_cost_that_rule_waits_longer(scenario: str) -> None:
    """It is given no more at most than ours has on average."""
    ours, uwsgi = made(scenario, "this"), made(scenario, EQUAL)
    assert ours.p95_s <= max(A_LITTLE_S, uwsgi.p95_s)
    assert math.ceil(ours.average) >= uwsgi.average


def test_the_manual_shows_these_figures() -> None:
    page = PAGE.read_text()
    assert table() in page, "the figures are others now: python -m tests.sim.sizing_table"
    pairs = [(made(name, "uWSGI-like"), made(name, "this")) for name in BY_NAME]
    dearer = sum(uwsgi.average > ours.average for uwsgi, ours in pairs)
    assert f"keeps more executors in {dearer} of {len(pairs)} scenarios" in page, dearer


def test_the_same_seed_is_the_same_hour() -> None:
    scenario = SCENARIOS[0]
    first, second = (run(scenario, Ours(scenario), seed=7) for _ in range(2))
    assert (first.waits, first.wanted) == (second.waits, second.wanted)


def test_a_burst_has_its_size_within_seconds() -> None:
    scenario = Scenario("burst", lambda t: 0.2 if t < 100 else 14.0, seconds=130.0)
    outcome = run(scenario, Ours(scenario), seed=3)
    assert max(outcome.wanted[:100]) < 5
    assert outcome.wanted[105] >= 14
