"""A simulated operating system and clock around the supervisor's real core.

The world carries out commands and feeds facts back, in an order and at times drawn from one seed; nothing in it reads a clock or starts
a process, so a thousand scripts take seconds and every one can be replayed.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reproq_supervisor.core.supervision.commands import (
    AskStacks,
    Command,
    Emit,
    Exit,
    KillOrphan,
    Notify,
    Reply,
    Send,
    Signal,
    Spawn,
)
from reproq_supervisor.core.supervision.facts import (
    ChildExited,
    ChildNotStarted,
    ChildSaid,
    ChildStarted,
    ClientId,
    Fact,
    Orphan,
    OrphanReaped,
    RequestReceived,
    SignalName,
    Tick,
)
from reproq_supervisor.core.supervision.plan import Settings
from reproq_supervisor.core.supervision.supervision import Supervision
from reproq_supervisor.core.supervision.units import Role, Serial, Unit
from reproq_supervisor.settings.changes import classify
from tests.sim.behaviour import GOOD, NEVER, Behaviour

DEATH_TAKES_S = 0.05
"""From a kill until the dead can be reaped, at most."""
SPEAKING = (Role.SHARD, Role.KEEPER, Role.POSTGRES)


@dataclass
class SimChild:
    """A process of the simulated machine."""

    serial: Serial
    unit: Unit
    generation: int
    pid: int
    started: float
    behaviour: Behaviour
    worker_id: str
    alive: bool = True
    ready: bool = False
    frozen: bool = False
    asked: bool = False
    killed_at: float | None = None
    nursery: int = 0

    @property
    def answers(self) -> bool:
        return self.alive and not self.frozen


@dataclass
class World:
    """One run. *settings_on_disk* is what a reload would read: settings, or problems, or None for a loader that dies."""

    seed: int
    settings: Settings
    behave: Callable[[Unit, int], Behaviour] = lambda unit, generation: GOOD
    children: dict[Serial, SimChild] = field(default_factory=dict)
    orphans: dict[int, Serial] = field(default_factory=dict)
    killed_orphans: set[int] = field(default_factory=set)
    sent: list[tuple[float, Send]] = field(default_factory=list)
    replies: dict[ClientId, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    events: list[tuple[float, Any]] = field(default_factory=list)
    spawned: list[tuple[float, Spawn]] = field(default_factory=list)
    exit_code: int | None = None
    exited_at: float = 0.0
    watchers: list[Callable[["World", Fact, list[Command]], None]] = field(default_factory=list)
    settings_on_disk: Settings | list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        # A clock that does not begin at zero shows code that mixes clocks or forgets to use one.
        self.now = 1_000_000.0 * self.rng.random()
        self.born = self.now
        self._queue: list[tuple[float, int, Callable[[], list[Fact]]]] = []
        self._count = 0
        self._last_pid = 100
        self._last_client = 0
        if self.settings_on_disk is None:
            self.settings_on_disk = self.settings
        self.core = Supervision(self.settings, classify, pid=1, version="0", now=self.now)
        self.feed(Tick())

    # -- time ---------------------------------------------------------------------------------------------------------

    def at(self, delay: float, make: Callable[[], list[Fact]]) -> None:
        """Let *make* give facts after *delay* seconds."""
        if delay == NEVER:
            return
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, make))

    def run(self, seconds: float) -> None:
        """Let that much time go by, or less if the supervisor exits."""
        end = self.now + seconds
        while self.exit_code is None:
            due = self._queue[0][0] if self._queue else NEVER
            wake = max(self.core.wake_at, self.now)
            if min(due, wake) > end:
                self.now = max(self.now, end)
                return
            if due <= wake:
                self.now = max(self.now, due)
                for fact in heapq.heappop(self._queue)[2]():
                    self.feed(fact)
            else:
                # A loop is never exactly on time.
                self.now = wake + self.rng.uniform(0.0, 0.02)
                self.feed(Tick())

    def sleep_supervisor(self, seconds: float) -> None:
        """Let time go by in which the supervisor does not run, though its children may."""
        self.now += seconds

    def until(self, condition: Callable[[], bool], *, within: float) -> bool:
        """Run until *condition* holds; answer whether it came to hold in time."""
        end = self.now + within
        while not condition() and self.now < end and self.exit_code is None:
            self.run(0.05)
        return condition()

    def feed(self, fact: Fact) -> None:
        """Give the core a fact and carry out what it says."""
        if self.exit_code is not None:
            return
        commands = self.core.step(fact, self.now, self.rng.random())
        for command in commands:
            self._obey(command)
        # A step without commands changed nothing that an invariant is about.
        for watch in self.watchers if commands else ():
            watch(self, fact, commands)

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, command: str, **fields: Any) -> ClientId:
        """Let a client ask something."""
        self._last_client += 1
        client = ClientId(self._last_client)
        self.replies[client] = []
        self.feed(RequestReceived(client, {"command": command, **fields}))
        return client

    def living(self, *roles: Role) -> list[SimChild]:
        """Return the processes that are alive, of the roles if any are named."""
        return [child for child in self.children.values() if child.alive and (not roles or child.unit.role in roles)]

    def kill(self, child: SimChild, signal: str = "SIGKILL") -> None:
        """Kill a process from outside."""
        self.at(0.0, lambda: self._exit(child, None, signal))

    # -- the machine --------------------------------------------------------------------------------------------------

    def _obey(self, command: Command) -> None:
        match command:
            case Spawn():
                self.spawned.append((self.now, command))
                self._spawn(command)
            case Send():
                self.sent.append((self.now, command))
                self._take_message(command)
            case Signal():
                self._take_signal(command)
            case AskStacks():
                pass
            case KillOrphan():
                self.killed_orphans.add(command.pid)
                self.at(self.rng.uniform(0.0, DEATH_TAKES_S), lambda: self._reap_orphan(command.pid))
            case Reply():
                self.replies[command.client].append(command.message)
            case Notify():
                self.notes.append((self.now, dict(command.fields)))
            case Emit():
                self.events.append((self.now, command.event))
            case Exit():
                self.exit_code, self.exited_at = command.code, self.now
            case _:
                pass

    def _spawn(self, command: Spawn) -> None:
        behaviour = self.behave(command.unit, command.generation)
        if behaviour.refuses:
            self.at(0.0, lambda: [ChildNotStarted(command.serial, "no memory")])
            return
        self._last_pid += 1
        pid = self._last_pid
        child = SimChild(command.serial, command.unit, command.generation, pid, self.now, behaviour, f"host-{pid}")
        self.children[child.serial] = child
        self._count -= 1_000_000  # its start comes before everything else of this moment
        self.at(0.0, lambda: [ChildStarted(child.serial, child.pid, child.worker_id)])
        self._count += 1_000_000
        if child.unit.role is Role.PREPARE:
            self.at(0.2, lambda: self._exit(child, 0, None))
            return
        if child.unit.role is Role.LOADER:
            self.at(self.rng.uniform(0.05, 0.3), lambda: self._load(child))
            return
        self.at(behaviour.dies_s, lambda: self._exit(child, behaviour.code, behaviour.signal))
        self.at(behaviour.silent_s, lambda: self._freeze(child))
        if child.unit.role in SPEAKING:
            self.at(min(0.1, behaviour.ready_s), lambda: self._say_hello(child))
            self.at(max(0.11, behaviour.ready_s), lambda: self._become_ready(child))

    def _say_hello(self, child: SimChild) -> list[Fact]:
        if not child.answers:
            return []
        self.at(0.5, lambda: self._beat(child))
        facts: list[Fact] = [ChildSaid(child.serial, {"type": "hello", "pid": child.pid})]
        if child.unit.role is Role.SHARD:
            self._last_pid += 1
            child.nursery = self._last_pid
            facts.append(ChildSaid(child.serial, {"type": "nursery", "pid": child.nursery}))
        return facts

    def _become_ready(self, child: SimChild) -> list[Fact]:
        if not child.answers:
            return []
        child.ready = True
        return [ChildSaid(child.serial, {"type": "ready"})]

    def _beat(self, child: SimChild) -> list[Fact]:
        if not child.answers:
            return []
        self.at(1.5, lambda: self._beat(child))
        return [ChildSaid(child.serial, {"type": "beat"})]

    def _freeze(self, child: SimChild) -> list[Fact]:
        child.frozen = True
        return []

    def _load(self, child: SimChild) -> list[Fact]:
        if not child.alive:
            return []
        found = self.settings_on_disk
        if found is None:
            return self._exit(child, 1, None)
        answer = {"type": "problems", "problems": found} if isinstance(found, list) else {"type": "settings", "settings": found}
        self.at(0.01, lambda: self._exit(child, 0, None))
        return [ChildSaid(child.serial, answer)]

    def _take_message(self, command: Send) -> None:
        child = self.children.get(command.serial)
        if child is None or not child.alive:
            return
        kind = command.message["type"]
        if kind in ("drain", "quit") and (not child.asked or child.behaviour.is_good):
            child.asked = True
            drain_s = child.behaviour.drain_s
            if child.behaviour.is_good:
                drain_s = min(drain_s, 0.8 * command.message["within"])  # it heeds the time that it is told, each time
            self.at(drain_s, lambda: self._leave(child))
        elif kind == "release_dead":
            ids = command.message["worker_ids"]
            say = lambda what: [ChildSaid(child.serial, what)] if child.answers else []  # noqa: E731
            self.at(0.05, lambda: say({"type": "released", "worker_ids": ids, "count": 0}))
            self.at(1.05, lambda: say({"type": "settled", "worker_ids": ids}))

    def _leave(self, child: SimChild) -> list[Fact]:
        return self._exit(child, child.behaviour.drain_code, None) if child.answers else []

    def _take_signal(self, command: Signal) -> None:
        child = self.children.get(command.serial)
        if child is None or not child.alive:
            return
        match command.signal:
            case SignalName.KILL:
                child.killed_at = self.now
                self.at(self.rng.uniform(0.0, DEATH_TAKES_S), lambda: self._exit(child, None, "SIGKILL"))
            case SignalName.TERM:
                self.at(0.01, lambda: self._exit(child, None, "SIGTERM") if child.answers else [])
            case SignalName.INT | SignalName.QUIT if child.unit.role is Role.POSTGRES:
                child.asked = True
                delay = child.behaviour.drain_s if command.signal is SignalName.INT else 0.1
                self.at(delay, lambda: self._exit(child, 0, None) if child.answers else [])
            case _:
                pass

    def _exit(self, child: SimChild, code: int | None, signal: str | None) -> list[Fact]:
        if not child.alive:
            return []
        child.alive = False
        left: list[Orphan] = []
        nursery_s = child.behaviour.nursery_s
        if child.nursery and nursery_s is not None:
            self.orphans[child.nursery] = child.serial
            left.append(Orphan(child.nursery, "nursery"))
            self.at(nursery_s, lambda: self._reap_orphan(child.nursery))
        for _ in range(child.behaviour.strangers):
            self._last_pid += 1
            self.orphans[self._last_pid] = child.serial
            left.append(Orphan(self._last_pid, "stranger"))
        return [ChildExited(child.serial, code, signal, tuple(left))]

    def _reap_orphan(self, pid: int) -> list[Fact]:
        if self.orphans.pop(pid, None) is None:
            return []
        return [OrphanReaped(pid)]
