"""How much a shard holds, and how much of it an executor gets ahead of time."""

from reproq_supervisor.core.policy.handout import (
    AHEAD_S,
    FEW_WAIT_S,
    FEW_WAITING,
    LONGEST_WAIT_S,
    MOST_AHEAD,
    MOST_AHEAD_BYTES,
    MOST_HELD,
    MOST_HELD_AT_ALL,
    MOST_HELD_BYTES,
    UNKNOWN_S,
    Patience,
    Room,
    ServiceTimes,
    hold_target,
)


def filled(*tasks: tuple[float, int]) -> Room:
    room = Room()
    for seconds, size in tasks:
        room.take(seconds, size)
    return room


def test_a_long_task_goes_out_alone() -> None:
    assert filled().fits(3600.0, 10)
    assert not filled((3600.0, 10)).fits(0.0001, 10)


def test_short_tasks_go_out_together_up_to_a_few_milliseconds() -> None:
    room = filled()
    while room.fits(AHEAD_S / 10, 100):
        room.take(AHEAD_S / 10, 100)
    assert not room.is_low
    assert not room.fits(AHEAD_S / 10, 100)
    assert room.fits(0.0, 100)


def test_tasks_of_no_length_go_out_together_up_to_a_number() -> None:
    taken = 0
    room = filled()
    while room.fits(0.0, 0):
        room.take(0.0, 0)
        taken += 1
    assert taken == MOST_AHEAD


def test_a_large_payload_goes_out_alone() -> None:
    assert filled().fits(0.0, 10 * MOST_AHEAD_BYTES)
    assert not filled((0.0, 1)).fits(0.0, MOST_AHEAD_BYTES)


def test_an_executor_with_half_of_what_fits_is_left_alone() -> None:
    assert filled().is_low
    assert filled((AHEAD_S / 10, 1)).is_low
    assert not filled((AHEAD_S / 2, 1)).is_low


def test_a_shard_holds_what_keeps_its_executors_busy_for_a_few_cycles() -> None:
    assert hold_target(4, 60.0) == 4
    assert hold_target(4, 0.25) == 4
    assert hold_target(4, 0.05) == 8
    assert hold_target(4, 0.0) == 4 * MOST_HELD
    assert hold_target(0, 0.0) == 0


def test_a_shard_holds_fewer_large_payloads_but_one_for_each_executor() -> None:
    assert hold_target(4, 0.0, MOST_HELD_BYTES / 10) == 10
    assert hold_target(4, 0.0, MOST_HELD_BYTES) == 4


def test_many_slots_do_not_make_a_shard_hold_more_than_it_can_hand_out_soon() -> None:
    assert hold_target(200, 0.0001) == MOST_HELD_AT_ALL
    assert hold_target(200, 0.05) == 400
    assert hold_target(3000, 0.05) == 6000


def test_who_let_runs_wait_for_too_long_gives_back_all_but_a_few_and_holds_fewer_for_a_while() -> None:
    patience = Patience()
    assert patience.look(512, 400, 2, LONGEST_WAIT_S) == 0
    assert patience.limit(1024, 2) == 1024
    assert patience.look(512, 400, 2, LONGEST_WAIT_S + 0.1) == 400 - FEW_WAITING
    assert patience.limit(1024, 2) == 128
    assert patience.limit(100, 2) == 100
    assert patience.limit(1024, 100) == 200, "one that waits for each slot, when there are more of them"
    for _ in range(10):
        assert patience.look(FEW_WAITING + 2, FEW_WAITING, 2, LONGEST_WAIT_S + 0.1) == 0
    assert 140 <= patience.limit(1024, 2) <= 142
    for _ in range(100_000):
        patience.look(0, 0, 2, 0.0)
    assert patience.limit(1024, 2) == 1024


def test_one_that_waits_for_each_slot_is_not_too_many_until_it_has_waited_for_long() -> None:
    patience = Patience()
    assert patience.look(500, 300, 200, LONGEST_WAIT_S + 0.1) == 100
    assert patience.look(400, 200, 200, FEW_WAIT_S) == 0
    assert patience.look(400, 200, 200, FEW_WAIT_S + 0.1) == 200
    assert patience.limit(1024, 200) == 400


def test_who_has_no_slot_yet_gives_nothing_back() -> None:
    assert Patience().look(100, 100, 0, 60.0) == 0


def test_a_path_never_seen_counts_as_long() -> None:
    assert ServiceTimes().expected_s("a.b") == UNKNOWN_S


def test_the_first_run_of_a_path_is_believed() -> None:
    times = ServiceTimes()
    times.observe("a.b", 0.001)
    assert times.expected_s("a.b") == 0.001


def test_one_slow_run_is_a_warning_and_trust_returns_slowly() -> None:
    times = ServiceTimes()
    times.observe("a.b", 0.001)
    times.observe("a.b", 1.0)
    after_one = times.expected_s("a.b")
    assert after_one > AHEAD_S
    times.observe("a.b", 0.001)
    assert after_one * 0.9 < times.expected_s("a.b") < after_one


def test_the_memory_of_paths_is_bounded() -> None:
    times = ServiceTimes(most_paths=10)
    for number in range(25):
        times.observe(f"a.{number}", 0.001)
    known = [number for number in range(25) if times.expected_s(f"a.{number}") != UNKNOWN_S]
    assert len(known) <= 10
    assert 24 in known


def test_every_slot_is_filled_with_whatever_there_is() -> None:
    room = Room(3)
    for _ in range(3):
        assert room.is_low
        assert room.fits(3600.0, MOST_AHEAD_BYTES)
        room.take(3600.0, MOST_AHEAD_BYTES)
    assert not room.is_low
    assert not room.fits(0.0001, 1)


def test_a_long_task_takes_one_slot_and_leaves_the_others_to_the_short() -> None:
    room = Room(3)
    room.take(3600.0, 1)
    taken = 0
    while room.fits(AHEAD_S / 5, 1):
        room.take(AHEAD_S / 5, 1)
        taken += 1
    assert taken in (9, 10)


def test_a_long_task_waits_for_a_free_slot_instead_of_behind_short_ones() -> None:
    room = Room(2)
    room.take(0.0001, 1)
    room.take(0.0001, 1)
    assert not room.fits(AHEAD_S * 1.1, 1)
