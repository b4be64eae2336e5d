"""How a simulated child behaves, drawn once at its start."""

import random
from dataclasses import dataclass

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds are from the child's start; NEVER means that it does not happen.

    Attributes:
      ready_s: when it becomes ready.
      dies_s, code, signal: when and how it ends by itself.
      silent_s: from when it says nothing and does nothing any more, as if it were frozen.
      drain_s: how long it needs to leave when asked; NEVER: it must be killed.
      drain_code: its exit code then.
      nursery_s: how long its nursery outlives it; None: it is gone before.
      strangers: how many other processes it leaves behind.
      refuses: the operating system does not start it at all.
    """

    ready_s: float = 0.5
    dies_s: float = NEVER
    code: int | None = 70
    signal: str | None = None
    silent_s: float = NEVER
    drain_s: float = 0.3
    drain_code: int = 0
    nursery_s: float | None = 0.05
    strangers: int = 0
    refuses: bool = False

    @property
    def is_good(self) -> bool:
        """Does it do everything that is asked of it, in time?"""
        return not self.refuses and self.ready_s < 10 and self.dies_s == NEVER and self.silent_s == NEVER and self.drain_s < 1.0


GOOD = Behaviour()


def draw(rng: random.Random, badness: float) -> Behaviour:
    """Return a behaviour that is bad with probability *badness*."""
    good = Behaviour(
        ready_s=rng.uniform(0.05, 3.0), drain_s=rng.uniform(0.0, 0.9), nursery_s=rng.choice([None, 0.0, rng.uniform(0.0, 1.0)])
    )
    if rng.random() >= badness:
        return good
    nursery_s = rng.choice([None, 0.0, 0.5, NEVER])
    strangers = rng.choice([0, 0, 1, 3])
    match rng.randrange(10):
        case 0:
            return Behaviour(ready_s=NEVER, nursery_s=nursery_s)
        case 1:
            return Behaviour(ready_s=NEVER, dies_s=rng.uniform(0.0, 2.0), code=rng.choice([0, 1, 70]), strangers=strangers)
        case 2:
            return Behaviour(dies_s=rng.uniform(0.6, 30.0), code=None, signal=rng.choice(["SIGKILL", "SIGSEGV"]), nursery_s=nursery_s)
        case 3:
            return Behaviour(silent_s=rng.uniform(0.0, 20.0), nursery_s=nursery_s, strangers=strangers)
        case 4:
            return Behaviour(ready_s=NEVER, dies_s=rng.uniform(0.1, 1.0), code=rng.choice([69, 75]))
        case 5:
            return Behaviour(ready_s=NEVER, dies_s=rng.uniform(0.1, 1.0), code=78)
        case 6:
            return Behaviour(dies_s=rng.uniform(0.6, 5.0), code=0)
        case 7:
            return Behaviour(drain_s=NEVER, nursery_s=nursery_s)
        case 8:
            return Behaviour(drain_s=rng.uniform(0.0, 5.0), drain_code=rng.choice([1, 70, 78]), strangers=strangers)
        case _:
            return Behaviour(refuses=True)


def draw_database(rng: random.Random, badness: float) -> Behaviour:
    """Return how a database server behaves under its guard: bad with probability *badness*."""
    if rng.random() >= badness:
        return Behaviour(ready_s=rng.uniform(0.05, 1.0), nursery_s=None)
    match rng.randrange(4):
        case 0:
            return Behaviour(ready_s=NEVER)
        case 1:
            return Behaviour(dies_s=rng.uniform(0.6, 30.0), code=None, signal="SIGKILL", strangers=rng.choice([0, 3]))
        case 2:
            return Behaviour(silent_s=rng.uniform(0.0, 20.0), strangers=3)
        case _:
            return Behaviour(drain_s=NEVER)
