"""`explain`: why a pool is as it is, in plain words with the numbers."""

from typing import Any

from reproq_supervisor.core.policy.budget import Resource
from reproq_supervisor.core.policy.capacity import MEMORY_STALLED
from reproq_supervisor.core.supervision.health import PROBE_HEALTHY_S, Circuit, Health
from reproq_supervisor.core.supervision.operation import OperationPhase
from reproq_supervisor.core.supervision.problems import one_line
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import Role, Unit
from reproq_supervisor.core.words import counted

_MIB = 1024 * 1024


def explain(state: State, pool: str, now: float) -> list[str]:
    """Return the lines, the most telling first."""
    health = state.health(Unit(Role.SHARD, pool))
    lines = [*_about_account(state, pool, health, now)]
    for unit in state.plan.shards(pool):
        lines += _about_unit(state, unit, health, now)
    lines += [_about_leaving(process, now) for process in _leaving(state, pool)]
    lines += _about_operator(state, pool, now)
    lines += _about_reload(state, pool, now)
    return lines


def _about_account(state: State, pool: str, health: Health, now: float) -> list[str]:
    if state.stopping is not None:
        return [f"The daemon is stopping: {state.stopping.why}."]
    if not state.prepared:
        return ["The embedded database is not prepared yet; shards start after it."]
    rule = f"abnormal exits: more than {health.policy.allowed_exits} within {health.policy.window_s:g} s"
    match health.circuit:
        case Circuit.REFUSED:
            return [
                f"{pool} is not started any more: its process {health.reason}. Trying again would not help; after mending the cause: "
                "reproq-supervisor reload"
            ]
        case Circuit.OPEN:
            return [
                f"{pool} is in quarantine ({rule}); the last one {health.reason}. One process is tried in "
                f"{_s(health.probe_at - now)}; `reload` tries at once."
            ]
        case Circuit.PROBING:
            name = health.probe.name if health.probe else "one process"
            return [f"{pool} is in quarantine ({rule}) and {name} is being tried: it must stay ready for {PROBE_HEALTHY_S:g} s."]
        case Circuit.CLOSED:
            return []


def _about_unit(state: State, unit: Unit, health: Health, now: float) -> list[str]:
    process = state.roster.filling(unit, state.generation_of(unit))
    each = health.of(unit)
    past = f" Its predecessor {each.last_cause}, {_s(now - each.last_death)} ago." if each.last_cause else ""
    if process is None:
        if health.circuit is not Circuit.CLOSED or state.stopping is not None or not state.prepared:
            return [f"{unit.name} has no process.{past}"]
        wait = max(0.0, each.not_before - now)
        return [f"{unit.name} has no process; it starts again in {_s(wait)} (failures in a row: {each.failures}).{past}"]
    age = _s(now - process.started_mono)
    if process.state is not ProcessState.READY:
        limit = state.plan_of(process).deadlines(unit).boot_s
        return [
            f"{unit.name} (pid {process.pid}) has been starting for {age} and is killed after {limit:g} s.{past}",
            *_about_database(process),
        ]
    why = process.snapshot.get("why")
    lines = [f"{unit.name} (pid {process.pid}) has been running for {age}.{past}" + (f" It says: {why}" if why else "")]
    lines += _about_database(process)
    lines += _about_size(process)
    lines += _about_grant(state, process)
    lines += _about_slots(process)
    lines += _about_recycling(process)
    lines += _about_locks(process)
    lines += _about_refusals(process)
    if process.stalled:
        lines.append(f"{unit.name} has finished nothing for {_s(now - process.progress_mono)}, longer than any task may take.")
    return lines


def _about_database(process: Process) -> list[str]:
    database = process.snapshot.get("database") or {}
    if database.get("up") is not False:
        return []
    error = f": {' '.join(str(database['error']).split())}" if database.get("error") else ""
    return [f"{process.unit.name} has been without the database for {_s(float(database.get('since_s') or 0.0))}{error}."]


_SIZE_WORDS = {
    "steady": "and stays so",
    "backlog": "more than before, for the backlog",
    "rate": "more than before, for what arrives",
    "quiet": "fewer than before, for it wanted fewer for two minutes or longer",
    "patience": "though it wants fewer now; it shrinks when it did so for two minutes or longer",
    "limit": "the limit of its settings",
    "saturated": "for more would only wait{lacking}",
    "unseen": "and no more before some of what waits was seen running, for it may compute",
    "budget": "its part of what the pools share",
}


def _about_size(process: Process) -> list[str]:
    sizing = process.snapshot.get("sizing")
    if not isinstance(sizing, dict):
        return []
    words = _SIZE_WORDS.get(str(sizing.get("reason")), "as it says").format(lacking=_lacking(sizing))
    rate = f"{sizing.get('rate_per_s')} tasks a second of {sizing.get('service_s')} s each"
    executors = counted(int(sizing.get("size") or 0), "executor")
    return [
        f"{process.unit.name} has {executors} ({sizing.get('min')} to {sizing.get('max')}), {words}. It wants "
        f"{sizing.get('want')}: {sizing.get('for_rate')} for {rate}, "
        f"{sizing.get('for_backlog')} for what waits."
    ]


def _lacking(sizing: dict[str, Any]) -> str:
    """Say what more executors would wait for, with the figures that are known."""
    takes, machine = sizing.get("takes"), sizing.get("machine")
    if not (takes and machine):
        return " for a processor or for memory"
    left = machine["memory_left_bytes"]
    is_stalled = machine.get("memory_stalled", 0.0) > MEMORY_STALLED
    if is_stalled or not takes["processors"] or (left is not None and left < takes["memory"]):
        memory = "" if left is None else f", {left / _MIB:.0f} MiB are left"
        return f" for memory: each takes {takes['memory'] / _MIB:.0f} MiB{memory}"
    crowd = f", for which somebody waited {machine['crowded']:.0%} of the time" if machine.get("crowded") else ""
    return f" for a processor: each takes {takes['processors']:g} of {machine['processors']:g}{crowd}"


_LACK_WORDS = {
    Resource.EXECUTORS: "the budget has no more executors",
    Resource.PROCESSORS: "there is no processor for more",
    Resource.MEMORY: "the memory is taken",
    Resource.CONNECTIONS: "the budget has no more connections",
}


def _about_grant(state: State, process: Process) -> list[str]:
    grant = process.grant
    if grant is None or grant.lacks is None:
        return []
    weights = {name: int(settings.get("weight", 1)) for name, settings in state.plan.pools.items()}
    part = f"weight {weights.get(process.unit.pool, 1)} of {sum(weights.values())}"
    return [f"{process.unit.name} may have {counted(grant.executors, 'executor')} now, for {_LACK_WORDS[grant.lacks]} ({part})."]


_SLOT_WORDS = {
    "measuring": "and sees what that brings",
    "unused": "and stays so, for there was not always work for all of them",
    "tried": "to see what that brings",
    "gain": "for the last step brought {gained}",
    "loss": "for the last step brought {gained}, and was taken back",
    "no_gain": "for the last step made no difference, and fewer do as well",
    "trouble": "half of what it was, for runs ran out of time or did not get started, an executor died, or memory ran short",
    "limit": "the limit of its settings",
}


def _about_slots(process: Process) -> list[str]:
    slots = process.snapshot.get("slot_sizing")
    if not slots:
        return []
    gained = slots.get("gained")
    change = "a change" if gained is None else f"{abs(gained):.1%} {'more' if gained >= 0 else 'less'}"
    words = _SLOT_WORDS.get(str(slots.get("reason")), "as it says").format(gained=change)
    return [
        f"{process.unit.name} runs {slots.get('slots')} at once in each executor ({slots.get('min')} to {slots.get('max')}), {words}. "
        f"Each got {slots.get('work_s_per_s')} s of work done a second."
    ]


def _about_recycling(process: Process) -> list[str]:
    counts = {reason: int(count) for reason, count in (process.snapshot.get("recycled") or {}).items() if count}
    waiting = int(process.snapshot.get("recycling") or 0)
    if not (counts or waiting):
        return []
    reasons = ", ".join(f"{count} by {reason}" for reason, count in counts.items()) or "none"
    more = f"; {waiting} more wait for their turn" if waiting else ""
    return [f"{process.unit.name} has recycled executors: {reasons}{more}."]


def _about_locks(process: Process) -> list[str]:
    locked = process.snapshot.get("locked_endings") or {}
    if not locked.get("count"):
        return []
    tasks, named = counted(locked["count"], "task"), ", ".join(map(str, locked["first"]))
    return [
        f"{process.unit.name} cannot write the end of {tasks}, the first {named}: their rows are locked by a transaction that somebody "
        "left open. It tries again every 2 s, and keeps their leases; pg_stat_activity says whose it is."
    ]


def _about_refusals(process: Process) -> list[str]:
    refused = process.snapshot.get("refused") or {}
    if not refused.get("count"):
        return []
    tasks, named = counted(refused["count"], "task"), ", ".join(map(str, refused["first"]))
    return [
        f"{process.unit.name} may not write the start or end of {tasks}, the first {named}: PostgreSQL refuses it with {refused['error']}. "
        "Mostly that is a trigger on task_runs that is not ours; PostgreSQL's own log says more. Results and leases are kept; it tries "
        "again, at least once a minute."
    ]


def _leaving(state: State, pool: str) -> list[Process]:
    states = (ProcessState.DRAINING, ProcessState.STOPPING, ProcessState.LINGERING)
    return [p for p in state.roster.of_role(Role.SHARD) if p.unit.pool == pool and p.state in states]


def _about_leaving(process: Process, now: float) -> str:
    who = f"{process.unit.name} (pid {process.pid}, generation {process.generation})"
    match process.state:
        case ProcessState.LINGERING:
            return f"{who} is dead, but {len(process.left_behind)} of its processes are not reaped yet."
        case ProcessState.STOPPING:
            return f"{who} is being killed: {process.kill_why}."
        case _:
            left = f", for at most {_s(max(0.0, process.kill_at - now))} more" if process.kill_at is not None else ""
            return f"{who} finishes what it runs and leaves{left}."


def _about_operator(state: State, pool: str, now: float) -> list[str]:
    lines = []
    if pool in state.paused:
        lines.append(f"{pool} claims nothing because it was drained by hand: reproq-supervisor resume {pool}")
    override = state.overrides.get(pool)
    if override is not None:
        until = "until the daemon ends" if override.until_mono == float("inf") else f"for {_s(override.until_mono - now)} more"
        lines.append(f"{pool} has {counted(override.executors, 'executor')} by hand, {until}.")
    return lines


def _about_reload(state: State, pool: str, now: float) -> list[str]:
    lines = []
    operation, last = state.operation, state.last_reload
    if operation is not None and operation.phase is not OperationPhase.LOADING and pool in (operation.restarted or {pool}):
        lines.append(f"A {operation.what} is under way: {operation.phase.value}.")
    if last is not None and not last.ok and last.concerns(pool):
        reason = "the configuration has problems" if last.problems else last.error
        lines.append(f"The last {last.what}, {_s(now - last.at_mono)} ago, was refused: {reason}.")
        lines += [f"  {one_line(problem, last.source)}" for problem in last.problems]
    return lines


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
