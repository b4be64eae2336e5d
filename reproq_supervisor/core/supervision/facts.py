"""Facts: everything the supervisor can learn. The loop turns descriptors, signals and clocks into these and nothing else."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

from reproq_supervisor.core.supervision.units import Serial

ClientId = NewType("ClientId", int)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process that became our child because its parent died. *command* is the name the kernel has for it."""

    pid: int
    command: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened, but time went on."""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The process that `Spawn` asked for exists."""

    serial: Serial
    pid: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class ChildNotStarted:
    """The operating system refused to start it."""

    serial: Serial
    reason: str


@dataclass(frozen=True, slots=True)
class ChildSaid:
    """A frame from a child's channel."""

    serial: Serial
    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChildExited:
    """A child of ours was reaped, after everything it had said was read.

    Attributes:
      code: exit code, or None when a signal ended it.
      signal: name (`SIGKILL`) of that signal.
      orphans: our children that are unknown so far, looked up after the child was reaped: what it left behind.
    """

    serial: Serial
    code: int | None
    signal: str | None = None
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class OrphansFound:
    """Unknown children of ours turned up outside of any reaping."""

    orphans: tuple[Orphan, ...]


@dataclass(frozen=True, slots=True)
class OrphanReaped:
    """A child that we did not start was reaped. Its own orphans come with it."""

    pid: int
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkersFoundDead:
    """Workers, of an earlier daemon too, that are proved to be dead with everything that could run a task under their ids."""

    worker_ids: tuple[str, ...]


class SignalName(StrEnum):
    """Signals that mean something to the supervisor, or that it sends."""

    TERM = "TERM"
    INT = "INT"
    QUIT = "QUIT"
    HUP = "HUP"
    USR1 = "USR1"
    USR2 = "USR2"
    KILL = "KILL"


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """One or more of this signal arrived since the last look: signals coalesce, so they are never counted."""

    signal: SignalName


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A client of the control socket asks something."""

    client: ClientId
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """A client closed its connection, or was cut off."""

    client: ClientId


Fact = (
    Tick
    | ChildStarted
    | ChildNotStarted
    | ChildSaid
    | ChildExited
    | OrphansFound
    | OrphanReaped
    | WorkersFoundDead
    | SignalReceived
    | RequestReceived
    | ClientLeft
)
