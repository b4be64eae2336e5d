"""Our rule for the slots of an executor on simulated plants, against limits that follow the times of requests."""

import math
from collections.abc import Callable

import pytest

from reproq_supervisor.core.policy.slots import SlotLimits, SlotLoad, SlotReason, SlotState, SlotTuning, decide_slots, start_slots
from tests.sim.rivals import Gradient2Like, LatencyAimd
from tests.sim.slot_plant import SlotController, SlotOutcome, SlotScenario, behind, contended, lognormal, run_slots

SEEDS = (1, 2, 3)
AT_30 = contended(0.02, 0.00111)
AT_15 = contended(0.02, 0.00444)


class Ours:
    def __init__(self, scenario: SlotScenario) -> None:
        self._limits = SlotLimits(scenario.least, scenario.most)
        self.state: SlotState | None = None
        self.reasons: set[SlotReason] = set()

    def __call__(self, now: float, load: SlotLoad, took_s: float) -> int:
        state = self.state or start_slots(self._limits, load, now)
        self.state, decision = decide_slots(SlotTuning(), self._limits, state, load, now)
        self.reasons.add(decision.reason)
        return decision.slots


SATURATED = [
    SlotScenario("best at 30", AT_30, lambda _: 30),
    SlotScenario("wild times", AT_30, lambda _: 30, task=lambda rng, _: ("task", lognormal(rng, 0.2, 1.2)), seconds=1200),
    SlotScenario("sleeping", contended(0.0, 0.0), lambda _: 100, most=100),
    SlotScenario("computing", contended(1.0, 0.0), lambda _: 1),
    SlotScenario("behind a resource of 8", behind(8), lambda _: 8),
    SlotScenario("capacity halves", lambda n, t: (AT_30 if t < 600 else AT_15)(n, t), lambda t: 30 if t < 600 else 15, seconds=1200),
    SlotScenario("capacity doubles", lambda n, t: (AT_15 if t < 600 else AT_30)(n, t), lambda t: 15 if t < 600 else 30, seconds=1200),
    SlotScenario(
        "short and long in turn",
        AT_30,
        lambda _: 30,
        task=lambda rng, now: ("short", lognormal(rng, 0.05, 0.5)) if int(now / 7) % 2 else ("long", lognormal(rng, 1.0, 0.5)),
        seconds=1200,
    ),
    SlotScenario(
        "short and long mixed",
        AT_30,
        lambda _: 30,
        task=lambda rng, _: ("short", lognormal(rng, 0.05, 0.5)) if rng.random() < 0.7 else ("long", lognormal(rng, 1.0, 0.5)),
        seconds=1200,
    ),
    SlotScenario("of ten seconds", AT_30, lambda _: 30, task=lambda rng, _: ("task", lognormal(rng, 10.0, 0.5)), seconds=12_000),
    SlotScenario("every other look lost", AT_30, lambda _: 30, seen=lambda t: int(4 * t) % 2 == 0),
]


def _part_of_best(scenario: SlotScenario, outcome: SlotOutcome) -> float:
    """Return how much of what is possible got done in the last third."""
    since = scenario.seconds * 2 / 3
    best = int(scenario.best(scenario.seconds))
    return outcome.per_s(since) / (best / scenario.pace(best, scenario.seconds))


def _runs(scenario: SlotScenario, make: Callable[[], SlotController]) -> list[SlotOutcome]:
    return [run_slots(scenario, make(), seed=seed) for seed in SEEDS]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("scenario", SATURATED, ids=lambda each: each.name)
def test_it_gets_nearly_all_done_that_can_be_and_more_than_rules_that_follow_times(scenario: SlotScenario) -> None:
    outcomes = _runs(scenario, lambda: Ours(scenario))
    part = _mean([_part_of_best(scenario, outcome) for outcome in outcomes])
    assert part >= 0.9
    for rival in (LatencyAimd, Gradient2Like):
        theirs = _runs(scenario, lambda rival=rival: rival(scenario.least, scenario.most))
        # Where a rival comes as near to the best, it may be a little ahead: it does not look around.
        assert part >= _mean([_part_of_best(scenario, outcome) for outcome in theirs]) - 0.05


@pytest.mark.parametrize("scenario", SATURATED, ids=lambda each: each.name)
def test_of_numbers_that_do_as_well_it_stays_near_the_smallest(scenario: SlotScenario) -> None:
    since, best = scenario.seconds * 2 / 3, scenario.best(scenario.seconds)
    average = _mean([outcome.average(since) for outcome in _runs(scenario, lambda: Ours(scenario))])
    assert average <= 1.4 * best + 4


def test_sleeping_tasks_have_all_slots_within_a_minute() -> None:
    scenario = SATURATED[2]
    outcome = run_slots(scenario, Ours(scenario), seed=4)
    assert next(at for at, slots in zip(outcome.at, outcome.slots, strict=True) if slots == scenario.most) <= 60


def test_half_the_capacity_is_noticed_within_two_minutes() -> None:
    scenario = SATURATED[5]
    for outcome in _runs(scenario, lambda: Ours(scenario)):
        possible = 15 / AT_15(15, 0)
        assert outcome.per_s(720, 900) >= 0.85 * possible


def test_where_less_arrives_than_can_be_done_nothing_is_changed() -> None:
    scenario = SlotScenario("idle", AT_30, lambda _: 30, rate=lambda _: 2.0, least=10, seconds=300)
    rule = Ours(scenario)
    outcome = run_slots(scenario, rule, seed=5)
    assert set(outcome.slots) == {10}
    assert SlotReason.UNUSED in rule.reasons


def test_what_arrives_in_bursts_is_worked_off_with_more_than_the_least() -> None:
    scenario = SlotScenario("bursts", AT_30, lambda _: 30, rate=lambda t: 60.0 if t % 120 < 60 else 0.5, seconds=1200)
    outcome = run_slots(scenario, Ours(scenario), seed=6)
    assert max(waiting for at, waiting in zip(outcome.at, outcome.waiting, strict=True) if at > 360) < 600
    assert outcome.average(600) > 5


def test_runs_that_get_too_slow_to_end_in_time_halve_it() -> None:
    # More still gets done beyond forty, but then runs end by their limit.
    scenario = SlotScenario(
        "time limit", behind(40), lambda _: 40, task=lambda rng, _: ("task", lognormal(rng, 0.2, 0.1)), limit_s=0.35, most=400
    )
    rule = Ours(scenario)
    outcome = run_slots(scenario, rule, seed=7)
    assert max(slots for at, slots in zip(outcome.at, outcome.slots, strict=True) if at > 60) < 100
    assert outcome.troubles < 0.05 * outcome.work[-1] / 0.2


def test_a_task_that_always_runs_out_of_time_does_not_starve_the_others() -> None:
    scenario = SlotScenario(
        "one bad task",
        contended(0.0, 0.0),
        lambda _: 50,
        task=lambda rng, _: ("bad", 20.0) if rng.random() < 0.02 else ("good", lognormal(rng, 0.2, 0.3)),
        limit_s=15.0,
        most=50,
    )
    assert _mean([outcome.average(300) for outcome in _runs(scenario, lambda: Ours(scenario))]) > 40


def test_tasks_that_fail_at_once_are_no_gain() -> None:
    scenario = SlotScenario("failing", AT_30, lambda _: 30, failing=lambda t: 0.98 if 300 < t < 320 else 0.0)
    outcome = run_slots(scenario, Ours(scenario), seed=9)
    assert max(slots for at, slots in zip(outcome.at, outcome.slots, strict=True) if 300 < at < 340) <= 60
    assert _part_of_best(scenario, outcome) >= 0.85


def test_the_same_seed_is_the_same_hour() -> None:
    scenario = SATURATED[0]
    first, second = (run_slots(scenario, Ours(scenario), seed=7) for _ in range(2))
    assert (first.slots, first.work) == (second.slots, second.work)


def test_the_plant_is_best_where_it_says() -> None:
    for scenario in SATURATED:
        if scenario.name == "sleeping":
            continue
        best = int(scenario.best(0.0))
        done = {n: n / scenario.pace(n, 0.0) for n in range(1, scenario.most + 1)}
        assert done[best] >= (1 - 1e-3) * max(done.values())
        assert math.isfinite(done[best])
