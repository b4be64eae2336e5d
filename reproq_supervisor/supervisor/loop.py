"""The supervisor's loop: waits for descriptors, signals and time, hands facts to the core, carries out its commands.

It decides nothing. Everything that could block is somewhere else: reading the configuration, the database, the application.
"""

import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import assert_never

from reproq_supervisor.core.supervision.commands import (
    AskStacks,
    Command,
    ConfigureLog,
    DumpState,
    Emit,
    Exit,
    ForgetWorkers,
    KillOrphan,
    Notify,
    ReopenLog,
    Reply,
    Send,
    Signal,
    Spawn,
    Watch,
)
from reproq_supervisor.core.supervision.facts import ClientLeft, Fact, Tick
from reproq_supervisor.core.supervision.supervision import Supervision
from reproq_supervisor.process.title import ProcessTitle
from reproq_supervisor.supervisor.children import Child, Children
from reproq_supervisor.supervisor.control import Client, Control
from reproq_supervisor.supervisor.dump import dump_lines
from reproq_supervisor.supervisor.feed import Feed
from reproq_supervisor.supervisor.marks import Marks
from reproq_supervisor.supervisor.memory_log import MemoryLog
from reproq_supervisor.supervisor.notify import Notifier, notify_environment
from reproq_supervisor.supervisor.orphans import Orphans
from reproq_supervisor.supervisor.signals import SignalFlags
from reproq_supervisor.telemetry.log import Log

LOOK_FOR_ORPHANS_S = 5.0
FAREWELL_S = 0.25
DEAF_S = 1.0
"""How long no connection is taken after one for which no descriptor was left."""
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Loop:
    """One thread, one selector. Every descriptor's key carries the function that turns it into facts."""

    def __init__(
        self,
        core: Supervision,
        children: Children,
        orphans: Orphans,
        marks: Marks,
        control: Control,
        signals: SignalFlags,
        notifier: Notifier,
        log: Log,
    ) -> None:
        self._core = core
        self._children = children
        self._orphans = orphans
        self._marks = marks
        self._control = control
        self._signals = signals
        self._notifier = notifier
        self._log = log
        self._feed = Feed(log, control)
        self._selector = selectors.DefaultSelector()
        self._facts: deque[Fact] = deque()
        self._started: list[Fact] = []
        self._title = ProcessTitle()
        self._exit_code: int | None = None
        self._orphans_mono = 0.0
        self._watchdog_mono = 0.0
        self._deaf_until: float | None = None
        self._memory = MemoryLog(notify_environment(), orphans)

    def run(self) -> int:
        """Supervise until the core says exit; return the exit code."""
        self._selector.register(self._signals.wake_fd, _READ, self._on_nothing)
        self._selector.register(self._control.listener, _READ, self._on_connection)
        self._facts.append(Tick())
        while self._exit_code is None:
            # What a step leads to waits for the next round: however much there is to do, signals are looked at in between.
            for _ in range(len(self._facts)):
                self._step(self._facts.popleft())
            if self._exit_code is None and time.monotonic() >= self._core.wake_at:
                self._step(Tick())
            if self._exit_code is None:
                self._wait()
        self._say_farewell()
        return self._exit_code

    # -- facts in -----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for something to happen, or for the core's next deadline."""
        timeout_s = 0.0 if self._facts else max(0.0, self._core.wake_at - time.monotonic())
        if self._notifier.watchdog_s is not None:
            timeout_s = min(timeout_s, self._notifier.watchdog_s / 2.0)
        ready = self._selector.select(timeout_s)
        self._facts.extend(self._signals.take())
        for key, mask in ready:
            # Another reaction of this round may have closed it, and its number may be somebody else's by now.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                react: Callable[[int], None] = key.data
                react(mask)
        if self._signals.take_child_died():
            self._facts.extend(self._orphans.reap())
        self._keep_house()

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._orphans_mono >= LOOK_FOR_ORPHANS_S:
            self._orphans_mono = now
            self._facts.extend(self._orphans.look())
        self._facts.extend(self._marks.look(now))
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None and now - self._watchdog_mono >= watchdog_s:
            self._watchdog_mono = now
            self._notifier.tell((("WATCHDOG", "1"),))
        if (pidfd := self._memory.start_if_due(now)) is not None:
            self._selector.register(pidfd, _READ, lambda mask: self._on_measured(pidfd))
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            self._selector.register(self._control.listener, _READ, self._on_connection)
        self._title.set(self._core.title)
        for client in self._control:
            if self._control.is_over(client, now):
                self._part(client)
        self._log.flush()

    def _on_measured(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        measured = self._memory.collect()
        if measured is not None:
            self._feed.take(measured, time.monotonic())

    def _on_nothing(self, mask: int) -> None:
        """The wake-up pipe: `take` empties it."""

    def _on_connection(self, mask: int) -> None:
        client = self._control.accept(time.monotonic())
        if self._control.is_exhausted:
            # Whoever waits would wake us again and again, and nothing but time helps.
            self._unregister(self._control.listener.fileno())
            self._deaf_until = time.monotonic() + DEAF_S
        if client is not None:
            self._selector.register(client.wire.sock, _READ, lambda mask: self._on_client(client, mask))

    def _on_client(self, client: Client, mask: int) -> None:
        if mask & _WRITE:
            client.wire.flush()
            client.since_mono = time.monotonic()
        if mask & _READ:
            self._facts.extend(self._control.hear(client, time.monotonic()))
        self._watch_client(client)

    def _on_channel(self, child: Child, mask: int) -> None:
        if mask & _WRITE:
            child.wire.flush()
        if mask & _READ:
            self._facts.extend(self._children.hear(child))
        self._watch_channel(child)

    def _on_death(self, child: Child) -> None:
        facts = self._children.reap(child)
        self._facts.extend(facts)
        if child not in self._children:
            self._selector.unregister(child.pidfd)
            self._unregister(child.wire.sock.fileno())
            self._children.close(child)

    # -- commands out -------------------------------------------------------------------------------------------------

    def _step(self, fact: Fact) -> None:
        for command in self._core.step(fact, time.monotonic(), _draw()):
            self._obey(command)
        # Before anything that the children themselves may say, in the order of their start.
        self._facts.extendleft(reversed(self._started))
        self._started.clear()

    def _obey(self, command: Command) -> None:
        match command:
            case Spawn():
                self._spawn(command)
            case Send():
                child = self._children.send(command)
                if child is not None:
                    self._watch_channel(child)
            case Signal() | AskStacks():
                self._children.signal(command)
            case KillOrphan():
                self._orphans.kill(command.pid)
            case ForgetWorkers():
                self._marks.forget(command.worker_ids)
            case Reply():
                client = self._control.reply(command.client, command.message, time.monotonic(), last=command.last)
                if client is not None:
                    self._watch_client(client)
            case Watch():
                self._feed.watch(command.client, time.monotonic(), follow=command.follow)
            case Notify():
                self._notifier.tell(command.fields)
            case Emit():
                self._feed.take(command.event, time.monotonic())
            case ConfigureLog():
                self._log.configure(command.settings, notify_environment())
            case ReopenLog():
                self._log.reopen()
            case DumpState():
                self._log.write_lines(dump_lines(command.state))
            case Exit():
                self._exit_code = command.code
            case _:
                assert_never(command)

    def _spawn(self, command: Spawn) -> None:
        child, fact = self._children.spawn(command, self._core.plan_for(command))
        if child is not None:
            self._selector.register(child.pidfd, _READ, lambda mask: self._on_death(child))
            self._selector.register(child.wire.sock, _READ, lambda mask: self._on_channel(child, mask))
        self._started.append(fact)

    def _say_farewell(self) -> None:
        """Give clients a moment to take their last answer, and the log to take its last lines."""
        self._memory.kill()
        deadline = time.monotonic() + FAREWELL_S
        while any(client.wire.unsent for client in self._control) and time.monotonic() < deadline:
            for key, mask in self._selector.select(max(0.0, deadline - time.monotonic())):
                if mask & _WRITE:
                    key.data(mask)
        for client in self._control:
            self._part(client)
        self._log.flush()
        self._selector.close()

    # -- interest -----------------------------------------------------------------------------------------------------

    def _watch_channel(self, child: Child) -> None:
        """Listen to a channel until it ends, and write to it while something is unsent."""
        fd = child.wire.sock.fileno()
        if child.wire.ended:
            self._unregister(fd)
            return
        key = self._selector.get_map().get(fd)
        events = _READ | (_WRITE if child.wire.unsent else 0)
        if key is not None and key.events != events:
            self._selector.modify(fd, events, key.data)

    def _watch_client(self, client: Client) -> None:
        if self._control.is_over(client, time.monotonic()):
            self._part(client)
            return
        key = self._selector.get_map().get(client.wire.sock.fileno())
        # One that has asked and is not following has nothing more to say, but its leaving is of interest.
        events = _READ | (_WRITE if client.wire.unsent else 0)
        if key is not None and key.events != events:
            self._selector.modify(client.wire.sock, events, key.data)

    def _part(self, client: Client) -> None:
        if client.wire.sock.fileno() >= 0:
            self._unregister(client.wire.sock.fileno())
            self._facts.append(ClientLeft(client.number))
            self._control.close(client)

    def _unregister(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)


def _draw() -> float:
    """Return a number from [0, 1); the `random` module is more than that needs in a process that stays small."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
