"""One process of ours: what it is for, what we asked of it, what it told us. The roster has them all."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reproq_supervisor.core.policy.budget import Grant
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.states import ALIVE, FILLING, ProcessEvent, ProcessState, advance
from reproq_supervisor.core.supervision.units import Role, Serial, Unit


class Asked(StrEnum):
    """What the supervisor asked of a process; apart from its state, since the asking is ours and the state is its own."""

    NOTHING = "nothing"
    DRAIN = "drain"
    QUIT = "quit"


@dataclass(slots=True)
class Process:
    """A process from its start until everything it left behind is reaped. All times are monotonic seconds.

    Attributes:
      plan: what was wanted when it was started.
      boot_mono: from when its boot deadline counts: its start, then its first word.
      worker_id: `leased_by` of everything this process claims.
      nursery_pid: as told by a shard; reaped by the shard, or by us after the shard's death.
      left_behind: pids adopted from it, not yet reaped.
      kill_at: when to kill it; None while there is no reason to.
      kill_why: why it is killed, for the log and `explain`; empty when it is merely slow to drain.
      told: the settings it was told last.
      grant: its part of what is shared, None for no bound; told_executors: the size it was told with it.
      killed_mono: when KILL was sent.
      hung: it is killed for its own failure, which counts against its pool.
    """

    serial: Serial
    unit: Unit
    generation: int
    plan: Plan
    started_mono: float
    state: ProcessState = ProcessState.STARTING
    asked: Asked = Asked.NOTHING
    pid: int = 0
    worker_id: str = ""
    nursery_pid: int = 0
    left_behind: set[int] = field(default_factory=set)
    hello_mono: float | None = None
    boot_mono: float = 0.0
    ready_mono: float | None = None
    heard_mono: float = 0.0
    exited_mono: float | None = None
    kill_at: float | None = None
    kill_why: str = ""
    killed_mono: float | None = None
    hung: bool = False
    failed_reason: str = ""
    failed_permanently: bool = False
    told: dict[str, Any] = field(default_factory=dict)
    grant: Grant | None = None
    told_executors: int | None = None
    snapshot: dict[str, Any] = field(default_factory=dict)
    progress: int = 0
    progress_mono: float = 0.0
    stalled: bool = False

    def move(self, event: ProcessEvent) -> None:
        """Take *event*; the only place where `state` is assigned."""
        self.state = advance(self.state, event)

    @property
    def fills(self) -> bool:
        """Does it fill its unit?"""
        return self.state in FILLING

    @property
    def alive(self) -> bool:
        """Has it not exited?"""
        return self.state in ALIVE

    @property
    def boot_s(self) -> float:
        """Seconds from start to readiness; 0 before."""
        return self.ready_mono - self.started_mono if self.ready_mono is not None else 0.0


class Roster:
    """All processes that are not gone, by serial."""

    def __init__(self) -> None:
        self._processes: dict[Serial, Process] = {}
        self._last = 0

    def add(self, unit: Unit, generation: int, plan: Plan, now: float) -> Process:
        """Enter a new process, in state STARTING."""
        self._last += 1
        process = Process(Serial(self._last), unit, generation, plan, started_mono=now, boot_mono=now, heard_mono=now)
        self._processes[process.serial] = process
        return process

    def get(self, serial: Serial) -> Process | None:
        """Return the process, or None when it is gone."""
        return self._processes.get(serial)

    def discard(self, process: Process) -> None:
        """Forget a process that is gone."""
        del self._processes[process.serial]

    def __iter__(self) -> Iterator[Process]:
        return iter(tuple(self._processes.values()))

    def __len__(self) -> int:
        return len(self._processes)

    def of_role(self, *roles: Role) -> list[Process]:
        """Return those of the roles, oldest first."""
        return [process for process in self if process.unit.role in roles]

    def filling(self, unit: Unit, generation: int) -> Process | None:
        """Return the process that fills *unit* for *generation*."""
        for process in self:
            if process.unit == unit and process.generation == generation and process.fills:
                return process
        return None
