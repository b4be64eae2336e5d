"""Commands: everything the supervisor can do. The loop carries them out in order and reports back in facts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.events import Event
from reproq_supervisor.core.supervision.facts import ClientId, SignalName
from reproq_supervisor.core.supervision.units import Serial, Unit


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process; answered by `ChildStarted` or `ChildNotStarted`."""

    serial: Serial
    unit: Unit
    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a frame for a child's channel."""

    serial: Serial
    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal a child through its pidfd."""

    serial: Serial
    signal: SignalName


@dataclass(frozen=True, slots=True)
class AskStacks:
    """Make a child write its stacks to the log, whatever its main thread does."""

    serial: Serial


@dataclass(frozen=True, slots=True)
class KillOrphan:
    """Kill an adopted process; the loop makes sure that it still is our child."""

    pid: int


@dataclass(frozen=True, slots=True)
class ForgetWorkers:
    """The leases of these dead workers were released: nobody needs to find them any more."""

    worker_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Queue a frame for a client; *last* closes the connection behind it."""

    client: ClientId
    message: dict[str, Any]
    last: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """Send a client the latest events, and those to come if it follows."""

    client: ClientId
    follow: bool


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the service manager, all fields in one datagram."""

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Emit:
    """Let telemetry word an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class ConfigureLog:
    """Take the `logs` settings that came with a reload."""

    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReopenLog:
    """Open the log file again (somebody has moved it away)."""


@dataclass(frozen=True, slots=True)
class DumpState:
    """Write the state and the stacks of the loop to the log."""

    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave the loop; nothing of ours is running any more."""

    code: int


Command = (
    Spawn
    | Send
    | Signal
    | AskStacks
    | KillOrphan
    | ForgetWorkers
    | Reply
    | Watch
    | Notify
    | Emit
    | ConfigureLog
    | ReopenLog
    | DumpState
    | Exit
)
