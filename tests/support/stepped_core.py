"""The supervisor's core, stepped by hand: the test gives every fact, time and jitter.

The simulated world of `tests/sim` draws them; here each is chosen, so that a deadline can be asked about just before and just after it.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from reproq_supervisor.core.events import Event
from reproq_supervisor.core.supervision.commands import Command, Emit, Exit, Notify, Reply, Send, Signal, Spawn
from reproq_supervisor.core.supervision.facts import (
    ChildExited,
    ChildNotStarted,
    ChildSaid,
    ChildStarted,
    ClientId,
    Fact,
    Orphan,
    RequestReceived,
    SignalName,
    SignalReceived,
    Tick,
)
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.supervision import Supervision
from reproq_supervisor.core.supervision.units import Role
from reproq_supervisor.settings.changes import classify
from tests.sim.settings import settings

C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
SPEAKING = (Role.SHARD, Role.KEEPER, Role.POSTGRES)
LATE_S = 1e-5
"""A loop is never woken exactly on time; sums of times are not exact either."""

CONFIG_PATH = "/etc/reproq.yaml"


class SteppedCore:
    """The core and everything it commanded, with the time of each command.

    Attributes:
      refusing: names of units that the operating system does not start.
      silent: serials that say nothing while time goes by; all others beat.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, *, now: float = 5000.0) -> None:
        self.now = now
        self.history: list[tuple[float, Command]] = []
        self.refusing: set[str] = set()
        self.silent: set[int] = set()
        self._clients = 0
        self.core = Supervision(given or settings(), classify, pid=1, version="0", now=now)
        self.step()

    @property
    def state(self) -> State:
        return self.core.state

    # -- time and facts -------------------------------------------------------

    def step(self, fact: Fact | None = None, jitter: float = 0.0) -> list[Command]:
        """Give the core one fact now; what it wants to be started starts at once. Return its commands."""
        commands = self.core.step(fact or Tick(), self.now, jitter)
        self.history += [(self.now, command) for command in commands]
        for command in commands:
            if isinstance(command, Spawn):
                commands = commands + self._spawn(command)
        return commands

    def _spawn(self, command: Spawn) -> list[Command]:
        if command.unit.name in self.refusing:
            return self.step(ChildNotStarted(command.serial, "no memory"))
        pid = 100 + command.serial
        return self.step(ChildStarted(command.serial, pid, f"host-{pid}"))

    def wait(self, seconds: float) -> list[Command]:
        """Let time go by, the core being woken whenever it asked to be and living children beating; return its commands."""
        end, since = self.now + seconds, len(self.history)
        while self.core.wake_at <= end + LATE_S and not self.state.exited:
            self.now = max(self.now, self.core.wake_at) + LATE_S
            self._beat()
            self.step()
        self.now = max(self.now, end)
        self._beat()
        return [command for _, command in self.history[since:]]

    def _beat(self) -> None:
        for process in self.state.roster:
            if process.alive and process.hello_mono is not None and process.serial not in self.silent:
                self.say(process, "beat")

    # -- children -------------------------------------------------------------

    def process(self, name: str) -> Process:
        """Return the newest process of that unit."""
        return [process for process in self.state.roster if process.unit.name == name][-1]

    def names(self) -> list[str]:
        """Return the units of all processes that are not gone, in the order of their starts."""
        return [process.unit.name for process in self.state.roster]

    def say(self, process: Process, kind: str, **fields: Any) -> list[Command]:
        """Let a child say something."""
        return self.step(ChildSaid(process.serial, {"type": kind, **fields}))

    def make_ready(self, *names: str) -> None:
        """Let the newest processes of these units say hello and become ready."""
        for name in names:
            process = self.process(name)
            self.say(process, "hello", pid=process.pid)
            self.say(process, "ready")

    def make_all_ready(self) -> None:
        """Let every process that boots become ready."""
        for process in self.state.roster:
            if process.unit.role in SPEAKING and process.ready_mono is None:
                self.make_ready(process.unit.name)

    def exit(
        self, process: Process, code: int | None = 0, signal: str | None = None, *, orphans: tuple[Orphan, ...] = (), jitter: float = 0.0
    ) -> list[Command]:
        """Let a child end."""
        return self.step(ChildExited(process.serial, code, signal, orphans), jitter)

    # -- people ---------------------------------------------------------------

    def ask(self, command: str, **fields: Any) -> ClientId:
        """Let a new client ask something."""
        self._clients += 1
        client = ClientId(self._clients)
        self.step(RequestReceived(client, {"command": command, **fields}))
        return client

    def answer(self, client: ClientId) -> dict[str, Any] | None:
        """Return what a client was answered, None when it still waits."""
        answers = [command.message for command in self.all(Reply) if command.client == client]
        assert len(answers) <= 1, answers
        return answers[0] if answers else None

    def asked(self, command: str, **fields: Any) -> dict[str, Any]:
        """Ask something that is answered at once, and return the answer."""
        answer = self.answer(self.ask(command, **fields))
        assert answer is not None
        return answer

    def signal(self, name: SignalName) -> list[Command]:
        """Let a signal arrive."""
        return self.step(SignalReceived(name))

    def load(self, found: Mapping[str, Any] | list[dict[str, Any]], **fields: Any) -> None:
        """Let the loader answer with settings or with problems, and end."""
        loader = self.process("loader")
        if isinstance(found, list):
            self.say(loader, "problems", problems=found, source=CONFIG_PATH)
        else:
            self.say(loader, "settings", settings=found, **fields)
        self.exit(loader, 0)

    # -- what it did ----------------------------------------------------------

    def all(self, kind: type[C]) -> list[C]:
        """Return every command of that kind so far."""
        return [command for _, command in self.history if isinstance(command, kind)]

    def events(self, kind: type[E]) -> list[E]:
        """Return every event of that kind so far."""
        return [command.event for command in self.all(Emit) if isinstance(command.event, kind)]

    def sent(self, process: Process, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the messages to a child, of one type if named."""
        return [c.message for c in self.all(Send) if c.serial == process.serial and kind in (None, c.message["type"])]

    def signals(self, process: Process) -> list[SignalName]:
        """Return the signals to a child."""
        return [command.signal for command in self.all(Signal) if command.serial == process.serial]

    def starts(self, name: str) -> list[float]:
        """Return when processes of that unit were started."""
        return [at for at, command in self.history if isinstance(command, Spawn) and command.unit.name == name]

    def notes(self) -> list[dict[str, str]]:
        """Return what the service manager was told."""
        return [dict(command.fields) for command in self.all(Notify)]

    @property
    def exit_code(self) -> int | None:
        """Return the code it left with, None while it has not."""
        return next((command.code for command in self.all(Exit)), None)


def running(given: Mapping[str, Any] | None = None) -> SteppedCore:
    """Return a core whose every process is ready."""
    core = SteppedCore(given)
    core.make_all_ready()
    return core
