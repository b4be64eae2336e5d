"""The children as the operating system has them: descriptors in, facts out.

    pidfd readable ─► read the channel to its end ─► reap ─► look for orphans ─► ChildExited

In this order: what a child said before its death counts, and what it left behind is ours only once it is dead.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from reproq_supervisor.core.supervision.commands import AskStacks, Send, Signal, Spawn
from reproq_supervisor.core.supervision.facts import (
    ChildExited,
    ChildNotStarted,
    ChildSaid,
    ChildStarted,
    Fact,
)
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.units import Role, Serial
from reproq_supervisor.process.spawn import SpawnedChild, spawn_child
from reproq_supervisor.process.stacks import STACK_SIGNAL
from reproq_supervisor.supervisor.orphans import Orphans
from reproq_supervisor.supervisor.programs import Programs, new_worker_id, parent_environment
from reproq_supervisor.supervisor.wire import Wire, WireError

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_UNSENT_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Child:
    """A running child: its pidfd is ours until it is reaped, its channel until it is closed."""

    serial: Serial
    role: Role
    pid: int
    pidfd: int
    wire: Wire


class Children:
    """Starts, signals, hears and reaps. Every process is known by its pidfd; bare pids are for people and for orphans."""

    def __init__(self, programs: Programs, orphans: Orphans) -> None:
        self._programs = programs
        self._orphans = orphans
        self._by_serial: dict[Serial, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._by_serial.values()))

    def spawn(self, command: Spawn, plan: Plan) -> tuple[Child | None, Fact]:
        """Start the program of a unit; what the operating system refuses is a fact like any other."""
        try:
            spawned = spawn_child(self._programs.argv(command.unit, plan), parent_environment())
        except OSError as error:
            return None, ChildNotStarted(command.serial, str(error))
        child = self._enter(command, spawned)
        return child, ChildStarted(command.serial, child.pid, new_worker_id(child.pid, plan.worker_name))

    def _enter(self, command: Spawn, spawned: SpawnedChild) -> Child:
        wire = Wire(spawned.channel, max_frame_bytes=MAX_FRAME_BYTES, max_unsent_bytes=MAX_UNSENT_BYTES)
        child = Child(command.serial, command.unit.role, spawned.pid, spawned.pidfd, wire)
        self._by_serial[child.serial] = child
        self._orphans.know(child.pid)
        return child

    def send(self, command: Send) -> Child | None:
        """Queue a frame; a child that is gone, or has stopped reading, gets none and is found out by its silence."""
        child = self._by_serial.get(command.serial)
        if child is not None:
            child.wire.send(command.message)
        return child

    def signal(self, command: Signal | AskStacks) -> None:
        """Signal a child through its pidfd: never another process that got its pid."""
        child = self._by_serial.get(command.serial)
        if child is None:
            return
        signum = STACK_SIGNAL if isinstance(command, AskStacks) else signal.Signals[f"SIG{command.signal.value}"]
        try:
            signal.pidfd_send_signal(child.pidfd, signum)
        except ProcessLookupError:
            return  # dead and about to be reaped

    def hear(self, child: Child, *, everything: bool = False) -> list[Fact]:
        """Read what a child has said. One that breaks the protocol loses its channel, which is its order to leave."""
        facts: list[Fact] = []
        try:
            facts += [ChildSaid(child.serial, message) for message in child.wire.read(everything=everything)]
        except WireError as error:
            facts.append(ChildSaid(child.serial, {"type": f"broken ({error})"}))
            child.wire.ended = True
        return facts

    def reap(self, child: Child) -> list[Fact]:
        """Collect a child whose pidfd is readable; nothing when it is not dead after all."""
        facts = self.hear(child, everything=True)
        code: int | None
        signal_name: str | None
        try:
            result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # Somebody reaped it for us. Its pidfd would wake us for ever, and how it ended is not known any more.
            code, signal_name = None, "an unknown signal"
        else:
            if result is None:
                return facts
            code = result.si_status if result.si_code == os.CLD_EXITED else None
            signal_name = None if code is not None else signal_word(result.si_status)
        del self._by_serial[child.serial]
        self._orphans.forget(child.pid)
        return [*facts, ChildExited(child.serial, code, signal_name, self._orphans.find_new())]

    def close(self, child: Child) -> None:
        """Give up the descriptors of a child that was reaped."""
        child.wire.close()
        os.close(child.pidfd)


def signal_word(signum: int) -> str:
    """Return the name of a signal, `signal 34` for those without one."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
