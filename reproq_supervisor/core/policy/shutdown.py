"""The order of the end: shards, then the keeper, then the database, and the supervisor last.

Each phase ends when no process of its roles is left, and whatever is left at its deadline is killed; so the end comes within the time
given, whoever hangs. A quick stop shortens the deadlines of the phase it falls into and of those after it.
"""

from dataclasses import dataclass
from enum import StrEnum

from reproq_supervisor.core.supervision.units import Role

TAIL_S = 3.0
"""Kept from the shutdown timeout for the keeper and the database, at most a quarter of it."""

QUICK_S = 3.0
"""What a process gets to leave after `quit`."""

DATABASE_S = 10.0
"""What the database gets for its own fast shutdown, a checkpoint included, even when the shards used up all of the time."""

KILL_SLACK_S = 2.0
"""Between the moment a draining process should have left by itself and its kill."""


class Phase(StrEnum):
    """How far the end has come."""

    SHARDS = "shards"
    KEEPER = "keeper"
    DATABASE = "database"
    OVER = "over"


ROLES: dict[Phase, frozenset[Role]] = {
    Phase.SHARDS: frozenset({Role.SHARD, Role.LOADER, Role.PREPARE}),
    Phase.KEEPER: frozenset({Role.KEEPER}),
    Phase.DATABASE: frozenset({Role.POSTGRES}),
    Phase.OVER: frozenset(),
}

NEXT = {Phase.SHARDS: Phase.KEEPER, Phase.KEEPER: Phase.DATABASE, Phase.DATABASE: Phase.OVER}


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """What a process is told when it is asked to drain, and when it is killed.

    Attributes:
      timeout_s: until the soft signal to its tasks.
      kill_in_s: until the supervisor kills the process itself.
    """

    timeout_s: float
    kill_in_s: float


def drain_times(left_s: float, grace_s: float) -> DrainTimes:
    """Divide the time that is left for a shard: tasks may run until soft signal, grace and kill just fit in.

    Args:
      left_s: seconds until the shutdown timeout ends.
    """
    usable = max(0.0, left_s - min(TAIL_S, left_s / 4.0))
    # With little time the grace is what shrinks last: a task that is signalled and not given time to react gains nothing.
    timeout = max(0.0, usable - grace_s - KILL_SLACK_S)
    return DrainTimes(timeout, min(timeout + grace_s + KILL_SLACK_S, max(usable, QUICK_S)))


def must_remain(phase: Phase) -> frozenset[Role]:
    """Return the roles that are still kept alive, and restarted when they die, in *phase*.

    Results of draining shards cannot be written without a database, nor their leases be released without a keeper.
    """
    match phase:
        case Phase.SHARDS:
            return frozenset({Role.KEEPER, Role.POSTGRES})
        case Phase.KEEPER:
            return frozenset({Role.POSTGRES})
        case Phase.DATABASE | Phase.OVER:
            return frozenset()
