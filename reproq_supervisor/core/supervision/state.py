"""Everything the supervisor knows and wants; the modules beside this one are functions on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reproq_supervisor.core.events import Event
from reproq_supervisor.core.policy.shutdown import Phase, StopBudget
from reproq_supervisor.core.supervision.commands import Command, Emit
from reproq_supervisor.core.supervision.health import Health
from reproq_supervisor.core.supervision.operation import Change, Operation, ReloadOutcome, Wish
from reproq_supervisor.core.supervision.plan import Plan, Settings
from reproq_supervisor.core.supervision.process import Process, Roster
from reproq_supervisor.core.supervision.releases import DeadWorkers
from reproq_supervisor.core.supervision.units import Role, Unit

Classify = Callable[[Settings, Settings], Sequence[Change]]
"""Compares two resolved configurations; lives in `settings`, which `core` does not know."""


@dataclass(slots=True)
class Stopping:
    """The end of the daemon, under way. Times are monotonic seconds.

    Attributes:
      deadline: when the supervisor itself is gone.
      budget: how the time up to the deadline is divided.
      code: exit code of the supervisor.
    """

    why: str
    began_mono: float
    deadline: float
    budget: StopBudget
    quick: bool = False
    code: int = 0
    phase: Phase = Phase.SHARDS
    phase_mono: float = 0.0

    def ends_mono(self, phase: Phase) -> float:
        """Return when *phase* is over, whoever is left."""
        return self.deadline - self.budget.reserved_behind_s(phase)

    def kill_mono(self, phase: Phase) -> float:
        """Return when those who should have left by the end of *phase* are given up, so that they are dead by then."""
        margin_s = self.budget.database_s / 2.0 if phase is Phase.DATABASE else self.budget.kill_s
        return self.ends_mono(phase) - margin_s


@dataclass(frozen=True, slots=True)
class Override:
    """A size that an operator gave a pool for a while."""

    executors: int
    until_mono: float


@dataclass(slots=True)
class State:
    """The supervisor's whole state. Mutable, single-threaded, without descriptors, clocks or randomness.

    Attributes:
      generations: pool → generation that is wanted of it; the keeper's is under its role.
      last_generation: the highest number ever given out, failed reloads included.
      release: name of the source files that the generation in force was started from; None when nobody told.
      prepared: the database is there and has its schema (always true of an external one).
      up: every wanted unit was ready once, or its failure is known.
      slots: unit → the slots that its last process found right.
      shared_mono: when it was seen last who may have how many executors.
      outbox: commands of the current step.
      wake_at: when the last step asked to be woken.
    """

    plan: Plan
    pid: int
    began_mono: float
    classify: Classify
    version: str = ""
    generations: dict[str, int] = field(default_factory=dict)
    generation: int = 1
    last_generation: int = 1
    roster: Roster = field(default_factory=Roster)
    healths: dict[str, Health] = field(default_factory=dict)
    release: str | None = None
    prepared: bool = True
    up: bool = False
    stopping: Stopping | None = None
    exited: bool = False
    operation: Operation | None = None
    wishes: list[Wish] = field(default_factory=list)
    last_reload: ReloadOutcome | None = None
    overrides: dict[str, Override] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    dead_workers: DeadWorkers = field(default_factory=DeadWorkers)
    slots: dict[Unit, int] = field(default_factory=dict)
    shared_mono: float = float("-inf")
    spared_until: float = float("-inf")
    spared: bool = False
    outbox: list[Command] = field(default_factory=list)
    wake_at: float = float("inf")
    extended_mono: float = float("-inf")

    def do(self, command: Command) -> None:
        """Put a command behind those of this step."""
        self.outbox.append(command)

    def emit(self, event: Event) -> None:
        """Tell the log; the loop keeps the events and passes them to those who watch."""
        self.outbox.append(Emit(event))

    def health(self, unit: Unit) -> Health:
        """Return the account of the unit's group, with the policy of the plan in force."""
        policy = self.plan.restart_policy(unit)
        health = self.healths.setdefault(unit.group, Health(policy))
        health.policy = policy
        return health

    def generation_of(self, unit: Unit) -> int:
        """Return the generation that is wanted of *unit*; 1 for units that do not roll."""
        return self.generations.get(unit.pool or unit.role.value, 1)

    def counts(self, process: Process) -> bool:
        """Does an exit of *process* go on its group's account? Canaries, old generations and units that are no more have none."""
        return process.generation == self.generation_of(process.unit) and self.plan.has(process.unit)

    def plan_of(self, process: Process) -> Plan:
        """Return the plan that *process* is judged and told by: the one in force, or its own for canaries and those on their way out."""
        return self.plan if self.counts(process) else process.plan

    def pool_settings(self, plan: Plan, pool: str) -> Mapping[str, Any] | None:
        """Return a pool's settings with the operator's override in them; None for units without a pool."""
        settings: Mapping[str, Any] | None = plan.pools.get(pool)
        override = self.overrides.get(pool)
        if settings is None or override is None:
            return settings
        size = {"min": override.executors, "max": override.executors}
        return {**settings, "executors": size}

    def keeper(self) -> Process | None:
        """Return the keeper that is ready, the newest if two are."""
        ready = [p for p in self.roster.of_role(Role.KEEPER) if p.fills and p.ready_mono is not None]
        return ready[-1] if ready else None
