"""The simulated hours in which our rule for the number of executors is held against those of others, and what each rule makes of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from reproq_supervisor.core.policy.sizing import Load, SizeLimits, SizeState, SizeTuning, decide_size, start_size
from tests.sim.plant import Controller, Outcome, Scenario, run
from tests.sim.rivals import CeleryLike, UwsgiLike

SEEDS = (1, 2)
EQUAL = "uWSGI-like, at our cost"
"""With no more executors at most than our rule has on average."""


class Ours:
    def __init__(self, scenario: Scenario) -> None:
        self._limits = SizeLimits(scenario.least, scenario.most)
        self._state: SizeState | None = None

    def __call__(self, now: float, load: Load, size: int) -> int:
        state = self._state or start_size(self._limits, load, now)
        self._state, decision = decide_size(SizeTuning(), self._limits, state, load, now)
        return decision.size


def _square(t: float) -> float:
    return 12.0 if int(t // 60) % 2 else 2.0


SCENARIOS = [
    Scenario("step", lambda t: 2.0 if t < 600 else 12.0),
    Scenario("bursts", lambda t: 14.0 if t % 300 < 30 else 0.2),
    Scenario("stationary", lambda _: 8.0),
    Scenario("square wave", _square),
    Scenario("day", lambda t: 6.0 - 5.0 * math.cos(2 * math.pi * t / 2400)),
    Scenario("long tail", lambda _: 4.0, sigma=2.0),
    Scenario("three times as slow", lambda _: 4.0, service_s=lambda t: 1.0 if t < 1200 else 3.0),
    Scenario("slow boot", lambda t: 2.0 if t < 600 else 12.0, boot_s=8.0),
    Scenario("boot of a minute", lambda t: 2.0 if t < 600 else 12.0, boot_s=60.0),
    Scenario("every other look lost", lambda t: 2.0 if t < 600 else 12.0, seen=lambda t: int(t) % 2 == 0),
    Scenario("all at its most", lambda _: 30.0, seconds=600.0),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True)
class Made:
    """What a rule made of a scenario, on average over the seeds.

    Attributes:
      p95_s: seconds that one in twenty tasks waited, or longer.
      average: executors on average: what it costs.
    """

    p95_s: float
    starts: float
    reversals: float
    average: float


@cache
def made(scenario_name: str, rule: str) -> Made:
    """Return what *rule* makes of a scenario."""
    scenario = BY_NAME[scenario_name]
    return mean_of([run(scenario, RULES[rule](scenario), seed=seed) for seed in SEEDS])


def mean_of(outcomes: list[Outcome]) -> Made:
    """Return the averages of runs with different seeds."""

    def mean(what: Callable[[Outcome], float]) -> float:
        return math.fsum(map(what, outcomes)) / len(outcomes)

    return Made(mean(lambda o: o.p95_s), mean(lambda o: o.starts), mean(lambda o: o.reversals), mean(lambda o: o.average))


def at_our_cost(scenario: Scenario) -> int:
    """Return how many executors our rule has on average, rounded up."""
    return math.ceil(made(scenario.name, "this").average)


RULES: dict[str, Callable[[Scenario], Controller]] = {
    "this": Ours,
    "Celery-like": lambda scenario: CeleryLike(scenario.least, scenario.most),
    "uWSGI-like": lambda scenario: UwsgiLike(scenario.least, scenario.most),
    EQUAL: lambda scenario: UwsgiLike(scenario.least, at_our_cost(scenario)),
}
