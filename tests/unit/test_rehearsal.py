"""What the nursery rehearses before it imports the application."""

import os
from collections.abc import Iterator

import pytest

from reproq_supervisor.executor import rehearsal
from reproq_supervisor.process.deadlines import DeadlineTable


@pytest.fixture
def table() -> Iterator[DeadlineTable]:
    made = DeadlineTable.create(1)
    yield made
    os.close(made.fd)


def test_a_rehearsal_runs_its_task_and_leaves_nothing_open(table: DeadlineTable, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def do_nothing() -> None:
        runs.append(os.getpid())

    do_nothing.__module__ = rehearsal.__name__  # the resolver asks where a task comes from
    monkeypatch.setattr(rehearsal, "do_nothing", do_nothing)
    before = os.listdir("/proc/self/fd")

    rehearsal.rehearse(table)

    assert len(runs) > 8, "Python 3.11 settles code at its eighth run"
    assert set(runs) == {os.getpid()}
    assert os.listdir("/proc/self/fd") == before
