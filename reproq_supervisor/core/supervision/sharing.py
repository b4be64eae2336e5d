"""Tells each shard its part of what the pools of this daemon share. What is known of sizes and machine comes from their snapshots.

    shard ──snapshot: what it has, would use, and what an executor of it takes──► supervisor ──budget──► shard

A shard that is held back says so at once, not with its next snapshot, and is answered at once. A pool of a fixed size has what it has: it
counts against the file's budget, and nobody is told anything.
"""

from collections.abc import Mapping
from typing import Any

from reproq_supervisor.core.policy.budget import Amounts, Claimant, Grant, divide
from reproq_supervisor.core.supervision.commands import Send
from reproq_supervisor.core.supervision.messages import budget_message
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import Role

SHARE_EVERY_S = 0.5
_SIZED = (ProcessState.BOOTING, ProcessState.READY)


def share(state: State, process: Process, now: float) -> None:
    """A snapshot of *process* has arrived: see whether anybody's part is another one now."""
    sizing = process.snapshot.get("sizing") or {}
    if now - state.shared_mono < SHARE_EVERY_S and sizing.get("reason") != "budget":
        return
    state.shared_mono = now
    shards = [each for each in state.roster.of_role(Role.SHARD) if each.alive]
    if not _is_shared(state, shards):
        grants = [Grant(0, None)] * len(shards)
    else:
        grants = divide(_totals(state, shards), [_claimant(state, each) for each in shards])
    for each, grant in zip(shards, grants, strict=True):
        if each.state in _SIZED and each.hello_mono is not None and each.snapshot.get("sizing"):
            _tell(state, each, None if grant.lacks is None else grant)


def first_grant(state: State, process: Process) -> int | None:
    """Return what a new shard may have until it was heard: its least where anything is shared, None for no bound."""
    if process.unit.role is not Role.SHARD or not _is_shared(state, [each for each in state.roster.of_role(Role.SHARD) if each.alive]):
        return None
    least, most = _limits(state, process)
    return least if least < most else None


def _tell(state: State, process: Process, grant: Grant | None) -> None:
    executors = None if grant is None else grant.executors
    process.grant = grant
    if executors != process.told_executors:
        process.told_executors = executors
        state.do(Send(process.serial, budget_message(grant)))


def _is_shared(state: State, shards: list[Process]) -> bool:
    """Answer whether one shard's size is any business of another, or of the file's budget."""
    sized = sum(least < most for least, most in (_limits(state, each) for each in shards))
    return bool(sized) and (sized > 1 or any(_budget(state).values()))


def _budget(state: State) -> Mapping[str, Any]:
    found: Mapping[str, Any] = state.plan.settings.get("budget") or {}
    return found


def _totals(state: State, shards: list[Process]) -> Amounts:
    """Return what there is: what the file says, and what the shards have seen of the machine."""
    budget = _budget(state)
    seen = [each.snapshot["sizing"] for each in shards if each.snapshot.get("sizing")]
    machines = [sizing["machine"] for sizing in seen]
    processors = max((float(machine["processors"]) for machine in machines), default=None)
    left = [machine["memory_left_bytes"] for machine in machines if machine["memory_left_bytes"] is not None]
    used = sum(sizing["size"] * sizing["takes"]["memory"] for sizing in seen)
    memory = [total for total in (budget.get("memory"), min(left) + used if left else None) if total is not None]
    return Amounts(budget.get("executors"), processors, min(memory, default=None), budget.get("connections"))


def _claimant(state: State, process: Process) -> Claimant:
    """Return what one shard has and wants. One that leaves, or whose size is fixed, has what it has."""
    settings = state.pool_settings(state.plan_of(process), process.unit.pool) or {}
    slots = 1 if settings.get("mode", "process") == "process" else int(settings["slots"]["max"])
    there = _there(process, settings)
    least, most = _limits(state, process)
    sizing = process.snapshot.get("sizing")
    if process.state not in _SIZED or least == most:
        size = max(least if process.state in _SIZED else 0, there)
        return Claimant(size, size, size, 0, size, 1.0, Amounts(1.0, 0.0, 0.0, slots))
    weight = float(settings.get("weight", 1)) / int(settings.get("shards", 1))
    if not sizing:
        return Claimant(least, most, least, 0, least, weight, Amounts(1.0, 0.0, 0.0, slots))
    takes = Amounts(1.0, float(sizing["takes"]["processors"]), float(sizing["takes"]["memory"]), slots)
    return Claimant(least, most, max(int(sizing["size"]), there), int(sizing["want"]), int(sizing["use"]), weight, takes)


def _there(process: Process, settings: Mapping[str, Any]) -> int:
    """Return the executors that a shard has, those included that were told to leave and still run something.

    Of those for single use only what runs counts: as many wait beside them, which come and go with each task. What these take of the memory
    is in what each is said to take.
    """
    executors = process.snapshot.get("executors") or {}
    is_reused = settings.get("isolation", "reuse") == "reuse"
    return len(executors.get("pids") or ()) if is_reused else int(executors.get("busy") or 0)


def _limits(state: State, process: Process) -> tuple[int, int]:
    """Return the least and the most executors of one shard of its pool."""
    settings = state.pool_settings(state.plan_of(process), process.unit.pool)
    if settings is None:
        return 0, 0
    shards = int(settings.get("shards", 1))
    most = max(1, -(-int(settings["executors"]["max"]) // shards))
    return min(most, -(-int(settings["executors"]["min"]) // shards)), most
