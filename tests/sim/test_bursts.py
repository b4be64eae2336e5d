"""Bursts of which nobody knows at first whether they compute, on two processors: those that do get two executors, those that sleep all."""

from itertools import pairwise

import pytest

from reproq_supervisor.core.policy.sizing import SizeReason
from tests.sim.processors import MOST, STEP_S, Pool, Work, together

COMPUTES, SLEEPS = 1.0, 0.01
AT = 10.0
SEEDS = pytest.mark.parametrize("seed", range(3))


def burst(part: float, alone_s: float = 0.05, at: float = AT) -> Work:
    return Work(part, alone_s, at, many=int(100 / alone_s))


def steady(part: float, alone_s: float = 0.05, rate: float = 1.0) -> Work:
    return Work(part, alone_s, rate=rate)


def turns(sizes: list[int]) -> int:
    """Return how often growing turned into shrinking or back."""
    changes = [b > a for a, b in pairwise(sizes) if a != b]
    return sum(a != b for a, b in pairwise(changes))


def at(seconds: float) -> int:
    return int(seconds / STEP_S)


BEFORE = {
    "nothing": [],
    "a few that compute": [steady(COMPUTES)],
    "many that compute": [steady(COMPUTES, rate=15.0)],
    "a few that sleep": [steady(SLEEPS, 0.2)],
    "many that sleep": [steady(SLEEPS, 0.2, rate=8.0)],
}
"""What runs until the burst, and beside it."""


@SEEDS
@pytest.mark.parametrize("alone_s", [0.01, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("before", list(BEFORE))
def test_a_burst_that_computes_gets_no_more_than_the_processors_can_serve(before: str, alone_s: float, seed: int) -> None:
    pool = Pool([*BEFORE[before], burst(COMPUTES, alone_s)])
    sizes = together(2, [pool], seconds=AT + 10, seed=seed)
    # Those that sleep hold some of the executors that there are.
    assert max(sizes) <= (4 if "sleep" in before else 2)
    assert SizeReason.SATURATED in pool.reasons
    assert turns(sizes) == 0


@SEEDS
@pytest.mark.parametrize("alone_s", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("before", list(BEFORE))
def test_a_burst_that_sleeps_has_all_within_a_second(before: str, alone_s: float, seed: int) -> None:
    pool = Pool([*BEFORE[before], burst(SLEEPS, alone_s)])
    sizes = together(2, [pool], seconds=AT + 3, seed=seed)
    assert sizes[at(AT + 1)] == MOST
    assert turns(sizes) == 0


@SEEDS
@pytest.mark.parametrize(("part", "size"), [(0.25, 8), (0.5, 4), (0.8, 3)])
def test_a_burst_that_computes_in_part_gets_as_many_as_the_processors_can_serve(part: float, size: int, seed: int) -> None:
    sizes = together(2, [Pool([burst(part)])], seconds=AT + 10, seed=seed)
    assert sizes[at(AT + 1)] == sizes[-1] == size
    assert turns(sizes) == 0


@SEEDS
@pytest.mark.parametrize("before", ["nothing", "a few that compute"])
@pytest.mark.parametrize("pools", [2, 3])
def test_bursts_that_compute_come_to_several_pools_and_take_no_processor_twice(pools: int, before: str, seed: int) -> None:
    """Each has its least in any case; the rest is given once."""
    all_sizes = together(4, [Pool([*BEFORE[before], burst(COMPUTES)]) for _ in range(pools)], seconds=AT + 10, seed=seed)
    assert max(all_sizes) == 4
    assert turns(all_sizes) == 0


@SEEDS
def test_a_burst_that_sleeps_beside_one_that_computes_has_all_within_a_second(seed: int) -> None:
    computes, sleeps = Pool([burst(COMPUTES)]), Pool([burst(SLEEPS)])
    together(2, [computes, sleeps], seconds=AT + 3, seed=seed)
    assert sleeps.sizes[at(AT + 1)] == MOST
    assert max(computes.sizes) <= 2


def test_a_heap_that_grows_as_it_sleeps_is_followed(seed: int = 1) -> None:
    """Each step asks for more than the one before: what was seen of it is trusted while the rest is looked at."""
    steps = [Work(SLEEPS, 0.2, AT + i * 0.5, many=int(10 * 1.6**i)) for i in range(6)]
    pool = Pool([*BEFORE["many that sleep"], *steps])
    together(2, [pool], seconds=AT + 6, seed=seed)
    assert pool.sizes[at(AT + 3)] == MOST
