"""Recycling: an executor that has used up its allowance is replaced by a fresh one.

    working ──allowance used up──► due ──a turn, and nothing long to wait for──► outgoing ──replacement forked──► leaving ──► gone
                                                                                    └──cannot be forked──► due

An outgoing executor is given nothing more, and what it had not started goes to others; the crew dismisses it when its replacement is
there. Nothing is lost and nothing counted: it ends like one that scaling dismissed. Memory is looked at after every hand-back of results
and on the tick, so a task that passes the threshold is let finish: the hard limit is `limits.address_space`.

When it fails: no turn, no memory for a fork or a nursery that is gone means that the executor goes on working, and that it is tried again.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from reproq_supervisor.core.policy.handout import ServiceTimes
from reproq_supervisor.core.policy.recycle import Measured, RecyclePolicy, RecycleReason
from reproq_supervisor.pool.crew import FORK_AGAIN_AFTER_S, Crew
from reproq_supervisor.pool.turns import PoolTurns
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process.own_memory import AnonymousMemory, private_bytes

LONG_TASK_S = 1.0
"""A task that is expected to take so long, or of which nothing is known, is waited for before a turn is taken, which others may need."""


@dataclass(slots=True)
class _Life:
    """What is known of one executor.

    Attributes:
      draw: decides its share of the jitter, for ever.
    """

    born_mono: float
    draw: float
    memory: AnonymousMemory | None = None
    measured: Measured = field(default_factory=Measured)
    private_bytes: int = 0
    due: RecycleReason | None = None
    turn: int | None = None


class Recycling:
    """Decides for the executors of a crew which is to go, and when.

    Args:
      on_event: something for the log.
    """

    def __init__(self, crew: Crew, times: ServiceTimes, turns: PoolTurns, policy: RecyclePolicy, on_event: Callable[..., None]) -> None:
        self.policy = policy
        self.totals: Counter[RecycleReason] = Counter()
        self._crew = crew
        self._times = times
        self._turns = turns
        self._on_event = on_event
        self._lives: dict[Executor, _Life] = {}
        self._not_before_mono = 0.0

    @property
    def waiting(self) -> int:
        """Executors that are due and have no turn yet."""
        return sum(life.due is not None and life.turn is None for life in self._lives.values())

    def look(self) -> None:
        """Look at every executor, ten times a second."""
        self.settle()
        if self.policy.is_off and not self._lives:
            return
        for executor in self._crew.executors:
            self.look_at(executor)

    def look_at(self, executor: Executor) -> None:
        """See whether *executor* has used up its allowance, and let it go when it can."""
        if executor.leaving or executor.exited or (self.policy.is_off and executor not in self._lives):
            return
        now = time.monotonic()
        life = self._lives.get(executor)
        if life is None:
            life = self._lives[executor] = _Life(now, random.random())  # noqa: S311 - spread, not a secret
        allowance = self.policy.allowance(life.draw)
        if allowance.rss_bytes:
            self._measure(executor, life, allowance.rss_bytes, now)
        if life.turn is None:
            # Asked again while it waits: the rules are live.
            life.due = allowance.used_up(executor.finished_total, now - life.born_mono, life.private_bytes)
            if life.due is not None and now >= self._not_before_mono and self._can_go(executor):
                self._take_turn(executor, life, now)

    def _measure(self, executor: Executor, life: _Life, limit_bytes: int, now: float) -> None:
        if life.memory is None:
            life.memory = AnonymousMemory(executor.pid)
            # A fork shares all it has; where it may not be looked at closely, only what it takes from now on counts.
            life.measured = Measured(life.memory.read_bytes())
        anonymous = life.memory.read_bytes()
        if not life.measured.is_good_enough(limit_bytes, anonymous, now):
            exact = private_bytes(executor.pid)
            life.measured = Measured(anonymous, life.measured.estimate(anonymous) if exact is None else exact, now)
        life.private_bytes = life.measured.estimate(anonymous)

    def _can_go(self, executor: Executor) -> bool:
        """Answer whether it would be gone soon, and a replacement could be forked."""
        if not self._crew.can_fork:
            return False
        # One with slots may never be without a long task.
        return executor.shared or all(self._times.expected_s(held.claimed.task_path) < LONG_TASK_S for held in executor.in_hand)

    def _take_turn(self, executor: Executor, life: _Life, now: float) -> None:
        try:
            life.turn = self._turns.take_nowait(self.policy.at_once)
        except OSError as error:
            self._not_before_mono = now + FORK_AGAIN_AFTER_S
            self._on_event("executor.not_recycled", pid=executor.pid, error=f"{type(error).__name__}: {error}")
        if life.turn is not None:
            executor.outgoing = True
            self._crew.put_back(executor.take_back())
            self._crew.fit()
            self._crew.dispatch()

    def note_not_forked(self) -> None:
        """There is no replacement to be had: those that wait for one go back to work, for a while."""
        self._not_before_mono = time.monotonic() + FORK_AGAIN_AFTER_S
        for executor, life in self._lives.items():
            if executor.outgoing and not executor.leaving:
                executor.outgoing = False
                self._end_turn(life)
        self._crew.dispatch()

    def settle(self) -> None:
        """Give back the turns of executors that are gone, and forget them."""
        alive = set(self._crew.executors)
        for executor in [executor for executor in self._lives if executor not in alive]:
            life = self._lives.pop(executor)
            self._end_turn(life)
            if life.memory is not None:
                life.memory.close()

    def note_left(self, executor: Executor) -> None:
        """An executor left as it was asked to; was it for this?"""
        life = self._lives.get(executor)
        if life is None or life.turn is None or life.due is None:
            return
        self.totals[life.due] += 1
        self._on_event(
            "executor.recycled",
            pid=executor.pid,
            reason=life.due,
            tasks=executor.finished_total,
            age_s=round(time.monotonic() - life.born_mono, 3),
            private_bytes=life.private_bytes or None,
        )

    def _end_turn(self, life: _Life) -> None:
        if life.turn is not None:
            self._turns.give_back(life.turn)
            life.turn = None
