"""The end of the daemon: one phase after the other, within its time."""

from reproq_supervisor.core.policy.shutdown import NEXT, ROLES, Phase
from reproq_supervisor.core.supervision import filling, rolling
from reproq_supervisor.core.supervision.commands import Exit, Notify
from reproq_supervisor.core.supervision.events import StopPhaseEntered, SupervisorStopped, SupervisorStopping
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State, Stopping
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS

RELEASE_WAIT_S = 2.0
"""How long the keeper is kept for the leases of shards that died while draining."""

UNKILLABLE_S = 5.0
"""A process that outlives KILL by this much sits in the kernel; the end does not wait for it."""


def begin(state: State, why: str, now: float, *, quick: bool, code: int = 0) -> None:
    """Begin the end, or make one that is under way quick."""
    if state.stopping is None:
        deadline = now + state.plan.shutdown_timeout_s
        state.stopping = Stopping(why, now, deadline, code=code, phase_mono=now)
        state.emit(SupervisorStopping(why, quick))
        state.do(Notify((("STOPPING", "1"), ("STATUS", f"stopping: {why}"))))
        rolling.abort(state, now)
        # Those that were draining for another reason get less time now.
        _hurry(state, now)
    if quick and not state.stopping.quick:
        state.stopping.quick = True
        state.emit(SupervisorStopping(why, True))
        _hurry(state, now)


def _hurry(state: State, now: float) -> None:
    assert state.stopping is not None
    for process in state.roster:
        one_shot = process.unit.role in ONE_SHOTS and process.state is ProcessState.BOOTING
        if one_shot or process.state is ProcessState.DRAINING:
            filling.ask_to_leave(state, process, now)


def advance(state: State, now: float) -> None:
    """Enter the next phase when the present one has nothing left, and leave after the last."""
    stopping = state.stopping
    if stopping is None or state.exited:
        return
    while stopping.phase is not Phase.OVER and not _holds(state, stopping, now):
        stopping.phase, stopping.phase_mono = NEXT[stopping.phase], now
        state.emit(StopPhaseEntered(stopping.phase.value))
        filling.fill(state, now)
    if stopping.phase is Phase.OVER:
        state.exited = True
        state.emit(SupervisorStopped(stopping.code))
        state.do(Exit(stopping.code))


def _holds(state: State, stopping: Stopping, now: float) -> bool:
    """Does something keep us in the present phase?"""
    if any(process.unit.role in ROLES[stopping.phase] and not _given_up(process, now) for process in state.roster):
        return True
    if stopping.phase is not Phase.SHARDS or stopping.quick or not state.dead_workers or state.keeper() is None:
        return False
    return now < state.dead_workers.last_mono + RELEASE_WAIT_S


def _given_up(process: Process, now: float) -> bool:
    return process.killed_mono is not None and now >= process.killed_mono + UNKILLABLE_S
