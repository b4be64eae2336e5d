"""How many executors are of use on a machine; each constant at both of its sides."""

import pytest

from reproq_supervisor.core.policy.capacity import Machine, share_of, useful_size

MIB = 1024 * 1024


def test_who_computes_has_use_for_as_many_as_there_are_processors() -> None:
    assert useful_size(Machine(4.0), 1, asked=1.0) == 4
    assert useful_size(Machine(4.0), 1, asked=0.5) == 8
    assert useful_size(Machine(1.5), 1, asked=1.0) == 2
    assert useful_size(Machine(4.0), 1, asked=None) == 4, "until it is known, a task is taken to compute"
    assert useful_size(Machine(4.0), 1, asked=0.25, slots=4) == 4


@pytest.mark.parametrize(("asked", "useful"), [(0.97, 2), (0.81, 2), (0.79, 3), (0.58, 3), (0.5, 4)])
def test_the_last_one_has_half_of_what_it_asks_for_at_least(asked: float, useful: int) -> None:
    assert useful_size(Machine(2.0), 1, asked=asked) == useful
    assert useful_size(Machine(0.2), 0, asked=asked) == 1, "whatever there is, one is of use"


def test_who_asks_for_less_than_a_twentieth_of_a_processor_sleeps() -> None:
    assert share_of(0.049, 1) == 0.0
    assert share_of(0.051, 1) == 0.051
    assert useful_size(Machine(1.0), 1, asked=0.049) is None
    assert useful_size(Machine(1.0), 1, asked=0.051) == 20


def test_where_somebody_waits_two_fifths_of_the_time_for_a_processor_nobody_who_computes_grows() -> None:
    assert useful_size(Machine(4.0, crowded=0.39), 2, asked=1.0) == 4
    assert useful_size(Machine(4.0, crowded=0.41), 2, asked=1.0) == 2
    assert useful_size(Machine(4.0, crowded=0.41), 2, asked=0.49) == 8, "mostly it waits for something else"
    assert useful_size(Machine(4.0, crowded=1.0), 2, asked=0.0) is None


def test_where_everybody_waits_for_memory_a_hundredth_of_the_time_nobody_grows() -> None:
    assert useful_size(Machine(4.0, memory_stalled=0.009), 3, asked=0.0) is None
    assert useful_size(Machine(4.0, memory_stalled=0.011), 3, asked=0.0) == 3


def test_who_sleeps_has_use_for_as_many_as_memory_is_left_for() -> None:
    machine = Machine(1.0, memory_left_bytes=100 * MIB)
    assert useful_size(machine, 2, asked=0.0, executor_bytes=30 * MIB) == 5
    assert useful_size(Machine(1.0, memory_left_bytes=-MIB), 2, asked=0.0, executor_bytes=30 * MIB) == 2
    assert useful_size(machine, 2, asked=0.0) is None
