"""Readiness: of one process, and of the daemon as a whole."""

from reproq_supervisor.core.supervision.commands import Notify
from reproq_supervisor.core.supervision.events import ProcessReady, SupervisorReady
from reproq_supervisor.core.supervision.health import Circuit
from reproq_supervisor.core.supervision.operation import PROBATION_S, OperationPhase
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessEvent, ProcessState
from reproq_supervisor.core.supervision.units import Unit


def become_ready(state: State, process: Process, now: float) -> None:
    """Enter readiness, once."""
    first = process.ready_mono is None
    process.move(ProcessEvent.BECAME_READY)
    if not first:
        return
    process.ready_mono = process.progress_mono = now
    boot_s = round(now - process.started_mono, 3)
    state.emit(ProcessReady(process.unit.name, process.pid, process.generation, boot_s))


def is_ready(state: State, unit: Unit, generation: int) -> bool:
    """Is the unit filled by a process of that generation that is ready?"""
    process = state.roster.filling(unit, generation)
    return process is not None and process.state is ProcessState.READY


def proven_at(state: State) -> float:
    """Return when the canaries of the operation under way will have been ready for long enough, infinity while that is open."""
    operation = state.operation
    if operation is None or operation.phase is not OperationPhase.CANARY:
        return float("inf")
    at = float("-inf")
    for unit in operation.canaries:
        canary = state.roster.filling(unit, operation.generation)
        if canary is None or canary.state is not ProcessState.READY or canary.ready_mono is None:
            return float("inf")
        at = max(at, canary.ready_mono + PROBATION_S)
    return at


def waits_for_database(process: Process) -> bool:
    """Does it say that the database is out of reach? One that has not tried yet has no error to tell, and is only starting."""
    database = process.snapshot.get("database")
    return isinstance(database, dict) and database.get("up") is False and bool(database.get("error"))


def check_up(state: State, now: float) -> None:
    """Declare the daemon ready when each unit was ready, or what keeps it is known.

    Waiting longer for a pool that cannot start, or for a database that is away, would let the service manager kill those that work.
    """
    if state.up or state.stopping is not None or not state.prepared:
        return
    if any(not _is_settled(state, unit) for unit in state.plan.units()):
        return
    state.up = True
    state.emit(SupervisorReady(round(now - state.began_mono, 3)))
    # The pid is news only where a wrapper started us and lets everybody notify.
    state.do(Notify((("READY", "1"), ("MAINPID", str(state.pid)), ("STATUS", "running"))))


def _is_settled(state: State, unit: Unit) -> bool:
    health = state.health(unit)
    if health.circuit is not Circuit.CLOSED or health.of(unit).failures > 0:
        return True
    process = state.roster.filling(unit, state.generation_of(unit))
    return process is not None and (process.state is ProcessState.READY or waits_for_database(process))
