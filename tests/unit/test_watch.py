"""The watch over executors that should be gone."""

import os
from collections.abc import Iterator
from typing import Any, cast

import pytest

from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import HeldRuns
from reproq_supervisor.pool.watch import Limits, Watch
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process.deadlines import DeadlineTable


class FakeCrew:
    """Executors that are looked at, and those that were killed."""

    def __init__(self, executors: list[Executor]) -> None:
        self.executors = executors
        self.killed: list[Executor] = []
        self.buffer: list[Any] = []

    def kill(self, executor: Executor) -> None:
        self.killed.append(executor)


@pytest.fixture
def table() -> Iterator[DeadlineTable]:
    table = DeadlineTable.create(1)
    yield table
    os.close(table.fd)


@pytest.mark.parametrize("leaving", [True, False])
def test_an_executor_that_should_leave_and_stays_is_killed(table: DeadlineTable, leaving: bool) -> None:
    executor = Executor(0, 1, cast("Any", None), -1, -1, -1, None, leaving=leaving)
    crew = FakeCrew([executor])
    watch = Watch(cast("Crew", crew), HeldRuns(), table, Limits(timeout_s=1.0, grace_s=1.0, lease_s=10.0, heartbeat_s=0.0))
    watch.look()
    assert crew.killed == []
    watch.look()
    assert crew.killed == ([executor] if leaving else [])
