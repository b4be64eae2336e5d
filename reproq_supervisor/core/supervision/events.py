"""What the supervisor tells the log and `events`. Names and fields are documented API."""

from dataclasses import dataclass
from typing import Any, ClassVar

from reproq_supervisor.core.events import Event, Level


@dataclass(frozen=True, slots=True)
class SupervisorStarted(Event):
    name: ClassVar[str] = "supervisor.started"
    pid: int
    version: str
    path: str | None


@dataclass(frozen=True, slots=True)
class SupervisorReady(Event):
    name: ClassVar[str] = "supervisor.became_ready"
    boot_s: float


@dataclass(frozen=True, slots=True)
class SupervisorStopping(Event):
    name: ClassVar[str] = "supervisor.stopping"
    why: str
    quick: bool


@dataclass(frozen=True, slots=True)
class StopPhaseEntered(Event):
    name: ClassVar[str] = "supervisor.stop_phase_entered"
    phase: str


@dataclass(frozen=True, slots=True)
class MemoryMeasured(Event):
    """What all processes take: resident (shared pages count in each), and their share of the machine's memory (None: not readable)."""

    name: ClassVar[str] = "memory.measured"
    rss_bytes: int
    pss_bytes: int | None
    kinds: dict[str, dict[str, int | None]]


@dataclass(frozen=True, slots=True)
class SupervisorStopped(Event):
    name: ClassVar[str] = "supervisor.stopped"
    code: int


@dataclass(frozen=True, slots=True)
class SupervisorOverslept(Event):
    """The loop itself stood still: the host was suspended or starved, or somebody froze us. Nobody is killed for it."""

    name: ClassVar[str] = "supervisor.overslept"
    level: ClassVar[Level] = Level.WARNING
    slept_s: float


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    name: ClassVar[str] = "process.started"
    child: str
    pid: int
    generation: int


@dataclass(frozen=True, slots=True)
class ProcessNotStarted(Event):
    name: ClassVar[str] = "process.not_started"
    level: ClassVar[Level] = Level.ERROR
    child: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessReady(Event):
    name: ClassVar[str] = "process.became_ready"
    child: str
    pid: int
    generation: int
    boot_s: float


@dataclass(frozen=True, slots=True)
class ProcessFailed(Event):
    """The process itself says why it cannot boot."""

    name: ClassVar[str] = "process.failed"
    level: ClassVar[Level] = Level.ERROR
    child: str
    pid: int
    reason: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class ProcessDraining(Event):
    name: ClassVar[str] = "process.draining"
    child: str
    pid: int
    generation: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ProcessCondemned(Event):
    """The supervisor will kill it."""

    name: ClassVar[str] = "process.condemned"
    level: ClassVar[Level] = Level.WARNING
    child: str
    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class ProcessExited(Event):
    name: ClassVar[str] = "process.exited"
    child: str
    pid: int
    generation: int
    cause: str
    kind: str


@dataclass(frozen=True, slots=True)
class ProcessCrashed(ProcessExited):
    """Like `ProcessExited`, for exits that nobody asked for."""

    level: ClassVar[Level] = Level.WARNING


@dataclass(frozen=True, slots=True)
class ProcessStalled(Event):
    """It lives, it has work, and nothing gets finished."""

    name: ClassVar[str] = "process.stalled"
    level: ClassVar[Level] = Level.WARNING
    child: str
    pid: int
    running: int
    stalled_s: float


@dataclass(frozen=True, slots=True)
class MessageIgnored(Event):
    name: ClassVar[str] = "process.message_ignored"
    level: ClassVar[Level] = Level.WARNING
    child: str
    reason: str


@dataclass(frozen=True, slots=True)
class HungSpared(Event):
    """So many fell silent at once that the host is suspected: nobody is killed for one window."""

    name: ClassVar[str] = "processes.spared"
    level: ClassVar[Level] = Level.WARNING
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class GroupQuarantined(Event):
    name: ClassVar[str] = "group.quarantined"
    level: ClassVar[Level] = Level.ERROR
    group: str
    count: int
    window_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GroupRefused(Event):
    name: ClassVar[str] = "group.refused"
    level: ClassVar[Level] = Level.ERROR
    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class GroupProbed(Event):
    name: ClassVar[str] = "group.probed"
    group: str
    child: str


@dataclass(frozen=True, slots=True)
class GroupRecovered(Event):
    name: ClassVar[str] = "group.recovered"
    group: str


@dataclass(frozen=True, slots=True)
class OrphanKilled(Event):
    name: ClassVar[str] = "orphan.killed"
    level: ClassVar[Level] = Level.WARNING
    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class DeadWorkersReleased(Event):
    name: ClassVar[str] = "workers.released"
    workers: int
    count: int


@dataclass(frozen=True, slots=True)
class PoolScaled(Event):
    name: ClassVar[str] = "pool.scaled"
    pool: str
    executors: int | None
    for_s: float | None


@dataclass(frozen=True, slots=True)
class PoolPaused(Event):
    name: ClassVar[str] = "pool.paused"
    pool: str


@dataclass(frozen=True, slots=True)
class PoolResumed(Event):
    name: ClassVar[str] = "pool.resumed"
    pool: str


@dataclass(frozen=True, slots=True)
class ReloadStarted(Event):
    name: ClassVar[str] = "reload.started"
    why: str


@dataclass(frozen=True, slots=True)
class ReloadCanarying(Event):
    name: ClassVar[str] = "reload.canarying"
    generation: int
    pools: str


@dataclass(frozen=True, slots=True)
class ReloadCommitted(Event):
    name: ClassVar[str] = "reload.committed"
    generation: int
    changes: int


@dataclass(frozen=True, slots=True)
class ReloadEnded(Event):
    name: ClassVar[str] = "reload.ended"
    generation: int
    changed: bool


@dataclass(frozen=True, slots=True)
class ReloadRefused(Event):
    name: ClassVar[str] = "reload.refused"
    level: ClassVar[Level] = Level.ERROR
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChildEvent(Event):
    """An event of a child, passed on."""

    name: ClassVar[str] = "child.event"
    child: str
    pid: int
    event: dict[str, Any]
