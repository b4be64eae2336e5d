"""The rule for the number of executors, case by case."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest

from reproq_supervisor.core.policy.sizing import Load, SizeDecision, SizeLimits, SizeReason, SizeState, SizeTuning, decide_size, start_size
from tests.support.golden import assert_golden, changes

LIMITS = SizeLimits(1, 20)
TUNING = SizeTuning()


class Pool:
    """A controller with its state and a clock."""

    def __init__(self, limits: SizeLimits = LIMITS, tuning: SizeTuning = TUNING) -> None:
        self.limits, self.tuning, self.now, self.arrived = limits, tuning, 0.0, 0
        self.state: SizeState = start_size(limits, Load(0, 0, 0, None), 0.0)

    def look(self, waiting: int = 0, running: int = 0, service_s: float | None = 1.0, *, arrived: int = 0, useful: int | None = None,
             unseen: int | None = None, is_seen: bool = True, slots: int = 1, after_s: float = 1.0) -> SizeDecision:  # fmt: skip
        self.now += after_s
        self.arrived += arrived
        load = Load(self.arrived, waiting, running, service_s, slots, useful, unseen, is_seen)
        self.state, decision = decide_size(self.tuning, self.limits, self.state, load, self.now)
        return decision

    def quiet(self, seconds: int) -> list[int]:
        return [self.look().size for _ in range(seconds)]


def test_a_heap_of_work_brings_the_size_that_works_it_off_in_the_target_time_at_once() -> None:
    decision = Pool().look(waiting=101, arrived=101)
    # 100 of 1 s in 10 s, and a little for what may go on arriving.
    assert (decision.size, decision.reason) == (11, SizeReason.BACKLOG)


def test_a_steady_rate_brings_enough_for_it_without_a_backlog() -> None:
    pool = Pool()
    sizes = [pool.look(running=min(8, pool.state.size), arrived=8).size for _ in range(10)]
    # 8 a second of 1 s each, busy 85 % of their time.
    assert sizes[-1] == 10
    assert pool.look(running=8, arrived=8).reason is SizeReason.STEADY


def test_a_heap_that_came_once_is_no_rate() -> None:
    pool = Pool()
    pool.look(waiting=100_000, arrived=100_000)
    assert pool.look().rate_per_s <= 2.0


def test_it_shrinks_only_after_two_quiet_minutes_and_then_slowly() -> None:
    pool = Pool()
    assert pool.look(waiting=201, arrived=201).size == 20
    sizes = pool.quiet(300)
    assert sizes[: 120 - 1] == [20] * 119
    steps = [a - b for a, b in pairwise(sizes) if a != b]
    assert steps == [2, 1, 1, 1]
    assert pool.look().reason is SizeReason.PATIENCE


def test_who_wants_a_little_less_stays_and_says_so() -> None:
    """It would never shrink for that, however long it waits."""
    pool = Pool()
    assert pool.look(waiting=50, arrived=50).size == 5
    for _ in range(600):
        decision = pool.look(waiting=34, running=5)
    assert (decision.size, decision.want, decision.reason) == (5, 4, SizeReason.STEADY)
    assert pool.look().reason is SizeReason.PATIENCE


def test_growing_again_soon_makes_it_wait_longer_the_next_time() -> None:
    pool = Pool()
    pool.look(waiting=201, arrived=201)
    assert pool.quiet(130)[-1] == 18
    assert pool.look(waiting=211).size == 20
    assert pool.state.patience == 2.0
    assert pool.quiet(235) == [20] * 235
    assert pool.quiet(10)[-1] == 18
    pool.quiet(2000)
    assert pool.state.patience == 1.0


def test_it_does_not_grow_beyond_what_is_useful_but_always_has_one() -> None:
    pool = Pool()
    decision = pool.look(waiting=1000, arrived=1000, useful=2)
    assert (decision.size, decision.reason) == (2, SizeReason.SATURATED)
    assert pool.look(waiting=1000, useful=0).size == 2
    assert pool.look(waiting=1000, useful=None).size == 20


def test_a_heap_of_which_nothing_was_seen_brings_as_many_as_there_are_processors_and_no_more() -> None:
    pool = Pool()
    first = pool.look(waiting=1000, arrived=1000, useful=2, unseen=2, is_seen=False)
    assert (first.size, first.reason) == (2, SizeReason.UNSEEN)
    assert pool.look(waiting=1000, running=2, useful=2, unseen=2, is_seen=False, after_s=10.0).size == 2
    computes = pool.look(waiting=1000, running=2, useful=2, unseen=2)
    assert (computes.size, computes.reason) == (2, SizeReason.SATURATED)
    sleeps = pool.look(waiting=1000, running=2, unseen=2)
    assert (sleeps.size, sleeps.reason) == (20, SizeReason.BACKLOG)


def test_what_ran_before_a_heap_says_nothing_of_it() -> None:
    """A pool that sleeps gets a heap to compute: in the next moment what runs is of the heap, and asks for all there is."""
    pool = Pool()
    pool.look(running=1, arrived=1, unseen=2)
    first = pool.look(waiting=1000, running=1, arrived=1000, unseen=2)
    assert (first.size, first.reason, first.use) == (2, SizeReason.UNSEEN, 2)
    assert pool.look(waiting=1000, running=2, unseen=2, after_s=0.9 * TUNING.unseen_s).reason is SizeReason.UNSEEN
    assert pool.look(waiting=1000, running=2, useful=2, unseen=2, after_s=0.11 * TUNING.unseen_s).reason is SizeReason.SATURATED
    # Where the heap sleeps, too, that moment is all it has cost.
    other = Pool()
    other.look(waiting=1000, running=1, arrived=1000, unseen=2)
    assert other.look(waiting=1000, running=2, unseen=2, after_s=1.01 * TUNING.unseen_s).size == 20


def test_a_heap_of_which_nothing_was_seen_dismisses_nobody() -> None:
    pool = Pool()
    pool.look(waiting=61, arrived=61)
    assert pool.look().size == 7
    assert pool.look(waiting=1000, running=1, arrived=1000, unseen=2).size == 7


def test_a_rate_that_rises_without_a_heap_is_of_what_was_seen() -> None:
    pool = Pool()
    decisions = [pool.look(running=min(8, pool.state.size), arrived=8, unseen=2) for _ in range(10)]
    assert decisions[-1].size == 10
    assert {decision.reason for decision in decisions} <= {SizeReason.STEADY, SizeReason.RATE}


def test_a_budget_brings_it_down_and_never_below_the_least() -> None:
    pool = Pool(SizeLimits(2, 20))
    pool.look(waiting=1000, arrived=1000)
    pool.limits = SizeLimits(2, 20, budget=5)
    assert [pool.look(waiting=1000).size for _ in range(4)] == [20, 20, 20, 5]
    assert pool.look(waiting=1000).reason is SizeReason.BUDGET
    pool.limits = SizeLimits(2, 20, budget=0)
    assert pool.look(after_s=0.1).size == 5
    assert pool.look(after_s=TUNING.give_back_after_s).size == 2


def test_a_budget_that_is_lower_for_a_moment_only_dismisses_nobody() -> None:
    pool = Pool()
    pool.look(waiting=1000, arrived=1000)
    for budget in (5, 20, 4, 20, 3, 20):
        pool.limits = SizeLimits(1, 20, budget)
        assert [pool.look(waiting=1000).size for _ in range(2)] == [20, 20]


def test_new_limits_count_at_once() -> None:
    pool = Pool()
    pool.limits = SizeLimits(4, 4)
    assert (pool.look().size, pool.look().size) == (4, 4)
    pool.limits = SizeLimits(0, 2)
    assert pool.look().reason is SizeReason.LIMIT


def test_slots_of_one_executor_count_as_so_many() -> None:
    assert Pool().look(waiting=1000, arrived=1000, slots=10).size == 10


def test_one_is_wanted_for_anything_that_waits() -> None:
    pool = Pool(SizeLimits(0, 5))
    assert pool.look().size == 0
    assert pool.look(waiting=1, arrived=1, service_s=0.0001).size == 1


def test_a_pool_whose_least_is_none_has_none_after_two_quiet_minutes() -> None:
    pool = Pool(SizeLimits(0, 5))
    assert pool.look(waiting=1, arrived=1).size == 1
    sizes = pool.quiet(130)
    assert (sizes[100], sizes[-1]) == (1, 0)


@pytest.mark.parametrize(("use", "want"), [(0.049, 0), (0.051, 1)])
def test_less_use_than_for_a_twentieth_of_an_executor_is_none(use: float, want: int) -> None:
    pool = Pool(SizeLimits(0, 20))
    pool.state = replace(pool.state, rate_per_s=use * TUNING.utilisation)
    assert pool.look(after_s=0.1).want == want


def test_a_count_that_begins_anew_is_no_arrival() -> None:
    pool = Pool()
    pool.arrived = 1000
    pool.look()
    rate = pool.state.rate_per_s
    pool.arrived = 0
    assert pool.look().rate_per_s <= rate


STORY = (
    # arrivals a second, seconds, backlog every fifth second
    (8, 60, 0),
    (9, 60, 0),
    (10, 60, 0),
    (0, 150, 0),
    (9, 40, 37),
    *(((0, 130 * 2**i + 100, 0), (14, 30, 120))[j] for i in range(4) for j in range(2)),
    (3, 300, 0),
    (0, 700, 0),
    (12, 30, 90),
    (1, 900, 0),
)
NOISE = (0, 3, 1, -2, 2, -4, 4, -1, -3)


def _trace(tuning: SizeTuning) -> list[int]:
    """Steps, bursts, pauses and a budget that touch every constant."""
    pool = Pool(tuning=tuning)
    sizes = [pool.look(waiting=28, running=1, service_s=None, arrived=29).size]
    for rate, seconds, backlog in STORY:
        for i in range(seconds):
            arrived = max(0, rate + NOISE[i % len(NOISE)]) if rate else 0
            waiting = backlog if i % 5 == 0 else 0
            sizes.append(pool.look(waiting, min(pool.state.size, rate), arrived=arrived, after_s=0.7).size)
    for after_s in (0.08, 0.08, 0.2):  # heaps of which nothing was seen at the first look
        pool.look(after_s=700.0)
        sizes += [pool.look(waiting, 1, arrived=waiting, unseen=12, after_s=after_s).size for waiting in (0, 170, 170, 170, 170)]
    pool.look(500, 10, arrived=500)
    for budget in (12, 20, 9):
        pool.limits = SizeLimits(1, 20, budget)
        sizes += [pool.look(500, 10, after_s=0.7).size for _ in range(8)]
    return sizes


def test_the_story_goes_as_it_did() -> None:
    assert_golden("size", changes((round(0.7 * i, 1), size) for i, size in enumerate(_trace(TUNING))))


@pytest.mark.parametrize("name", [field.name for field in fields(SizeTuning)])
def test_every_constant_counts(name: str) -> None:
    value = getattr(TUNING, name)
    usual = _trace(TUNING)
    for changed in (value * 1.6, value / 1.6) if isinstance(value, float) else (value + 2, value - 1):
        assert _trace(replace(TUNING, **{name: changed})) != usual, changed
