"""A pool as a controller sees it: tasks arrive at random, executors boot, work and leave, and every tick the controller says how many there
shall be. Only time is simulated, so simulated hours take a second; the same seed gives the same run."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from reproq_supervisor.core.policy.sizing import Load


@dataclass(frozen=True)
class Scenario:
    """What arrives: a rate at each time, how long tasks take, how long an executor boots."""

    name: str
    rate: Callable[[float], float]
    service_s: Callable[[float], float] = lambda _: 1.0
    sigma: float = 0.5
    boot_s: float = 0.05
    seconds: float = 2400.0
    least: int = 1
    most: int = 20
    seen: Callable[[float], bool] = lambda _: True
    """Whether the controller's look at that time succeeds."""


@dataclass
class Outcome:
    """What a controller made of a scenario: waits in seconds, processes started, changes of direction, processes on average."""

    waits: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    starts: int = 0
    busy_s: float = 0.0

    @property
    def p95_s(self) -> float:
        return sorted(self.waits)[int(0.95 * len(self.waits))] if self.waits else 0.0

    @property
    def reversals(self) -> int:
        changes = [b - a for a, b in pairwise(self.wanted) if b != a]
        return sum((a > 0) != (b > 0) for a, b in pairwise(changes))

    @property
    def average(self) -> float:
        return math.fsum(self.sizes) / len(self.sizes)


Controller = Callable[[float, Load, int], int]
"""(now, load, size) -> size."""


def arrivals(scenario: Scenario, rng: random.Random) -> Iterator[tuple[float, float]]:
    """Times of arrival, each with the seconds that its task takes: a Poisson process, thinned to the rate of each moment."""
    peak = max(scenario.rate(t / 2) for t in range(int(2 * scenario.seconds)))
    now = 0.0
    while (now := now + rng.expovariate(peak)) < scenario.seconds:
        if rng.random() * peak < scenario.rate(now):
            mean = scenario.service_s(now)
            yield now, rng.lognormvariate(math.log(mean) - scenario.sigma**2 / 2, scenario.sigma)


def run(scenario: Scenario, controller: Controller, *, seed: int, tick_s: float = 1.0) -> Outcome:
    """Let *controller* size the pool through the whole scenario."""
    outcome = Outcome()
    pool = play(scenario, outcome, seed=seed, tick_s=tick_s)
    now, load, size = next(pool)
    while True:
        try:
            now, load, size = pool.send(size if load is None else controller(now, load, size))
        except StopIteration:
            return outcome


def play(scenario: Scenario, outcome: Outcome, *, seed: int, tick_s: float = 1.0) -> Generator[tuple[float, Load | None, int], int, None]:
    """Play the scenario, and note in *outcome* what becomes of it: at each tick say (now, load if it is seen, size), and take the size."""
    rng = random.Random(seed)
    coming = list(arrivals(scenario, rng))
    queue: deque[tuple[float, float]] = deque()
    ends: list[float] = []  # of those under way
    boots: list[float] = []
    idle, arrived, size, service_s, at = 0, 0, 0, None, 0
    leaving, begun = 0, 0
    now = 0.0
    while now < scenario.seconds:
        ticks_to = now + tick_s
        while True:  # everything until the tick, in order of time
            upcoming = min(coming[at][0] if at < len(coming) else math.inf, ends[0] if ends else math.inf, boots[0] if boots else math.inf)
            if upcoming > ticks_to:
                break
            if at < len(coming) and upcoming == coming[at][0]:
                queue.append(coming[at])
                at, arrived = at + 1, arrived + 1
            elif ends and upcoming == ends[0]:
                heapq.heappop(ends)
                if leaving:
                    leaving -= 1
                else:
                    idle += 1
            else:
                heapq.heappop(boots)
                idle += 1
            while idle and queue:
                came, takes = queue.popleft()
                idle -= 1
                heapq.heappush(ends, upcoming + takes)
                outcome.waits.append(upcoming - came)
                outcome.busy_s += takes
                begun += 1
                service_s = takes if service_s is None else service_s + max(0.01, 1 / begun) * (takes - service_s)
        now = ticks_to
        load = Load(arrived, len(queue), len(ends), service_s) if scenario.seen(now) else None
        size = max(scenario.least, min(scenario.most, (yield now, load, size)))
        alive = idle + len(ends) - leaving + len(boots)
        for _ in range(alive, size):
            if leaving:
                leaving -= 1
            else:
                heapq.heappush(boots, now + scenario.boot_s)
                outcome.starts += 1
        for _ in range(size, alive):
            if idle:
                idle -= 1
            elif boots:
                boots.pop()
                heapq.heapify(boots)
            else:
                leaving += 1
        outcome.sizes.append(idle + len(ends) + len(boots))
        outcome.wanted.append(size)
