"""The rules for sizes, over all loads: never outside their limits, never fewer for more work, the same on another clock."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.capacity import Machine, useful_size
from reproq_supervisor.core.policy.sizing import Load, SizeDecision, SizeLimits, SizeReason, SizeState, SizeTuning, decide_size, start_size

TUNING = SizeTuning()
counts = st.integers(0, 5000)
services = st.none() | st.floats(1e-4, 1e4)
useful_sizes = st.none() | st.integers(0, 60)
looks = st.tuples(st.floats(0, 300), counts, counts, st.integers(0, 50), services, useful_sizes, useful_sizes, st.booleans())
"""Seconds since the last one, arrived, waiting, running, service time, useful size, the same if all computed, whether any was seen."""
Look = tuple[float, int, int, int, float | None, int | None, int | None, bool]
limits_of = st.builds(
    lambda least, more, budget: SizeLimits(least, least + more, budget),
    st.integers(0, 10),
    st.integers(0, 40),
    st.none() | st.integers(0, 60),
)


def story(
    limits: SizeLimits,
    told: list[Look],
    *,
    scale: float = 1.0,
    tuning: SizeTuning = TUNING,
) -> tuple[SizeState, list[SizeDecision]]:
    """Let a pool live through looks, its clock and its tasks *scale* times as slow."""
    state, now, arrived = start_size(limits, Load(0, 0, 0, None), 0.0), 0.0, 0
    decisions = []
    for after_s, new, waiting, running, service_s, *useful in told:
        now, arrived = now + after_s * scale, arrived + new
        load = Load(arrived, waiting, running, None if service_s is None else service_s * scale, 1, *useful)
        state, decision = decide_size(tuning, limits, state, load, now)
        decisions.append(decision)
    return state, decisions


@given(limits_of, st.lists(looks, max_size=30))
def test_no_load_brings_a_size_outside_the_limits(limits: SizeLimits, told: list) -> None:
    _, decisions = story(limits, told)
    assert all(limits.least <= decision.size <= limits.highest for decision in decisions)


@given(limits_of, st.lists(looks, max_size=20), looks, counts, counts)
def test_more_work_never_brings_fewer(limits: SizeLimits, told: list, last: tuple, more_arrived: int, more_waiting: int) -> None:
    after_s, new, waiting, *rest = last
    _, decisions = story(limits, [*told, last])
    _, larger = story(limits, [*told, (after_s, new + more_arrived, waiting + more_waiting, *rest)])
    assert larger[-1].size >= decisions[-1].size


@given(limits_of, st.lists(looks, min_size=1, max_size=20))
def test_the_same_look_again_changes_nothing(limits: SizeLimits, told: list) -> None:
    _, once = story(limits, told)
    _, again = story(limits, [*told, (0.0, 0, *told[-1][2:])])
    assert again[-1].size == once[-1].size


@given(limits_of, st.lists(looks, min_size=1, max_size=20), st.floats(-1e6, 0))
def test_a_clock_that_goes_back_counts_as_no_time(limits: SizeLimits, told: list, back: float) -> None:
    state, decisions = story(limits, told)
    arrived = sum(look[1] for look in told)
    _, _, waiting, running, service_s, *useful = told[-1]
    load = Load(arrived, waiting, running, service_s, 1, *useful)
    after, decision = decide_size(TUNING, limits, state, load, back)
    assert decision.size == decisions[-1].size
    assert after.wants[-1][0] == state.wants[-1][0]


@given(limits_of, st.lists(looks, max_size=30), st.sampled_from([0.25, 0.5, 2.0, 4.0, 1024.0]))
def test_a_world_that_is_slower_in_everything_goes_the_same_way(limits: SizeLimits, told: list, scale: float) -> None:
    slow = replace(
        TUNING,
        **{
            name: getattr(TUNING, name) * scale
            for name in ("drain_target_s", "sample_s", "down_after_s", "down_every_s", "give_back_after_s", "unknown_service_s", "unseen_s")
        },
    )
    _, decisions = story(limits, told)
    _, slower = story(limits, told, scale=scale, tuning=slow)
    assert [d.size for d in slower] == [d.size for d in decisions]


@given(limits_of, st.lists(looks, min_size=1, max_size=30))
def test_nothing_grows_beyond_what_is_of_use_nor_for_a_heap_of_which_nothing_was_seen_beyond_what_that_would_be_if_it_computed(
    limits: SizeLimits, told: list
) -> None:
    _, decisions = story(limits, told)
    before = limits.least
    for (*_, useful, useful_unseen, is_seen), decision in zip(told, decisions, strict=True):
        for bound in (useful, None if is_seen else useful_unseen):
            if bound is not None and decision.size > before:
                assert decision.size <= max(bound, limits.least, 1)
        if decision.reason is SizeReason.UNSEEN:
            assert decision.want > decision.size
        before = decision.size


@given(limits_of, st.lists(looks, max_size=60))
def test_what_is_remembered_stays_small(limits: SizeLimits, told: list) -> None:
    state, _ = story(limits, told)
    assert len(state.wants) <= len(told) + 1
    assert [want for _, want in state.wants] == sorted({want for _, want in state.wants}, reverse=True)
    assert len(state.samples) <= TUNING.confirmed_by


@given(
    st.builds(Machine, st.floats(0.1, 256), st.floats(0, 1), st.floats(0, 1), st.none() | st.integers(0, 2**40)),
    st.integers(0, 100),
    st.none() | st.floats(0, 1),
    st.integers(1, 64),
    st.integers(0, 2**34),
)
def test_a_machine_with_more_of_everything_never_has_less_use(
    machine: Machine, size: int, asked: float | None, slots: int, executor_bytes: int
) -> None:
    useful = useful_size(machine, size, asked=asked, slots=slots, executor_bytes=executor_bytes)
    if useful is None:
        return
    left = machine.memory_left_bytes
    better = Machine(machine.processors * 2, machine.crowded / 2, machine.memory_stalled / 2, None if left is None else left * 2)
    more = useful_size(better, size, asked=asked, slots=slots, executor_bytes=executor_bytes)
    assert more is None or more >= useful
