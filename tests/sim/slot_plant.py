"""One executor as the rule for its slots sees it: the more tasks it runs at once, the slower each of them goes, as its plant says.

All that run go at the same pace, so a clock that counts work instead of seconds puts their ends in order. Only time is simulated; the same
seed gives the same run.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from reproq_supervisor.core.policy.slots import SlotLoad

Pace = Callable[[int, float], float]
"""(running, now) -> how many times as long as alone each of them takes."""


def contended(serial: float, crosstalk: float) -> Pace:
    """The universal scalability law: a serial part, and a cost of every pair; most gets done at √((1 - serial) / crosstalk)."""
    return lambda running, _: 1.0 + serial * (running - 1) + crosstalk * running * (running - 1)


def behind(permits: int) -> Pace:
    """A resource that serves so many at once; more only wait."""
    return lambda running, _: max(1.0, running / permits)


@dataclass(frozen=True)
class SlotScenario:
    """What one executor is given to do, and how it takes it.

    Attributes:
      best: the number of slots that gets most done, at each time; where several do, the smallest.
      task: (rng, now) -> name and seconds of a task, alone.
      rate: tasks that arrive a second; None: there is always more.
      limit_s: a run that takes longer ends in trouble.
      failing: part of the runs that fail at once.
    """

    name: str
    pace: Pace
    best: Callable[[float], float]
    task: Callable[[random.Random, float], tuple[str, float]] = lambda rng, _: ("task", lognormal(rng, 0.2, 0.5))
    rate: Callable[[float], float] | None = None
    limit_s: float = math.inf
    failing: Callable[[float], float] = lambda _: 0.0
    least: int = 1
    most: int = 200
    seconds: float = 600.0
    seen: Callable[[float], bool] = lambda _: True


def lognormal(rng: random.Random, mean: float, sigma: float) -> float:
    """Draw from the lognormal distribution of that mean."""
    return rng.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


@dataclass
class SlotOutcome:
    """What a rule made of it: (time, slots) at each look, seconds of work (as if alone) done by then, waits, troubles."""

    at: list[float] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    troubles: int = 0

    def per_s(self, since: float, until: float = math.inf) -> float:
        """Return the work done a second between two times."""
        done = [(at, work) for at, work in zip(self.at, self.work, strict=True) if since <= at <= until]
        return (done[-1][1] - done[0][1]) / (done[-1][0] - done[0][0])

    def average(self, since: float, until: float = math.inf) -> float:
        """Return the slots on average between two times."""
        found = [slots for at, slots in zip(self.at, self.slots, strict=True) if since <= at <= until]
        return sum(found) / len(found)


SlotController = Callable[[float, SlotLoad, float], int]
"""(now, load, mean seconds of the runs that ended since the last look) -> slots."""


def run_slots(scenario: SlotScenario, controller: SlotController, *, seed: int, look_s: float = 0.25) -> SlotOutcome:
    """Let *controller* set the slots through the whole scenario."""
    rng = random.Random(seed)
    outcome = SlotOutcome()
    queue: deque[tuple[str, float]] = deque()
    running: list[tuple[float, int, str, float, float]] = []  # (end on the clock of work, tie, task, alone, began)
    done: dict[str, tuple[int, float]] = {}
    now, worked, number, ended, work = 0.0, 0.0, 0, 0, 0.0
    slots, took = scenario.least, [0.0, 0.0]
    arrives = math.inf if scenario.rate is None else rng.expovariate(max(scenario.rate(0.0), 1e-9))
    look = look_s
    while now < scenario.seconds:
        while len(running) < slots and (queue or scenario.rate is None):
            task, alone = queue.popleft() if scenario.rate is not None else scenario.task(rng, now)
            number += 1
            heapq.heappush(running, (worked + (1e-3 if rng.random() < scenario.failing(now) else alone), number, task, alone, now))
        pace = scenario.pace(len(running), now) if running else 1.0
        ends = now + (running[0][0] - worked) * pace if running else math.inf
        upcoming = min(ends, arrives, look)
        worked += (upcoming - now) / pace
        now = upcoming
        if upcoming == ends:
            due, _, task, alone, began = heapq.heappop(running)
            worked = max(worked, due)
            ended += 1
            seconds = now - began
            took = [took[0] + 1, took[1] + seconds]
            if seconds > scenario.limit_s:
                outcome.troubles += 1
            elif seconds >= alone * 0.999:  # it has not failed
                count, all_s = done.get(task, (0, 0.0))
                done[task] = (count + 1, all_s + seconds)
                work += alone
        elif upcoming == arrives:
            assert scenario.rate is not None
            queue.append(scenario.task(rng, now))
            arrives = now + rng.expovariate(max(scenario.rate(now), 1e-9))
        else:
            look += look_s
            if scenario.seen(now):
                more = scenario.rate is None or bool(queue)
                load = SlotLoad(1, more and len(running) >= slots, dict(done), ended, outcome.troubles)
                slots = max(scenario.least, min(scenario.most, controller(now, load, took[1] / took[0] if took[0] else 0.0)))
                took = [0.0, 0.0]
            outcome.at.append(now)
            outcome.slots.append(slots)
            outcome.work.append(work)
            outcome.waiting.append(len(queue))
    return outcome
