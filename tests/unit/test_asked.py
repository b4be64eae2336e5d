"""What is believed of how much of a processor the tasks of a pool ask for."""

import pytest

from reproq_supervisor.pool.asked import Asked


class Processes:
    """What each process has asked for so far, in nanoseconds."""

    def __init__(self) -> None:
        self.ns: dict[int, int] = {}
        self.asked = Asked(lambda pid: self.ns.get(pid, 0))

    def look(self, now: float, running: int = 1) -> float | None:
        return self.asked.by_each(list(self.ns), running, now)


def test_a_process_that_is_always_on_a_processor_asks_for_all_of_one() -> None:
    processes = Processes()
    for quarter in range(9):
        processes.ns = {1: quarter * 250_000_000}
        part = processes.look(quarter / 4)
    assert part == pytest.approx(1.0)


def test_one_that_sleeps_asks_for_none() -> None:
    processes = Processes()
    processes.ns = {1: 5_000_000}
    for quarter in range(9):
        part = processes.look(quarter / 4)
    assert part == pytest.approx(0.0, abs=0.01)


def test_nothing_is_believed_before_tasks_were_seen_running() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    assert processes.look(0.0) is None
    assert processes.look(0.2) is None
    assert processes.look(0.3) is not None


def test_what_was_asked_for_two_seconds_ago_counts_half() -> None:
    processes = Processes()
    processes.ns = {1: 0}
    processes.look(0.0)
    processes.ns = {1: 1_000_000_000}
    assert processes.look(1.0) == pytest.approx(1.0)
    # Nothing since, while a task ran for two seconds more: half of one second of one and a half of two.
    assert processes.look(3.0) == pytest.approx(0.5 / 2.5)


def test_processes_that_live_between_two_looks_count_when_they_are_dead() -> None:
    processes = Processes()
    processes.look(0.0)
    for quarter in range(1, 9):
        for each in range(2):  # a tenth of a second each, computing all the time, and a little later the next one
            pid = 10 * quarter + each
            processes.ns = {pid: 100_000_000}
            processes.asked.note_exit(pid)
        processes.ns = {}
        part = processes.look(quarter / 4)
    assert part == pytest.approx(0.8, abs=0.05)


def test_a_process_that_is_seen_and_dies_counts_once() -> None:
    processes = Processes()
    processes.look(0.0)
    for quarter in range(1, 9):
        processes.ns = {quarter: 125_000_000}
        part = processes.look(quarter / 4)
        processes.asked.note_exit(quarter)
    assert part == pytest.approx(0.5, abs=0.05)


def test_a_process_that_was_reaped_first_takes_nothing_away() -> None:
    processes = Processes()
    processes.ns = {1: 200_000_000}
    for quarter in range(5):
        processes.look(quarter / 4)
    processes.ns = {}
    processes.asked.note_exit(1)
    part = processes.look(1.5)
    assert part is not None
    assert part >= 0.0
