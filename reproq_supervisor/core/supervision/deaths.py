"""Deaths: of our children, and of what they leave behind.

A shard is dead only when its own process *and* everything that fell to us with it is reaped: while its nursery lives, an executor may still
run a task of a lease that others must not get. Its unit is filled again without waiting for that; only the release of its leases waits.
"""

from reproq_supervisor.core.policy.restart import ExitKind, judge_exit
from reproq_supervisor.core.supervision import ending, rolling
from reproq_supervisor.core.supervision.commands import KillOrphan
from reproq_supervisor.core.supervision.events import (
    GroupQuarantined,
    GroupRefused,
    OrphanKilled,
    ProcessCrashed,
    ProcessExited,
    ProcessNotStarted,
)
from reproq_supervisor.core.supervision.facts import ChildExited, ChildNotStarted, Orphan, OrphanReaped
from reproq_supervisor.core.supervision.health import Circuit
from reproq_supervisor.core.supervision.process import Asked, Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessEvent, ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS, Role

NURSERY_LEAVES_S = 3.0
"""What an adopted nursery gets to kill its executors and go; it has nothing to wait for."""


def child_exited(state: State, process: Process, fact: ChildExited, now: float, jitter: float) -> None:
    """Enter the exit of a child: judge it, and see to what it left."""
    process.exited_mono = now
    cause = describe_exit(process, fact)
    kind = judge_exit(
        fact.code,
        asked=process.asked is not Asked.NOTHING,
        hung=process.hung,
        failed_permanently=process.failed_permanently,
        may_end=process.ready_mono is not None or process.unit.role in ONE_SHOTS,
    )
    made = ProcessExited if kind is ExitKind.PLANNED else ProcessCrashed
    state.emit(made(process.unit.name, process.pid, process.generation, cause, kind.value))
    if process.unit.role is Role.KEEPER:
        state.dead_workers.forget_telling()
    _adopt(state, process, fact.orphans)
    if process.left_behind:
        process.kill_at = ending.cut_short(state, now + NURSERY_LEAVES_S)
        process.move(ProcessEvent.EXITED_LEAVING_OTHERS)
    else:
        process.move(ProcessEvent.EXITED)
        bury(state, process, now)
    _account(state, process, fact.code, kind, cause, now, jitter)


def child_hung(state: State, process: Process, now: float, jitter: float, waited_s: float) -> None:
    """Enter that a process is killed because it did not get ready, or fell silent: for its account that is the moment of its death.

    Args:
      waited_s: how long it did nothing before that was found out.
    """
    _enter_failure(state, process, ExitKind.ABNORMAL, f"was killed: {process.kill_why}", now, jitter, waited_s)


def child_not_started(state: State, process: Process, fact: ChildNotStarted, now: float, jitter: float) -> None:
    """Enter that the operating system refused a start: like a crash, it may work a little later."""
    state.emit(ProcessNotStarted(process.unit.name, fact.reason))
    process.move(ProcessEvent.START_FAILED)
    state.roster.discard(process)
    _account(state, process, None, ExitKind.UNAVAILABLE, f"could not be started: {fact.reason}", now, jitter)


def _account(state: State, process: Process, code: int | None, kind: ExitKind, cause: str, now: float, jitter: float) -> None:
    """Put the exit on the right account: the reload's, the daemon's own, or the group's."""
    rolling.process_died(state, process, cause, now)
    if process.unit.role is Role.PREPARE and code == 0:
        state.prepared = True
    elif not process.hung:  # else it was entered when its kill was decided
        _enter_failure(state, process, kind, cause, now, jitter)


def _enter_failure(state: State, process: Process, kind: ExitKind, cause: str, now: float, jitter: float, waited_s: float = 0.0) -> None:
    unit = process.unit
    if unit.role is Role.LOADER or not state.counts(process):
        return
    health = state.health(unit)
    before = health.circuit
    health.note_death(unit, kind, cause, now, jitter, waited_s)
    if health.circuit is before:
        return
    if health.circuit is Circuit.OPEN:
        state.emit(GroupQuarantined(unit.group, len(health.deaths), health.policy.window_s, cause))
    elif health.circuit is Circuit.REFUSED:
        state.emit(GroupRefused(unit.group, cause))
        if unit.role in (Role.POSTGRES, Role.PREPARE) and not state.prepared:
            # Nothing has worked yet and nothing can: let whoever started us see it.
            ending.begin(state, f"{unit.name} {cause}", now, quick=True, code=78)


def orphans_found(state: State, orphans: tuple[Orphan, ...]) -> None:
    """See to processes that turned up as ours: nobody waits for them, and nobody may outlive its owner here."""
    heirs = [process for process in state.roster if process.state is ProcessState.LINGERING]
    for orphan in orphans:
        _kill(state, orphan)
        for heir in heirs:
            # Which of the dying it belonged to is not known any more, so each waits for it.
            heir.left_behind.add(orphan.pid)


def orphan_reaped(state: State, fact: OrphanReaped, now: float) -> None:
    """Enter that an adopted process is gone; the last one makes its owner's death complete."""
    heirs = [process for process in state.roster if fact.pid in process.left_behind]
    for heir in heirs:
        heir.left_behind.discard(fact.pid)
    if fact.orphans:
        for heir in heirs:
            heir.left_behind.update(orphan.pid for orphan in fact.orphans)
        for orphan in fact.orphans:
            _kill(state, orphan)
    for heir in heirs:
        if not heir.left_behind:
            heir.move(ProcessEvent.OTHERS_REAPED)
            bury(state, heir, now)


def bury(state: State, process: Process, now: float) -> None:
    """Forget a process whose death is complete, and have its leases released."""
    if process.unit.role is Role.SHARD and process.worker_id:
        state.dead_workers.add(process.worker_id, now)
    state.roster.discard(process)


def _adopt(state: State, process: Process, orphans: tuple[Orphan, ...]) -> None:
    for orphan in orphans:
        process.left_behind.add(orphan.pid)
        if orphan.pid != process.nursery_pid:
            _kill(state, orphan)


def _kill(state: State, orphan: Orphan) -> None:
    state.emit(OrphanKilled(orphan.pid, orphan.command))
    state.do(KillOrphan(orphan.pid))


def describe_exit(process: Process, fact: ChildExited) -> str:
    """Say in words how it ended, with the process's own reason when it gave one."""
    if process.kill_why:
        text = f"was killed: {process.kill_why}"
    elif fact.signal is not None:
        text = f"was killed by {fact.signal}"
        if fact.signal == "SIGKILL":
            text += " (not by the supervisor: by hand, or for lack of memory)"
    else:
        text = f"exited with code {fact.code}"
    return f"{text}: {process.failed_reason}" if process.failed_reason else text
