"""What torture runs: a mixture of tasks, the same for the same seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from reproq_supervisor.store.enqueue import NewRun

TASK = "reproq_supervisor.executor.torture.run"
LOCKS, LIMITS, LIMIT = 5, 2, 3
_NAP_S = (0.001, 0.02)
# Long enough for two that overlap to be seen doing so.
_LOCKED_S = 0.005
# Long enough, and of few enough keys, that more than the limit would run at once if nothing held them back: four executors spend most of
# their time with these.
_LIMITED_S = 0.05
# An executor that is killed costs its task an attempt, however innocent.
_ATTEMPTS, _ATTEMPTS_IN_CHAOS = 3, 1000


@dataclass(frozen=True, slots=True)
class Planned:
    """One task.

    Attributes:
      name: as it calls itself.
      fails_once: its first attempt is told to fail.
      key: that it shares with others; None for most.
      limit: how many of a key may run at once.
    """

    name: str
    queue: str
    seconds: float = 0.0
    fails_once: bool = False
    key: str | None = None
    limit: int = 0


def plan(count: int, queues: Sequence[str], rng: random.Random) -> list[Planned]:
    """Return *count* tasks: of twenty, twelve do nothing, three sleep for a moment, two fail once, three share a key."""
    return [_draw(f"t{n}", rng.choice(queues), rng) for n in range(count)]


def _draw(name: str, queue: str, rng: random.Random) -> Planned:
    draw = rng.randrange(20)
    if draw < 12:
        return Planned(name, queue)
    if draw < 15:
        return Planned(name, queue, seconds=round(rng.uniform(*_NAP_S), 4))
    if draw < 17:
        return Planned(name, queue, fails_once=True)
    if rng.random() < 0.5:
        return Planned(name, queue, seconds=_LOCKED_S, key=f"lock {rng.randrange(LOCKS)}", limit=1)
    return Planned(name, queue, seconds=_LIMITED_S, key=f"limit {rng.randrange(LIMITS)}", limit=LIMIT)


def run_of(planned: Planned, address: tuple[str, int], token: str, *, chaos: bool) -> NewRun:
    """Return the run to enqueue. Its keys hold the token, so that no other run shares them.

    Args:
      address, token: of the recorder.
    """
    host, port = address
    return NewRun(
        TASK,
        args=[host, port, token, planned.name, planned.seconds],
        queue_name=planned.queue,
        max_attempts=_ATTEMPTS_IN_CHAOS if chaos else _ATTEMPTS,
        timeout_seconds=300,
        lock_key=f"torture {token} {planned.key}" if planned.key and planned.limit == 1 else None,
        concurrency_key=f"torture {token} {planned.key}" if planned.key and planned.limit > 1 else None,
        concurrency_limit=planned.limit if planned.limit > 1 else 0,
    )
