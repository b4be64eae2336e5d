"""Pools whose tasks ask for processors, on a machine that has a few: who computes beside others than there are processors for goes slower.

Each pool decides as a shard does: by the rule for sizes, by what its processes have asked for, and where there are several, within its
part of the machine. Only time is simulated, in hundredths of a second.
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from reproq_supervisor.core.policy.budget import Amounts, Claimant, divide
from reproq_supervisor.core.policy.capacity import Machine, share_of, useful_size
from reproq_supervisor.core.policy.sizing import Load, SizeDecision, SizeLimits, SizeReason, SizeState, SizeTuning, decide_size, start_size
from reproq_supervisor.pool.asked import Asked
from reproq_supervisor.pool.sizing import DECIDE_EVERY_S, MeanService
from reproq_supervisor.pool.watch import TICK_S

STEP_S = 0.01
LOOK_EVERY_S = math.ceil(DECIDE_EVERY_S / TICK_S) * TICK_S
MOST = 8
TUNING = SizeTuning(drain_target_s=2.0)


@dataclass(frozen=True)
class Work:
    """Tasks of one kind: so many *at* a time, or so many a second from then on.

    Attributes:
      part: of a processor that each asks for.
      alone_s: seconds that each takes where it waits for none.
    """

    part: float
    alone_s: float
    at: float = 0.0
    many: int = 0
    rate: float = 0.0


@dataclass
class _Executor:
    pid: int
    left_s: float = 0.0
    part: float = 0.0
    seq: int = 0
    began: float = 0.0
    asked_ns: int = 0


@dataclass
class Pool:
    """A pool with what comes for it, and what became of it: its size after each step, and the reasons it gave."""

    work: Sequence[Work]
    size: int = 1
    sizes: list[int] = field(default_factory=list)
    reasons: list[SizeReason] = field(default_factory=list)
    decision: SizeDecision | None = None

    def __post_init__(self) -> None:
        self._executors: dict[int, _Executor] = {}
        self._waiting: deque[Work] = deque()
        self._arrived = 0
        self._numbers = count(1)
        self._service = MeanService()
        self._asked = Asked(lambda pid: self._executors[pid].asked_ns if pid in self._executors else 0)
        self._asks: float | None = None
        self._state: SizeState | None = None
        self._looks_at = 0.0

    @property
    def demand(self) -> float:
        """Processors that are asked for now."""
        return sum(each.part for each in self._executors.values() if each.seq)

    def begin(self, now: float, rng: random.Random) -> None:
        """Take in what comes in this step, have as many executors as there shall be, and begin what can begin."""
        for work in self.work:
            new = work.many if now <= work.at < now + STEP_S else 0
            new += now >= work.at and rng.random() < work.rate * STEP_S
            self._waiting.extend([work] * new)
            self._arrived += new
        while len(self._executors) < self.size:
            pid = next(self._numbers)
            self._executors[pid] = _Executor(pid)
        for each in list(self._executors.values()):
            if each.seq:
                continue
            if len(self._executors) > self.size:
                del self._executors[each.pid]
            elif self._waiting:
                work = self._waiting.popleft()
                each.left_s, each.part, each.seq, each.began = work.alone_s, work.part, next(self._numbers), now

    def advance(self, pace: float, now: float) -> None:
        """Let what runs run on: what it asks of a processor it has for *pace* of the time, and waits for it for the rest."""
        for each in self._executors.values():
            if not each.seq:
                continue
            # Of a second of this task its part takes so much longer.
            slower = 1.0 - each.part + each.part / pace
            each.left_s -= STEP_S / slower
            each.asked_ns += int(STEP_S * 1e9 * (each.part / pace) / slower)
            if each.left_s <= 1e-9:
                self._service.observe(now - each.began)
                self._asked.note_end(each.seq, now - each.began)
                each.seq = 0

    def look(self, machine: Machine, budget: int | None, now: float) -> None:
        """Decide when it is time to, as a shard does."""
        self.sizes.append(len(self._executors))
        if now < self._looks_at - 1e-9:
            return
        running = {each.seq: now - each.began for each in self._executors.values() if each.seq}
        self._asks = self._asked.by_each(list(self._executors), running, now)
        seen, unseen = (useful_size(machine, self.size, asked=asked) for asked in (self._asks, None))
        service_s = self._service.seconds
        if running:
            service_s = max(min(running.values()), TUNING.unknown_service_s if service_s is None else service_s)
        load = Load(self._arrived, len(self._waiting), len(running), service_s, 1, seen, unseen, self._asks is not None)
        limits = SizeLimits(1, MOST, budget)
        self._state, decision = decide_size(TUNING, limits, self._state or start_size(limits, load, now), load, now)
        self.size, self.decision = decision.size, decision
        self.reasons.append(decision.reason)
        self._looks_at = now + LOOK_EVERY_S

    def claimant(self) -> Claimant:
        """Say what it has and wants."""
        want, use = (self.decision.want, self.decision.use) if self.decision else (0, 1)
        takes = Amounts(processors=share_of(self._asks, 1))
        return Claimant(1, MOST, max(self.size, len(self._executors)), want, use, 1.0, takes)


def together(processors: int, pools: Sequence[Pool], *, seconds: float, seed: int = 1) -> list[int]:
    """Play the pools beside each other; return how many executors all had after each step."""
    rng = random.Random(seed)
    crowded_s, parts = 0.0, [1 if len(pools) > 1 else None] * len(pools)
    for step in range(int(seconds / STEP_S)):
        now = step * STEP_S
        if len(pools) > 1:
            grants = divide(Amounts(processors=processors), [pool.claimant() for pool in pools])
            parts = [grant.executors if grant.lacks else None for grant in grants]
        for pool in pools:
            pool.begin(now, rng)
        demand = sum(pool.demand for pool in pools)
        # As the kernel's pressure: somebody waits, lately.
        crowded_s += 0.1 * ((demand > processors) - crowded_s)
        for pool, part in zip(pools, parts, strict=True):
            pool.advance(min(1.0, processors / demand) if demand else 1.0, now + STEP_S)
            pool.look(Machine(float(processors), crowded_s), part, now + STEP_S)
    return [sum(sizes) for sizes in zip(*(pool.sizes for pool in pools), strict=True)]
