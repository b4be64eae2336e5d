"""The rule for the slots of an executor, case by case."""

from dataclasses import fields, replace

import pytest

from reproq_supervisor.core.policy.slots import (
    SlotDecision,
    SlotLimits,
    SlotLoad,
    SlotReason,
    SlotState,
    SlotTuning,
    Window,
    compare,
    decide_slots,
    start_slots,
)
from tests.support.golden import assert_golden, changes

LIMITS = SlotLimits(1, 100)
TUNING = SlotTuning()


class Pool:
    """A controller with its state, a clock and what was done so far."""

    def __init__(self, limits: SlotLimits = LIMITS, tuning: SlotTuning = TUNING, slots: int | None = None) -> None:
        self.limits, self.tuning, self.now = limits, tuning, 0.0
        self.done: dict[str, tuple[int, float]] = {}
        self.ended = self.troubles = 0
        self.executors = 1
        self.state: SlotState = start_slots(limits, self._load(full=True, chokes=False), 0.0, slots)

    def look(self, ends: int = 0, *, seconds: float = 0.1, task: str = "task", full: bool = True, troubles: int = 0, chokes: bool = False,
             after_s: float = 0.25) -> SlotDecision:  # fmt: skip
        self.now += after_s
        count, took = self.done.get(task, (0, 0.0))
        self.done[task] = (count + ends, took + ends * seconds)
        self.ended += ends + troubles
        self.troubles += troubles
        self.state, decision = decide_slots(self.tuning, self.limits, self.state, self._load(full=full, chokes=chokes), self.now)
        return decision

    def window(self, per_s: float, **more: object) -> SlotDecision:
        """Look until a window is over, *per_s* runs ending a second."""
        before, halved_mono = self.state.before, self.state.halved_mono
        for _ in range(10_000):
            decision = self.look(round(per_s / 4), **more)  # type: ignore[arg-type]
            if self.state.before is not before or self.state.halved_mono != halved_mono:
                return decision
        raise AssertionError("no window ends")

    def _load(self, *, full: bool, chokes: bool) -> SlotLoad:
        return SlotLoad(self.executors, full, dict(self.done), self.ended, self.troubles, chokes)


def test_it_begins_with_the_least_or_what_was_right_before() -> None:
    assert Pool().state.slots == 1
    assert Pool(slots=40).state.slots == 40
    assert Pool(slots=400).state.slots == 100


def test_as_long_as_each_step_brings_much_it_doubles() -> None:
    pool = Pool()
    found = [pool.window(100.0 * pool.state.slots).slots for _ in range(8)]
    assert found == [2, 4, 8, 16, 32, 64, 100, 100]


def test_a_step_that_brings_more_is_followed_by_one_in_its_direction() -> None:
    pool = Pool(slots=50)
    pool.state = replace(pool.state, doubles=False)
    assert pool.window(1000).reason is SlotReason.TRIED
    decision = pool.window(1100)
    assert (decision.slots, decision.reason) == (72, SlotReason.GAIN)
    assert decision.gained == pytest.approx(0.1, abs=0.02)


def test_a_step_that_brings_less_is_taken_back() -> None:
    pool = Pool(slots=50)
    pool.state = replace(pool.state, doubles=False)
    pool.window(1000)
    decision = pool.window(800)
    assert (decision.slots, decision.reason) == (48, SlotReason.LOSS)


def test_where_a_step_makes_no_difference_fewer_do() -> None:
    pool = Pool(slots=50)
    pool.state = replace(pool.state, doubles=False)
    pool.window(1000)
    decision = pool.window(1000)
    assert (decision.slots, decision.reason) == (48, SlotReason.NO_GAIN)
    assert pool.window(1000).slots == 39


def test_longer_tasks_are_no_loss_and_shorter_ones_no_gain() -> None:
    before = Window(10, 1, 10.0, {"short": (1000, 10.0), "long": (10, 10.0)})
    after = Window(12, 1, 10.0, {"short": (100, 1.0), "long": (19, 19.0)})
    assert compare(before, after) == pytest.approx(1.0)


def test_more_executors_are_no_gain_of_one() -> None:
    pool = Pool(slots=50)
    pool.window(1000)
    pool.executors = 2
    pool.look(250)
    assert pool.state.before is None
    assert compare(Window(5, 1, 1.0, {"a": (10, 1.0)}), Window(5, 2, 1.0, {"a": (20, 2.0)})) == pytest.approx(1.0)


def test_nothing_to_compare_is_no_difference() -> None:
    assert compare(Window(5, 1, 1.0, {}), Window(6, 1, 1.0, {})) == 1.0
    assert compare(Window(5, 1, 1.0, {}), Window(6, 1, 1.0, {"a": (1, 1.0)})) == float("inf")


def test_where_slots_stand_empty_nothing_changes() -> None:
    pool = Pool(slots=10)
    for _ in range(100):
        decision = pool.look(100, full=False)
    assert (decision.slots, decision.reason) == (10, SlotReason.UNUSED)


def test_a_loop_that_does_not_get_round_to_its_work_has_half_at_once_but_not_again_at_once() -> None:
    pool = Pool(slots=80)
    assert (pool.look(chokes=True).slots, pool.state.reason) == (40, SlotReason.TROUBLE)
    assert pool.look(chokes=True).slots == 40
    assert pool.look(chokes=True, after_s=TUNING.cool_s).slots == 20


def test_runs_out_of_time_halve_it_when_they_are_many() -> None:
    pool = Pool(slots=80)
    assert pool.window(1000, troubles=1).slots == 100
    pool = Pool(slots=80)
    decision = pool.window(200, troubles=20)
    assert (decision.slots, decision.reason) == (40, SlotReason.TROUBLE)


def test_it_is_halved_to_the_least_and_no_further() -> None:
    pool = Pool(SlotLimits(3, 100), slots=4)
    assert pool.look(chokes=True).slots == 3


def test_at_a_limit_it_looks_to_the_other_side_from_time_to_time() -> None:
    pool = Pool(slots=100)
    found = [pool.window(1000).slots for _ in range(TUNING.rest_windows + 1)]
    assert found == [100] * TUNING.rest_windows + [80]


def test_new_limits_count_at_once() -> None:
    pool = Pool(slots=50)
    pool.limits = SlotLimits(1, 20)
    decision = pool.look()
    assert (decision.slots, decision.reason) == (20, SlotReason.LIMIT)


def test_a_count_that_begins_anew_is_no_window() -> None:
    pool = Pool(slots=50)
    pool.window(1000)
    pool.done, pool.ended = {}, 0
    pool.look(10)
    assert pool.state.before is None


def story(tuning: SlotTuning) -> list[tuple[float, str]]:
    """Full and empty times, gains, losses and troubles that touch every constant."""
    pool = Pool(SlotLimits(1, 60), tuning)
    found = []

    def live(seconds: float, per_s: float, *, best: float = 1e9, took: float = 0.2, task: str = "a", **more: object) -> None:
        end = pool.now + seconds
        number = 0
        while pool.now < end:
            number += 1
            # Up to `best` each slot brings its part, beyond it a tenth of that is lost again.
            useful = min(pool.state.slots, best) - 0.1 * max(0.0, pool.state.slots - best)
            full = not (more.get("flickers") and number % 4 == 0)
            troubles = round(float(str(more.get("bad", 0))) * useful * per_s / 4)
            chokes = bool(more.get("chokes")) and number % 7 == 0
            decision = pool.look(round(useful * per_s / 4), seconds=took, task=task, full=full, troubles=troubles, chokes=chokes)
            found.append((pool.now, f"{decision.slots} {decision.reason.value}"))

    live(12, 10, best=10.5)
    pool = Pool(SlotLimits(1, 60), tuning)
    live(12, 10, best=11.6)
    live(30, 10)
    live(40, 10, best=30)
    live(20, 4.8, best=37.5)
    live(30, 10, best=12.2)
    live(20, 10, flickers=True)
    live(30, 10, best=25, task="b", took=0.05)
    live(20, 0.4, best=25, task="c", took=20.0)
    live(80, 0.9, best=25, task="c", took=40.0)
    live(40, 20, best=33)
    live(10, 20, bad=0.14)
    live(10, 20, bad=0.08)
    live(12, 20, chokes=True)
    live(60, 40, best=1000)
    live(60, 10.2, best=1.6)
    return found


def test_the_story_goes_as_it_did() -> None:
    assert_golden("slots", changes(story(TUNING)))


@pytest.mark.parametrize("name", [field.name for field in fields(SlotTuning)])
def test_every_constant_counts(name: str) -> None:
    value = getattr(TUNING, name)
    usual = story(TUNING)
    for changed in (value * 1.6, value / 1.6) if isinstance(value, float) else (int(value * 1.6), int(value / 1.6)):
        assert story(replace(TUNING, **{name: changed})) != usual, changed
