"""Fill every unit that is wanted, drain every process that is not."""

from reproq_supervisor.core.policy.reconcile import Want, reconcile
from reproq_supervisor.core.policy.shutdown import ALONE_S, FLUSH_S, DrainTimes, Phase, drain_times, must_remain
from reproq_supervisor.core.supervision import sharing
from reproq_supervisor.core.supervision.commands import Send, Signal, Spawn
from reproq_supervisor.core.supervision.events import GroupProbed, ProcessDraining, ProcessStarted
from reproq_supervisor.core.supervision.facts import ChildStarted, SignalName
from reproq_supervisor.core.supervision.messages import adjust_message, drain_message, quit_message, start_message
from reproq_supervisor.core.supervision.process import Asked, Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessEvent, ProcessState
from reproq_supervisor.core.supervision.units import POSTGRES, PREPARE, Role, Unit

KEEPER_DRAIN_S = 1.0
KEEPER_KILL_S = 3.0
DATABASE_KILL_S = 10.0
"""What the fast shutdown of the database may take, a checkpoint included, when there is no hurry."""
QUIT_GRACE_S = 1.0
"""What a running task gets after the soft signal when the daemon is told to quit."""


def wanted(state: State) -> list[Want]:
    """Return what should be there now, in the order of its start."""
    units: list[Unit] = []
    if state.plan.embedded is not None:
        units.append(POSTGRES)
    if state.prepared:
        units += state.plan.units()
    elif state.roster.filling(POSTGRES, 1) is not None:
        units.append(PREPARE)
    if state.stopping is not None:
        remaining = must_remain(state.stopping.phase)
        return [Want(unit, state.generation_of(unit)) for unit in units if unit.role in remaining]
    wants = [Want(unit, state.generation_of(unit)) for unit in units]
    if state.operation is not None and state.prepared:
        wants += [Want(unit, state.operation.generation) for unit in sorted(state.operation.canaries)]
    return wants


def fill(state: State, now: float) -> None:
    """Start what is missing as far as the accounts allow, and drain what nobody wants."""
    differences = reconcile(wanted(state), state.roster)
    for want in differences.missing:
        if may_start(state, want, now):
            start(state, want.unit, want.generation, now)
    for process in differences.unwanted:
        ask_to_leave(state, process, now)


def may_start(state: State, want: Want, now: float) -> bool:
    """Answer whether the account of the unit's group allows a start now; a canary has no account."""
    if want.unit.role is Role.POSTGRES and state.roster.of_role(Role.POSTGRES):
        return False  # its predecessor still has the data folder, or something of it does
    if want.generation != state.generation_of(want.unit):
        return True
    at = state.health(want.unit).start_at(want.unit, now)
    return at is not None and at <= now


def start(state: State, unit: Unit, generation: int, now: float) -> Process:
    """Have a process started for *unit*."""
    trial = state.operation
    plan = trial.plan if trial is not None and trial.plan is not None and trial.generation == generation else state.plan
    process = state.roster.add(unit, generation, plan, now)
    if unit.role is not Role.LOADER and state.counts(process) and state.health(unit).note_start(unit, now):
        state.emit(GroupProbed(unit.group, unit.name))
    state.do(Spawn(process.serial, unit, generation))
    return process


def child_started(state: State, process: Process, fact: ChildStarted, now: float) -> None:
    """Tell a new child what it is for."""
    process.pid, process.worker_id = fact.pid, fact.worker_id
    process.move(ProcessEvent.STARTED)
    process.started_mono = process.boot_mono = process.heard_mono = now
    unit = process.unit
    state.emit(ProcessStarted(unit.name, process.pid, process.generation))
    if unit.role is Role.POSTGRES:
        return  # its command line says it all
    plan = state.plan_of(process)
    pool_settings = state.pool_settings(plan, unit.pool)
    process.told = adjust_message(plan, pool_settings)
    process.told_executors = sharing.first_grant(state, process)
    state.do(Send(process.serial, start_message(plan, process, pool_settings, state.slots.get(unit), process.told_executors)))


def ask_to_leave(state: State, process: Process, now: float) -> None:
    """Ask a process to finish what it runs and go; asking again can only shorten its time."""
    booting = process.state is ProcessState.BOOTING
    quick = booting or (state.stopping is not None and state.stopping.quick)
    if process.state in (ProcessState.BOOTING, ProcessState.READY):
        process.move(ProcessEvent.DRAIN_ASKED)
    times = _times(state, process, now)
    if quick:
        kill_in_s = min(times.kill_in_s, ALONE_S) if booting and process.unit.role is not Role.POSTGRES else times.kill_in_s
        times = DrainTimes(0.0, min(times.grace_s, QUIT_GRACE_S), kill_in_s)
    process.asked = Asked.QUIT if quick else Asked.DRAIN
    kill_at = now + times.kill_in_s
    process.kill_at = kill_at if process.kill_at is None else min(process.kill_at, kill_at)
    state.emit(ProcessDraining(process.unit.name, process.pid, process.generation, round(times.timeout_s, 3)))
    match process.unit.role:
        case Role.POSTGRES:
            # Its "fast" shutdown; the immediate one is kept for when that hangs.
            state.do(Signal(process.serial, SignalName.INT))
        case Role.PREPARE | Role.LOADER:
            state.do(Signal(process.serial, SignalName.TERM))
        case Role.SHARD | Role.KEEPER if process.hello_mono is None:
            # It does not read yet. Whoever has not said hello owns nothing, and TERM is its end.
            state.do(Signal(process.serial, SignalName.TERM))
        case Role.SHARD | Role.KEEPER:
            state.do(Send(process.serial, quit_message(times) if quick else drain_message(times)))


def _times(state: State, process: Process, now: float) -> DrainTimes:
    grace_s = state.plan_of(process).deadlines(process.unit).grace_s
    role, stopping = process.unit.role, state.stopping
    match role:
        case Role.POSTGRES:
            times = DrainTimes(0.0, 0.0, DATABASE_KILL_S)
        case Role.KEEPER:
            times = DrainTimes(KEEPER_DRAIN_S, 0.0, KEEPER_KILL_S)
        case Role.PREPARE | Role.LOADER:
            times = DrainTimes(0.0, 0.0, ALONE_S)
        case Role.SHARD:
            if stopping is not None:
                return drain_times(stopping.kill_mono(Phase.SHARDS) - now, grace_s, stopping.budget.flush_s)
            # Nothing waits for an old generation: let it finish what it runs, however long that may take.
            pool = state.plan_of(process).pools.get(process.unit.pool, {})
            longest_s = max(state.plan.shutdown_timeout_s, float(pool.get("timeout", 0.0)))
            return drain_times(longest_s + grace_s + FLUSH_S, grace_s)
    if stopping is None:
        return times
    left_s = max(0.0, stopping.kill_mono(stopping.phase) - now)
    return DrainTimes(min(times.timeout_s, left_s / 2.0), 0.0, min(times.kill_in_s, left_s))
