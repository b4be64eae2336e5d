"""What is believed of how much of a processor the tasks of a pool ask for."""

from collections.abc import Mapping
from itertools import count

import pytest

from reproq_supervisor.pool.asked import Asked


class Processes:
    """What each process has asked for so far, in nanoseconds."""

    def __init__(self) -> None:
        self.ns: dict[int, int] = {}
        self.asked = Asked(lambda pid: self.ns.get(pid, 0))

    def look(self, now: float, running: Mapping[int, float] | None = None) -> float | None:
        return self.asked.by_each(list(self.ns), running or {}, now)


def test_a_process_that_is_always_on_a_processor_asks_for_all_of_one() -> None:
    processes = Processes()
    for quarter in range(9):
        processes.ns = {1: quarter * 250_000_000}
        part = processes.look(quarter / 4, {1: quarter / 4})
    assert part == pytest.approx(1.0)


def test_one_that_sleeps_asks_for_none() -> None:
    processes = Processes()
    processes.ns = {1: 5_000_000}
    for quarter in range(9):
        part = processes.look(quarter / 4, {1: quarter / 4})
    assert part == pytest.approx(0.0, abs=0.01)


def test_nothing_is_believed_before_tasks_were_seen_running() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    assert processes.look(0.0) is None
    assert processes.look(0.2, {1: 0.04}) is None
    assert processes.look(0.3, {1: 0.06}) == 0.0


def test_what_was_asked_for_half_a_second_ago_counts_half() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    processes.look(0.0)
    processes.ns = {1: 1_000_000_000}
    assert processes.look(1.0, {1: 1.0}) == pytest.approx(1.0)
    # Nothing since, while a task ran on: half of one second of one and a half.
    assert processes.look(1.5, {1: 1.5}) == pytest.approx(0.5 / 1.0)


def test_what_was_seen_is_forgotten_when_nothing_has_run_for_long() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    processes.look(0.0)
    assert processes.look(1.0, {1: 1.0}) == 0.0
    assert processes.look(30.0) is None


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_short_tasks_that_come_now_and_then_tell_what_they_ask_for(part: float) -> None:
    """Of a twentieth of a second each, and no look finds more than one in four of them."""
    processes = Processes()
    processes.ns = {1: 0}
    processes.look(0.0)
    believed = []
    for look in range(1, 100):
        running: dict[int, float] = {}
        if look % 4 == 0:  # one each second
            lasted = 0.02 if look % 16 == 0 else 0.05
            processes.ns[1] += int(part * lasted * 1e9)
            if look % 16 == 0:
                running = {look: lasted}
            else:
                processes.asked.note_end(look, lasted)
        elif look % 16 == 1 and look > 1:
            processes.ns[1] += int(part * 0.03 * 1e9)
            processes.asked.note_end(look - 1, 0.05)
        believed.append(processes.look(look / 4, running))
    told = [each for each in believed if each is not None]
    assert len(told) > 20
    assert told == pytest.approx([part] * len(told), abs=0.01)


def test_tasks_that_begin_to_compute_are_noticed_at_once() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    for quarter in range(40):
        assert not processes.look(quarter / 4, {1: quarter / 4})
    processes.ns = {1: 100_000_000}
    assert processes.look(9.85, {1: 9.85}) == pytest.approx(1.0)


def test_processes_that_live_between_two_looks_count_when_they_are_dead() -> None:
    processes, pids = Processes(), count(1)
    processes.look(0.0)
    for quarter in range(1, 9):
        for _ in range(2):  # an eighth of a second each, computing most of the time
            pid = next(pids)
            processes.ns = {pid: 100_000_000}
            processes.asked.note_end(pid, 0.125)
            processes.asked.note_exit(pid)
        processes.ns = {}
        part = processes.look(quarter / 4)
    assert part == pytest.approx(0.8)


def test_a_process_that_is_seen_and_dies_counts_once() -> None:
    processes = Processes()
    processes.look(0.0)
    for quarter in range(1, 9):
        processes.ns = {quarter: 125_000_000}
        part = processes.look(quarter / 4, {quarter: 0.25})
        processes.asked.note_end(quarter, 0.25)
        processes.asked.note_exit(quarter)
    assert part == pytest.approx(0.5)


def test_a_process_that_was_reaped_first_takes_nothing_away() -> None:
    processes = Processes()
    processes.ns = {1: 200_000_000}
    for quarter in range(5):
        processes.look(quarter / 4, {1: quarter / 4})
    processes.ns = {}
    processes.asked.note_exit(1)
    part = processes.look(1.5)
    assert part is not None
    assert part >= 0.0
