"""The order of the end, and how its time is divided: shards, then the keeper, then the database, and the supervisor last.

    ├─ tasks ─┼─ soft signal, grace ─┼─ flush ─┼─ kill ─┼─ keeper ─┼─ database ─┼─ exit ─┤ shutdown timeout
                                                        SHARDS     KEEPER       DATABASE    at the latest

Each phase ends when no process of its roles is left, and at its latest moment whoever hangs: what is left then has been killed before. So
the end comes within the time given, frozen processes and databases included. The reserves behind the tasks are fixed, and shrink together
when they would take more than half of the time. A quick stop is the same with `QUICK_S` seconds.
"""

from dataclasses import dataclass
from enum import StrEnum

from reproq_supervisor.core.supervision.units import Role

LEAST_S = 1.0
"""No stop is given less."""

QUICK_S = 5.0
"""What a quick stop takes at most."""

FLUSH_S = 4.0
"""For a shard between the end of its tasks' grace and its own kill: executors die that ignored the signal, results are written, the nursery
goes."""

KILL_S = 0.5
"""Between the decision to kill a shard and its reaping: its stacks go to the log meanwhile."""

KEEPER_S = 1.5
"""For the release of leases of shards that died at the end, and for the keeper to leave."""

DATABASE_S = 3.0
"""For the embedded database, whoever used up the rest: half of it for its fast shutdown, the rest for the immediate one and its kill."""

EXIT_S = 0.5
"""For the supervisor's own last words."""

MOST_RESERVED = 0.5
"""The part of the whole time that the reserves may take together."""

ALONE_S = 3.0
"""What a process gets to leave that nobody waits for and that has nothing to finish."""


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
class StopBudget:
    """The parts of a stop's time, in seconds and in the order of their use; their sum is the whole.

    Attributes:
      tasks_s: until a shard must have written back everything but what is in its flush: running tasks, with their grace.
    """

    tasks_s: float
    flush_s: float
    kill_s: float
    keeper_s: float
    database_s: float
    exit_s: float

    @property
    def total_s(self) -> float:
        """The whole."""
        return self.tasks_s + self.flush_s + self.kill_s + self.keeper_s + self.database_s + self.exit_s

    def reserved_behind_s(self, phase: Phase) -> float:
        """Return what must be left of the time when *phase* is over, at the latest."""
        match phase:
            case Phase.SHARDS:
                return self.keeper_s + self.database_s + self.exit_s
            case Phase.KEEPER:
                return self.database_s + self.exit_s
            case Phase.DATABASE:
                return self.exit_s
            case Phase.OVER:
                return 0.0


def divide(total_s: float, *, embedded: bool) -> StopBudget:
    """Divide the time of a stop: all that the reserves leave goes to the tasks.

    Args:
      total_s: seconds from now to the end of the supervisor, at least LEAST_S.
      embedded: is there a database of ours to end?
    """
    database_s = DATABASE_S if embedded else 0.0
    reserved = FLUSH_S + KILL_S + KEEPER_S + database_s + EXIT_S
    scale = min(1.0, total_s * MOST_RESERVED / reserved)
    return StopBudget(
        tasks_s=total_s - reserved * scale,
        flush_s=FLUSH_S * scale,
        kill_s=KILL_S * scale,
        keeper_s=KEEPER_S * scale,
        database_s=database_s * scale,
        exit_s=EXIT_S * scale,
    )


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """What a process is told when it is asked to drain, and when it is killed.

    Attributes:
      timeout_s: until the soft signal to its tasks.
      grace_s: from then until the kill of a task.
      kill_in_s: until the supervisor kills the process itself.
    """

    timeout_s: float
    grace_s: float
    kill_in_s: float


def drain_times(kill_in_s: float, grace_s: float, flush_s: float = FLUSH_S) -> DrainTimes:
    """Divide the time of a shard: tasks may run until soft signal, grace and flush just fit in before its kill.

    A grace that does not fit is cut, at most to half of what there is: a task that is signalled and not given time to react gains nothing.

    Args:
      grace_s: as the pool has it.
    """
    usable = max(0.0, kill_in_s - flush_s)
    grace = min(grace_s, usable / 2.0)
    return DrainTimes(usable - grace, grace, max(0.0, kill_in_s))


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
