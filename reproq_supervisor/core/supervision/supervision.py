"""The supervisor's one step: take a fact, look at the time, reconcile, say what to do."""

from typing import assert_never

from reproq_supervisor.core.supervision import (
    deadlines,
    deaths,
    ending,
    filling,
    hearing,
    manager,
    readiness,
    requests,
    rolling,
    telling,
)
from reproq_supervisor.core.supervision.answers import state_word, status
from reproq_supervisor.core.supervision.commands import Command, DumpState, ReopenLog, Spawn
from reproq_supervisor.core.supervision.events import SupervisorStarted
from reproq_supervisor.core.supervision.facts import (
    ChildExited,
    ChildNotStarted,
    ChildSaid,
    ChildStarted,
    ClientLeft,
    Fact,
    OrphanReaped,
    OrphansFound,
    RequestReceived,
    SignalName,
    SignalReceived,
    Tick,
    WorkersFoundDead,
)
from reproq_supervisor.core.supervision.messages import DUMP, REOPEN
from reproq_supervisor.core.supervision.operation import Wish
from reproq_supervisor.core.supervision.plan import Plan, Settings
from reproq_supervisor.core.supervision.state import Classify, State
from reproq_supervisor.core.supervision.units import Role

_ROUTINE = frozenset({"beat", "snapshot", "event"})


class Supervision:
    """Decides everything and does nothing; the loop, or a simulated world, does what `step` returns.

    The same facts, times and jitters always give the same commands.
    """

    def __init__(self, settings: Settings, classify: Classify, *, pid: int, version: str, now: float) -> None:
        plan = Plan(settings)
        self.state = State(plan, pid, now, classify, version=version, prepared=plan.embedded is None)
        self.state.release = settings["runtime"].get("release")
        self.state.emit(SupervisorStarted(pid, version, settings["runtime"].get("config_path")))

    def step(self, fact: Fact, now: float, jitter: float) -> list[Command]:
        """Take *fact*, reconcile, and return the commands in their order.

        Deadlines are looked at by a `Tick` only, and that comes last of what is known at a time: nobody is silent whose word is waiting.

        Args:
          now: monotonic seconds.
          jitter: drawn from [0, 1) for this step.
        """
        state = self.state
        if now < state.wake_at and _is_routine(fact):
            # A sign of life only moves deadlines away: what the last step found still holds.
            self._take(fact, now, jitter)
            return self._collect()
        deadlines.forgive_oversleep(state, now)
        self._take(fact, now, jitter)
        if isinstance(fact, Tick):
            deadlines.check(state, now, jitter)
        rolling.advance(state, now)
        filling.fill(state, now)
        telling.tell_keeper(state)
        readiness.check_up(state, now)
        ending.advance(state, now)
        manager.ask_for_patience(state, now)
        state.wake_at = deadlines.next_look(state, now)
        return self._collect()

    def _collect(self) -> list[Command]:
        commands, self.state.outbox = self.state.outbox, []
        return commands

    def plan_for(self, command: Spawn) -> Plan:
        """Return the plan that a process to be started belongs to."""
        process = self.state.roster.get(command.serial)
        return self.state.plan if process is None else self.state.plan_of(process)

    @property
    def title(self) -> str:
        """What a list of processes shows."""
        return f"reproq: supervisor ({state_word(self.state)}, {sum(process.alive for process in self.state.roster)} children)"

    @property
    def wake_at(self) -> float:
        """When the next step is due even if nothing happens, in monotonic seconds."""
        return self.state.wake_at

    def _take(self, fact: Fact, now: float, jitter: float) -> None:
        state = self.state
        match fact:
            case Tick():
                pass
            case ChildStarted() | ChildNotStarted() | ChildSaid() | ChildExited():
                self._take_child(fact, now, jitter)
            case OrphansFound():
                deaths.orphans_found(state, fact.orphans)
            case OrphanReaped():
                deaths.orphan_reaped(state, fact, now)
            case WorkersFoundDead():
                for worker_id in fact.worker_ids:
                    state.dead_workers.add(worker_id, now)
            case SignalReceived():
                self._take_signal(fact.signal, now)
            case RequestReceived():
                requests.handle(state, fact, now)
            case ClientLeft():
                requests.forget_client(state, fact.client)
            case _:
                assert_never(fact)

    def _take_child(self, fact: ChildStarted | ChildNotStarted | ChildSaid | ChildExited, now: float, jitter: float) -> None:
        process = self.state.roster.get(fact.serial)
        if process is None:
            return
        match fact:
            case ChildStarted():
                filling.child_started(self.state, process, fact, now)
            case ChildNotStarted():
                deaths.child_not_started(self.state, process, fact, now, jitter)
            case ChildSaid() if process.alive:
                hearing.hear(self.state, process, fact.message, now)
            case ChildExited():
                deaths.child_exited(self.state, process, fact, now, jitter)

    def _take_signal(self, signal: SignalName, now: float) -> None:
        state = self.state
        match signal:
            case SignalName.TERM | SignalName.INT | SignalName.QUIT:
                again = state.stopping is not None and signal is SignalName.INT
                ending.begin(state, f"received {signal.value}", now, quick=again or signal is SignalName.QUIT)
            case SignalName.HUP:
                if state.stopping is None:
                    state.wishes.append(Wish(None))
            case SignalName.USR1:
                state.do(ReopenLog())
                telling.tell_all(state, REOPEN, Role.POSTGRES)
            case SignalName.USR2:
                state.do(DumpState(status(state, now)))
                telling.tell_all(state, DUMP)
            case SignalName.KILL:
                pass


def _is_routine(fact: Fact) -> bool:
    return isinstance(fact, ChildSaid) and fact.message.get("type") in _ROUTINE
