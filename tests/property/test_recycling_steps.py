"""A crew that recycles, scales, loses executors and cannot fork, in any order: it never shrinks, and never sends too many away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reproq_supervisor.core.policy.recycle import RecyclePolicy
from reproq_supervisor.pool.recycling import Recycling
from reproq_supervisor.pool.turns import PoolTurns
from reproq_supervisor.pool.worker import Executor
from tests.support.crew import StillCrew

AFTER = 3
MOST = 6


class Steps(RuleBasedStateMachine):
    """Executors finish tasks; forks arrive or fail; the dismissed leave; some die; the size changes."""

    @initialize(size=st.integers(1, MOST), at_once=st.integers(1, 3))
    def begin(self, size: int, at_once: int) -> None:
        """Make the crew."""
        self.loop = asyncio.new_event_loop()
        self.at_once = at_once
        self.dead_total = 0
        with self.in_loop():
            self.still = StillCrew(size)
            self.crew = self.still.crew
            policy = RecyclePolicy(tasks=AFTER, jitter=0.0, at_once=at_once)
            self.recycling = Recycling(self.crew, self.still.times, PoolTurns(None), policy, lambda *_, **__: None)

    @contextmanager
    def in_loop(self) -> Iterator[None]:
        """Run a block as the loop runs a callback."""
        asyncio._set_running_loop(self.loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    @property
    def at_work(self) -> list[Executor]:
        return [executor for executor in self.crew.executors if not executor.leaving]

    @property
    def pending(self) -> int:
        return self.crew.booting

    @rule(which=st.integers(0, 100), tasks=st.integers(1, AFTER))
    def finish(self, which: int, tasks: int) -> None:
        """Somebody hands results back."""
        with self.in_loop():
            if self.at_work:
                executor = self.at_work[which % len(self.at_work)]
                executor.finished_total += tasks
                self.recycling.look_at(executor)

    @precondition(lambda self: self.pending)
    @rule()
    def arrive(self) -> None:
        """A fork arrives."""
        with self.in_loop():
            self.still.arrive()

    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        """Somebody who was dismissed is gone."""
        leaving = [executor for executor in self.crew.executors if executor.leaving]
        if leaving:
            with self.in_loop():
                executor = leaving[which % len(leaving)]
                self.recycling.note_left(executor)
                self.still.leave(executor)
                self.recycling.settle()

    @rule(which=st.integers(0, 100))
    def die(self, which: int) -> None:
        """Somebody crashes."""
        if self.crew.executors:
            with self.in_loop():
                self.still.leave(self.crew.executors[which % len(self.crew.executors)])
                self.recycling.settle()

    @rule(size=st.integers(0, MOST))
    def scale(self, size: int) -> None:
        """The size changes; 0 is a drain."""
        with self.in_loop():
            self.crew.wanted = size
            self.crew.fit()

    @rule()
    def tick(self) -> None:
        """Time passes."""
        with self.in_loop():
            self.crew.fit()
            self.recycling.look()

    @invariant()
    def never_fewer_than_wanted(self) -> None:
        """Those who can work, and those on their way, are as many as wanted: an outgoing one still counts until it is replaced."""
        assert len(self.at_work) + self.pending >= self.crew.wanted

    @invariant()
    def never_too_many_forks(self) -> None:
        """At rest there is one fork more for each outgoing executor, and none without a reason."""
        outgoing = sum(executor.outgoing for executor in self.at_work)
        assert outgoing <= self.at_once
        assert len(self.at_work) <= max(self.crew.wanted + outgoing, 0)

    @invariant()
    def never_more_away_than_turns(self) -> None:
        """Outgoing or leaving by recycling, they hold a turn."""
        away = [executor for executor in self.crew.executors if executor.outgoing]
        assert len(away) <= self.at_once

    def teardown(self) -> None:
        """See that everything comes to rest: all that is due gets its turn, one after the other."""
        try:
            with self.in_loop():
                self.come_to_rest()
        finally:
            with self.in_loop():
                self.still.close()
            self.loop.close()

    def come_to_rest(self) -> None:
        """Let time pass without further events."""
        for _ in range(20 * MOST):
            self.recycling.look()
            self.crew.fit()
            while self.pending:
                self.still.arrive()
            for executor in [executor for executor in self.crew.executors if executor.leaving]:
                self.recycling.note_left(executor)
                self.still.leave(executor)
            self.recycling.settle()
        assert len(self.at_work) == self.crew.wanted
        assert self.recycling.waiting == 0
        assert all(executor.finished_total < AFTER for executor in self.at_work)


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
