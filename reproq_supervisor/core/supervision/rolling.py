"""Reload and restart: load, compare, try, switch. The phases and their promise are in `operation`."""

from typing import Any

from reproq_supervisor.core.policy.reload import Extent, extent_of, settings_in_force
from reproq_supervisor.core.supervision import filling, switching
from reproq_supervisor.core.supervision.commands import Notify, Reply
from reproq_supervisor.core.supervision.events import ReloadCanarying, ReloadEnded, ReloadRefused, ReloadStarted
from reproq_supervisor.core.supervision.messages import shared_settings
from reproq_supervisor.core.supervision.operation import (
    CODE,
    ROLL_SLACK_S,
    Change,
    Operation,
    OperationPhase,
    ReloadOutcome,
    Wish,
)
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.problems import summary
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.readiness import proven_at
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.units import LOADER, Role, Unit

EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
EXIT_CONFIG = 78


def start_next(state: State, now: float) -> None:
    """Begin with what is wished for, if nothing else is under way; all reloads that wait share one."""
    if state.operation is not None or state.stopping is not None or not state.wishes:
        return
    pool = state.wishes[0].pool
    taken = [wish for wish in state.wishes if wish.pool == pool]
    state.wishes = [wish for wish in state.wishes if wish.pool != pool]
    if pool is not None and pool not in state.plan.pools:
        for wish in taken:
            _answer(state, wish, {"ok": False, "code": EXIT_FAILED, "error": f"pool {pool} was removed by a reload", "problems": []})
        return
    state.last_generation += 1
    operation = Operation(taken, now, state.last_generation)
    state.operation = operation
    if not operation.only_plans:
        state.emit(ReloadStarted(operation.what))
        state.do(Notify((("RELOADING", "1"), ("MONOTONIC_USEC", str(int(now * 1e6))), ("STATUS", operation.what))))
    if pool is None:
        operation.loader = filling.start(state, LOADER, operation.generation, now).serial
    else:
        _try(state, operation, state.plan, Extent(rolling=frozenset({pool})), now)


def take_answer(state: State, process: Process, message: dict[str, Any], now: float) -> None:
    """Take the loader's answer: the new settings, or every problem of the file."""
    operation = state.operation
    if operation is None or operation.loader != process.serial:
        return
    if message["type"] == "problems":
        problems = [dict(problem) for problem in message["problems"]]
        _refuse_file(state, operation, problems, message.get("source"), now)
        return
    changes = list(state.classify(state.plan.settings, message["settings"]))
    release = message.get("release")
    if state.release is not None and release not in (None, state.release):
        # Same settings, other source files: the reload after a deployment.
        changes.append(Change(CODE, "rolling", state.release, release))
    plan = Plan(settings_in_force(state.plan.settings, message["settings"], changes))
    extent = extent_of(changes, state.plan, plan)
    # What every child would be told, and until when it is waited for, if it is all there.
    shared_settings(plan)
    for unit in plan.units():
        plan.deadlines(unit)
    # Not before: settings that this program does not understand, of a newer one installed in its place, are no answer, and the end of
    # their loader refuses the operation.
    operation.loader, operation.release, operation.changes = None, release, changes
    answer = {"ok": True, "changed": False, "plan": [c.as_answer() for c in changes], "generation": state.generation}
    for wish in operation.wishes:
        if wish.dry_run:
            _answer(state, wish, answer)
    if operation.only_plans:
        state.operation = None
        return
    operation.wishes = [wish for wish in operation.wishes if not wish.dry_run]
    _try(state, operation, plan, extent, now)


def _try(state: State, operation: Operation, plan: Plan, extent: Extent, now: float) -> None:
    operation.plan, operation.pools, operation.keeper = plan, set(extent.rolling), extent.keeper
    if not extent.rolling:
        switching.commit(state, operation, now)
        _end(state, operation, now)
        return
    operation.phase = OperationPhase.CANARY
    operation.canaries = {Unit(Role.SHARD, pool, 0) for pool in extent.rolling}
    state.emit(ReloadCanarying(operation.generation, ", ".join(sorted(extent.rolling))))


def process_died(state: State, process: Process, cause: str, now: float) -> None:
    """Let the operation know of a death: of its loader, or of the generation that it tries."""
    operation = state.operation
    if operation is None:
        return
    if process.serial == operation.loader:
        refuse(state, f"the configuration could not be read: the loader {cause}", now, code=EXIT_TRY_AGAIN)
        return
    if process.generation != operation.generation or process.unit.role is Role.LOADER:
        return
    what = f"{process.unit.name} of the new generation {cause}"
    if operation.phase is OperationPhase.CANARY:
        refuse(state, f"{what}; the old generation stays", now)
    elif operation.phase is OperationPhase.ROLLING:
        refuse(state, f"generation {operation.generation} is in force, but {what}; it is being restarted", now)


def advance(state: State, now: float) -> None:
    """Take the operation further when its condition is met."""
    operation = state.operation
    if operation is None:
        start_next(state, now)
        return
    if operation.phase is OperationPhase.CANARY and now >= proven_at(state):
        switching.commit(state, operation, now)
        operation.phase = OperationPhase.ROLLING
        boots_s = [float(state.plan.pools[pool]["boot_timeout"]) for pool in operation.pools]
        operation.roll_by_mono = now + 2.0 * max(boots_s) + ROLL_SLACK_S
    if operation.phase is OperationPhase.ROLLING and switching.complete(state, operation):
        _end(state, operation, now)
    elif now >= operation.roll_by_mono:
        # A database that is away holds up boots without limit, and must not hold up the answer, nor the reloads that wait.
        reason = f"generation {operation.generation} is in force, but not all of it became ready in time; it goes on starting"
        refuse(state, reason, now, code=EXIT_TRY_AGAIN)


def refuse(state: State, reason: str, now: float, *, code: int = EXIT_FAILED) -> None:
    """End the operation without success and say why; what it had started is drained by the next reconciliation."""
    operation = state.operation
    assert operation is not None
    outcome = ReloadOutcome(False, now, operation.what, code, reason, generation=state.generation, pools=operation.restarted)
    _end_refused(state, operation, outcome)


def _refuse_file(state: State, operation: Operation, problems: list[dict[str, Any]], source: str | None, now: float) -> None:
    reason = summary(problems, source)
    outcome = ReloadOutcome(
        False, now, operation.what, EXIT_CONFIG, reason, generation=state.generation, source=source, problems=tuple(problems)
    )
    _end_refused(state, operation, outcome)


def _end_refused(state: State, operation: Operation, outcome: ReloadOutcome) -> None:
    state.operation, state.last_reload = None, outcome
    reason = outcome.error
    state.emit(ReloadRefused(outcome.code, reason))
    answer = {"ok": False, "code": outcome.code, "error": reason, "problems": list(outcome.problems)}
    if outcome.source is not None:
        answer["source"] = outcome.source
    for wish in operation.wishes:
        _answer(state, wish, answer)
    if not operation.only_plans and state.stopping is None:
        state.do(Notify((("READY", "1"), ("STATUS", f"running; the last {operation.what} was refused: {reason}"))))


def _end(state: State, operation: Operation, now: float) -> None:
    state.operation = None
    changed = bool(operation.pools) or any(change.how != "restart" for change in operation.changes)
    state.last_reload = ReloadOutcome(True, now, operation.what, changed=changed, generation=state.generation, pools=operation.restarted)
    state.emit(ReloadEnded(state.generation, changed))
    plan = [change.as_answer() for change in operation.changes]
    for wish in operation.wishes:
        _answer(state, wish, {"ok": True, "changed": changed, "plan": plan, "generation": state.generation})
    state.do(Notify((("READY", "1"), ("STATUS", f"running, generation {state.generation}"))))


def abort(state: State, now: float) -> None:
    """The daemon is stopping: answer everybody who waits."""
    if state.operation is not None:
        refuse(state, "the daemon is stopping", now, code=EXIT_TRY_AGAIN)
    for wish in state.wishes:
        _answer(state, wish, {"ok": False, "code": EXIT_TRY_AGAIN, "error": "the daemon is stopping", "problems": []})
    state.wishes.clear()


def _answer(state: State, wish: Wish, answer: dict[str, Any]) -> None:
    if wish.client is not None:
        state.do(Reply(wish.client, answer))
