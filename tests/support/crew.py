"""A crew without processes: the nursery notes what it is asked for, executors are sockets and pipes that nobody reads."""

import os
import socket
from typing import Any

from reproq_supervisor.core.policy.handout import ServiceTimes
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process.deadlines import DeadlineTable


class NotedNursery:
    """Stands for a `NurseryLink`: what it was asked for is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.asked.append(message)

    @property
    def forks(self) -> list[int]:
        """Rows that were asked for, in order."""
        return [message["slot"] for message in self.asked if message["type"] == "fork"]


class StillCrew:
    """A crew of *size* executors whose forks arrive when the test says so, with more room than it uses. Use it in a running event loop."""

    def __init__(self, size: int) -> None:
        self.nursery = NotedNursery()
        self.times = ServiceTimes()
        self.table = DeadlineTable.create(256)
        self.crew = Crew(
            self.table,
            self.times,
            60.0,
            single_use=False,
            on_finished=lambda *_: None,
            on_results=lambda *_: None,
            on_crashed=lambda *_: None,
        )
        self.crew.use(self.nursery)  # type: ignore[arg-type]
        self.crew.wanted = size
        self.crew.fit()
        self._arrived = 0
        self._theirs: list[Any] = []
        while self._arrived < size:
            self.arrive()

    def arrive(self) -> Executor:
        """Let the next fork that was asked for arrive, with a pid that no process has."""
        row = self.nursery.forks[self._arrived]
        self._arrived += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._theirs.append(theirs)
        tokens_read, tokens_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        executor = Executor(row, 10_000_000 + row, ours, os.pidfd_open(os.getpid()), tokens_write, tokens_read, None)
        self.crew.take_in(executor)
        return executor

    def leave(self, executor: Executor) -> None:
        """Let a dismissed executor end and be reaped."""
        executor.exited = True
        self.crew.forget(executor.pid)

    def close(self) -> None:
        """Give every descriptor back."""
        for executor in self.crew.executors:
            executor.close()
        for theirs in self._theirs:
            theirs.close()
        os.close(self.table.fd)
