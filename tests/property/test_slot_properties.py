"""The rule for slots, over all that can be seen: never outside its limits, the same on another clock and for the same look again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.slots import (
    SlotDecision,
    SlotLimits,
    SlotLoad,
    SlotState,
    SlotTuning,
    Window,
    compare,
    decide_slots,
    start_slots,
)

TUNING = SlotTuning()
limits_of = st.builds(lambda least, more: SlotLimits(least, least + more), st.integers(1, 20), st.integers(0, 200))
counts = st.integers(0, 2000)
looks = st.tuples(
    st.floats(0, 60), st.integers(0, 3), st.booleans(), st.dictionaries(st.sampled_from("abc"), counts), counts, counts, st.booleans()
)
"""Seconds since the last one, executors, full, runs done by task, others that ended, troubles of them, choking."""


def told(
    limits: SlotLimits, seen: list[tuple], *, scale: float = 1.0, tuning: SlotTuning = TUNING
) -> tuple[SlotState, list[SlotDecision], list[SlotLoad], float]:
    """Let a pool live through looks, its clock and its tasks *scale* times as slow."""
    load, now = SlotLoad(1, False, {}, 0), 0.0
    state = start_slots(limits, load, now)
    decisions, loads = [], []
    for after_s, executors, full, done, others, troubles, chokes in seen:
        now += after_s * scale
        totals = dict(load.done)
        for task, count in done.items():
            before, seconds = totals.get(task, (0, 0.0))
            totals[task] = (before + count, seconds + count * scale * (0.125 if task == "a" else 2.0))
        ended = load.ended_total + sum(done.values()) + others
        load = SlotLoad(executors, full, totals, ended, load.troubles_total + min(troubles, others), chokes)
        state, decision = decide_slots(tuning, limits, state, load, now)
        decisions.append(decision)
        loads.append(load)
    return state, decisions, loads, now


@given(limits_of, st.lists(looks, max_size=30))
def test_nothing_brings_it_outside_its_limits(limits: SlotLimits, seen: list) -> None:
    _, decisions, _, _ = told(limits, seen)
    assert all(limits.least <= decision.slots <= limits.most for decision in decisions)


@given(limits_of, st.lists(looks, min_size=1, max_size=20))
def test_the_same_look_again_changes_nothing(limits: SlotLimits, seen: list) -> None:
    state, decisions, loads, now = told(limits, seen)
    again, decision = decide_slots(TUNING, limits, state, loads[-1], now)
    assert decision.slots == decisions[-1].slots
    assert again == state


@given(limits_of, st.lists(looks, min_size=1, max_size=20), st.floats(-1e6, 0))
def test_a_clock_that_goes_back_counts_as_no_time(limits: SlotLimits, seen: list, back: float) -> None:
    state, decisions, loads, _ = told(limits, seen)
    _, decision = decide_slots(TUNING, limits, state, loads[-1], back)
    assert decision.slots == decisions[-1].slots


@given(limits_of, st.lists(looks, max_size=30), st.sampled_from([0.25, 0.5, 2.0, 4.0, 1024.0]))
def test_a_world_that_is_slower_in_everything_goes_the_same_way(limits: SlotLimits, seen: list, scale: float) -> None:
    slow = replace(TUNING, **{name: getattr(TUNING, name) * scale for name in ("window_s", "cool_s", "settle_most_s")})
    _, decisions, _, _ = told(limits, seen)
    _, slower, _, _ = told(limits, seen, scale=scale, tuning=slow)
    assert [decision.slots for decision in slower] == [decision.slots for decision in decisions]


@given(limits_of, st.lists(looks, min_size=1, max_size=20))
def test_trouble_never_brings_more(limits: SlotLimits, seen: list) -> None:
    state, _, loads, now = told(limits, seen)
    _, decision = decide_slots(TUNING, limits, state, replace(loads[-1], chokes=True), now + TUNING.cool_s)
    assert decision.slots == max(limits.least, state.slots // 2)


done_of = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 10_000), st.floats(1e-3, 1e5)), min_size=1)


@given(done_of, done_of, st.floats(0.1, 100), st.floats(0.1, 100))
def test_to_compare_the_other_way_round_is_the_inverse(first: dict, second: dict, one_s: float, other_s: float) -> None:
    one, other = Window(3, 1, one_s, first), Window(4, 1, other_s, second)
    assert abs(compare(one, other) * compare(other, one) - 1.0) < 1e-6


@given(done_of, st.integers(2, 9))
def test_twice_as_many_of_each_are_twice_as_much_however_long_each_takes(done: dict, times: int) -> None:
    one = Window(3, 1, 10.0, done)
    more = Window(4, 1, 10.0, {task: (count * times, seconds * 7) for task, (count, seconds) in done.items()})
    assert abs(compare(one, more) - times) < 1e-6 * times
