"""The end of the daemon: one phase after the other, within its time."""

from reproq_supervisor.core.policy.shutdown import LEAST_S, NEXT, QUICK_S, ROLES, Phase, divide
from reproq_supervisor.core.supervision import filling, rolling
from reproq_supervisor.core.supervision.commands import Exit, Notify, Signal
from reproq_supervisor.core.supervision.events import StopPhaseEntered, SupervisorStopped, SupervisorStopping
from reproq_supervisor.core.supervision.facts import SignalName
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State, Stopping
from reproq_supervisor.core.supervision.states import ProcessEvent, ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS

RELEASE_WAIT_S = 2.0
"""How long the keeper is kept for the leases of shards that died while draining."""

UNKILLABLE_S = 5.0
"""A process that outlives KILL by this much sits in the kernel; the end does not wait for it, even with time left."""


def begin(state: State, why: str, now: float, *, quick: bool, code: int = 0) -> None:
    """Begin the end, or make one that is under way quick."""
    if state.stopping is None:
        total_s = max(LEAST_S, state.plan.shutdown_timeout_s)
        budget = divide(total_s, embedded=state.plan.embedded is not None)
        state.stopping = Stopping(why, now, now + total_s, budget, code=code, phase_mono=now)
        state.emit(SupervisorStopping(why, quick))
        state.do(Notify((("STOPPING", "1"), ("STATUS", f"stopping: {why}"))))
        rolling.abort(state, now)
        # Those that were draining for another reason get less time now.
        _hurry(state, now)
    if quick and not state.stopping.quick:
        state.stopping.quick = True
        if now + QUICK_S < state.stopping.deadline:
            state.stopping.deadline = now + QUICK_S
            state.stopping.budget = divide(QUICK_S, embedded=state.plan.embedded is not None)
        state.emit(SupervisorStopping(why, True))
        _hurry(state, now)


def _hurry(state: State, now: float) -> None:
    assert state.stopping is not None
    for process in state.roster:
        one_shot = process.unit.role in ONE_SHOTS and process.state is ProcessState.BOOTING
        if one_shot or process.state is ProcessState.DRAINING:
            filling.ask_to_leave(state, process, now)
        elif process.state is ProcessState.LINGERING and process.kill_at is not None:
            process.kill_at = cut_short(state, process.kill_at)


def cut_short(state: State, at_mono: float) -> float:
    """Return *at_mono*, or the moment when those of the present phase are given up if that is sooner."""
    return at_mono if state.stopping is None else min(at_mono, state.stopping.kill_mono(state.stopping.phase))


def advance(state: State, now: float) -> None:
    """Enter the next phase when the present one has nothing left, and leave after the last."""
    stopping = state.stopping
    if stopping is None or state.exited:
        return
    while stopping.phase is not Phase.OVER and not _holds(state, stopping, now):
        _kill_rest(state, stopping.phase, now)
        stopping.phase, stopping.phase_mono = NEXT[stopping.phase], now
        state.emit(StopPhaseEntered(stopping.phase.value))
        filling.fill(state, now)
    if stopping.phase is Phase.OVER and (now >= _leave_mono(stopping) or all(_given_up(process, now) for process in state.roster)):
        state.exited = True
        state.emit(SupervisorStopped(stopping.code))
        state.do(Exit(stopping.code))


def _kill_rest(state: State, phase: Phase, now: float) -> None:
    """Kill who is left of a phase whose time is over: our own lateness may have taken the time of their last warning."""
    for process in state.roster:
        if (
            process.unit.role in ROLES[phase]
            and process.alive
            and process.killed_mono is None
            and process.state is not ProcessState.STARTING
        ):
            process.move(ProcessEvent.KILL_DECIDED)
            process.kill_why = process.kill_why or "did not leave in time after being asked to"
            process.kill_at, process.killed_mono = None, now
            state.do(Signal(process.serial, SignalName.KILL))


def _holds(state: State, stopping: Stopping, now: float) -> bool:
    """Does something keep us in the present phase?"""
    if now < stopping.ends_mono(stopping.phase) and any(
        process.unit.role in ROLES[stopping.phase] and not _given_up(process, now) for process in state.roster
    ):
        return True
    return stopping.phase is Phase.SHARDS and now < _release_mono(state, stopping)


def _release_mono(state: State, stopping: Stopping) -> float:
    """Return until when the keeper is kept for the leases of the dead: it needs the rest of its time to leave."""
    if stopping.quick or not state.dead_workers or state.keeper() is None:
        return float("-inf")
    latest = stopping.ends_mono(Phase.SHARDS) + stopping.budget.keeper_s / 2.0
    return min(latest, state.dead_workers.last_mono + RELEASE_WAIT_S)


def next_look(state: State, now: float) -> float:
    """Return when the present phase may end by time alone, infinity when nothing is ending."""
    stopping = state.stopping
    if stopping is None or state.exited:
        return float("inf")
    moments = (stopping.ends_mono(stopping.phase), _release_mono(state, stopping), _leave_mono(stopping))
    return min((moment for moment in moments if moment > now), default=float("inf"))


def _leave_mono(stopping: Stopping) -> float:
    """Return when we leave, though some that were killed are not reaped yet."""
    return stopping.deadline - stopping.budget.exit_s / 2.0


def _given_up(process: Process, now: float) -> bool:
    since_mono = process.exited_mono or process.killed_mono
    return since_mono is not None and now >= since_mono + UNKILLABLE_S
