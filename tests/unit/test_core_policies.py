"""Silence, hand-out, retry, lease and turns: the numbers at their edges."""

import math

import pytest

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.policy.handout import MOST_AHEAD, MOST_AHEAD_BYTES, Room, ServiceTimes, hold_target, most_before_low
from reproq_supervisor.core.policy.liveness import Spare, judge_silence, slept_too_long_s
from reproq_supervisor.core.policy.retry import RetryPolicy

MIB = 1024 * 1024


# -- silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late_s", "overslept_s"), [(-5.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.5, 1.5), (3600.0, 3600.0)])
def test_a_loop_overslept_when_it_was_more_than_a_second_late(late_s: float, overslept_s: float) -> None:
    assert slept_too_long_s(100.0 + late_s, 100.0) == overslept_s


def test_a_loop_that_nobody_woke_never_overslept() -> None:
    assert slept_too_long_s(100.0, math.inf) == 0.0


@pytest.mark.parametrize(("silent", "watched"), [(3, 9), (3, 3), (4, 13), (10, 10)])
def test_many_silent_at_once_are_spared_for_one_window(silent: int, watched: int) -> None:
    assert judge_silence(silent, watched, 6.0, 100.0, spared_before=False) == Spare(106.0)
    assert judge_silence(silent, watched, 6.0, 100.0, spared_before=True) is None


@pytest.mark.parametrize(("silent", "watched"), [(1, 1), (2, 2), (1, 100), (3, 10), (3, 100), (30, 100)])
def test_few_silent_are_believed(silent: int, watched: int) -> None:
    assert judge_silence(silent, watched, 6.0, 100.0, spared_before=False) is None


# -- hand-out ---------------------------------------------------------------------------------------------------------


def test_a_task_never_seen_is_taken_for_a_long_one() -> None:
    assert ServiceTimes().expected_s("new") == 1.0


def test_an_estimate_rises_fast_and_falls_slowly() -> None:
    times = ServiceTimes()
    times.observe("task", 1.0)
    assert times.expected_s("task") == 1.0
    times.observe("task", 2.0)
    assert times.expected_s("task") == pytest.approx(1.3)
    times.observe("task", 0.3)
    assert times.expected_s("task") == pytest.approx(1.25)


def test_estimates_of_endless_paths_do_not_fill_the_memory() -> None:
    times = ServiceTimes(most_paths=3)
    for number in range(3):
        times.observe(f"task{number}", 0.1)
    assert [times.expected_s(f"task{number}") for number in range(3)] == [0.1] * 3
    times.observe("task3", 0.1)
    assert [times.expected_s(f"task{number}") for number in range(4)] == [1.0, 1.0, 1.0, 0.1]


def test_a_thousand_paths_are_remembered() -> None:
    times = ServiceTimes()
    for number in range(1000):
        times.observe(f"task{number}", 0.1)
    assert times.expected_s("task0") == 0.1
    times.observe("task1000", 0.1)
    assert times.expected_s("task0") == 1.0


@pytest.mark.parametrize(
    ("service_s", "each"),
    [(10.0, 1), (0.25, 1), (0.249, 2), (0.05, 2), (0.025, 3), (0.01, 6), (0.001, 51), (0.0001, 501), (0.0, 512)],
)
def test_the_shorter_the_tasks_the_more_are_held_for_each_executor(service_s: float, each: int) -> None:
    assert hold_target(4, service_s) == 4 * each


def test_payloads_held_ahead_are_bounded_by_memory_but_every_executor_has_one() -> None:
    assert hold_target(4, 0.001, MIB) == 64
    assert hold_target(40, 0.001, MIB / 16) == 1024
    assert hold_target(1, 0.001, MIB) == 51
    assert hold_target(4, 0.001, 100 * MIB) == 4


def test_what_is_in_hand_lasts_five_milliseconds_at_most() -> None:
    room = Room()
    room.take(0.003, 10)
    assert room.fits(0.002, 10)
    assert not room.fits(0.0021, 10)


def test_a_long_task_is_handed_out_alone() -> None:
    room = Room()
    assert room.fits(3600.0, 10 * MIB)
    room.take(3600.0, 10)
    assert not room.fits(0.0, 0)


def test_a_limited_number_of_tasks_is_in_hand() -> None:
    assert MOST_AHEAD == 256
    room = Room()
    for _ in range(256):
        assert room.fits(0.0, 0)
        room.take(0.0, 0)
    assert not room.fits(0.0, 0)


def test_payloads_in_hand_are_bounded_past_the_first() -> None:
    assert MOST_AHEAD_BYTES == 256 * 1024
    room = Room()
    room.take(0.0, 200 * 1024)
    assert room.fits(0.0, 56 * 1024)
    assert not room.fits(0.0, 56 * 1024 + 1)


def test_more_is_handed_out_when_less_than_half_of_what_fits_is_in_hand() -> None:
    assert Room().is_low
    few, long, many = Room(), Room(), Room()
    few.take(0.0024, 0)
    long.take(0.0025, 0)
    assert (few.is_low, long.is_low) == (True, False)
    for _ in range(127):
        many.take(0.0, 0)
    assert many.is_low
    many.take(0.0, 0)
    assert not many.is_low


@pytest.mark.parametrize(("slots", "most_ahead"), [(1, 256), (1, 1), (4, 256), (300, 256), (8, 1)])
def test_who_has_so_many_in_hand_is_not_low_on_them_whatever_they_are(slots: int, most_ahead: int) -> None:
    room = Room(slots, most_ahead)
    for count in range(slots + most_ahead):
        assert room.is_low == (count < most_before_low(slots, most_ahead)), count
        room.take(0.0, 0)


# -- retry ------------------------------------------------------------------------------------------------------------


def test_delays_double_from_half_a_minute_to_an_hour() -> None:
    delays = [RetryPolicy().delay_s(attempt, 0.5) for attempt in range(1, 10)]
    assert delays == [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]


def test_a_delay_is_spread_by_ten_percent_to_both_sides() -> None:
    assert [RetryPolicy().delay_s(1, draw) for draw in (0.0, 0.5, 1.0)] == pytest.approx([27.0, 30.0, 33.0])


def test_a_thousandth_attempt_still_has_a_delay() -> None:
    assert RetryPolicy(cap_s=1e30).delay_s(10_000, 0.5) == 30.0 * 2.0**64


# -- turns ------------------------------------------------------------------------------------------------------------


def test_claims_of_one_take_turns_by_weight() -> None:
    turns = Turns({"much": 3, "little": 1})
    first = []
    for _ in range(8):
        plan = turns.take(1)
        first += [name for name, share in plan if share]
        turns.settle(plan, dict(plan))
    assert (first.count("much"), first.count("little")) == (6, 2)
    assert "little" in first[:4]


def test_the_line_begins_with_whom_the_largest_part_of_a_turn_is_owed() -> None:
    turns = Turns({"a": 1, "b": 2, "c": 3})
    plan = turns.take(1)
    assert plan == [("c", 1), ("b", 0), ("a", 0)]
    turns.settle(plan, dict(plan))
    assert turns.take(1) == [("b", 1), ("a", 0), ("c", 0)]


def test_equals_stand_in_line_by_name() -> None:
    assert Turns({"b": 1, "a": 1}).take(1) == [("a", 1), ("b", 0)]


def test_one_claim_is_divided_by_weight() -> None:
    assert dict(Turns({"a": 3, "b": 1}).take(8)) == {"a": 6, "b": 2}


def test_queues_without_weight_have_no_turns() -> None:
    assert Turns({}).take(5) == []
    assert Turns({"a": 0}).take(5) == []


def test_a_change_of_weights_keeps_what_is_owed_within_one_turn() -> None:
    turns = Turns({"a": 1, "b": 1})
    turns.settle(turns.take(1), {"a": 1})
    turns.weights = {"a": 1, "b": 1, "c": 2}
    assert sum(share for _, share in turns.take(4)) == 4
