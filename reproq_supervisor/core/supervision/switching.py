"""The moment of a reload: the new configuration is put in force, in one step."""

from reproq_supervisor.core.supervision import telling
from reproq_supervisor.core.supervision.commands import ConfigureLog
from reproq_supervisor.core.supervision.events import ReloadCommitted
from reproq_supervisor.core.supervision.operation import Operation
from reproq_supervisor.core.supervision.readiness import is_ready
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.units import KEEPER, Role


def commit(state: State, operation: Operation, now: float) -> None:
    """Put the operation's plan in force.

    From here on its units are wanted; reconciliation starts the rest, and drains each old process when its successor is ready.
    """
    assert operation.plan is not None
    state.plan = operation.plan
    state.release = operation.release or state.release
    if operation.pools:
        state.generation = operation.generation
        names = [*operation.pools, *([KEEPER.name] if operation.keeper else [])]
        state.generations.update(dict.fromkeys(names, operation.generation))
    operation.canaries.clear()
    _forget_removed(state, now)
    restarted = {f"pool {wish.pool}" for wish in operation.wishes if wish.pool is not None}
    for group, health in state.healths.items():
        # Whatever was wrong may have been mended: everything is tried again, at once.
        if not restarted or group in restarted:
            health.reset()
    telling.tell_settings(state)
    state.do(ConfigureLog(state.plan.settings.get("logs", {})))
    state.emit(ReloadCommitted(state.generation, len(operation.changes)))


def _forget_removed(state: State, now: float) -> None:
    pools = set(state.plan.pools)
    units = set(state.plan.units())
    for group, health in tuple(state.healths.items()):
        for unit in tuple(health.units):
            if unit.role is Role.SHARD and unit not in units:
                health.note_gone(unit, now)
        if group.startswith("pool ") and not health.units:
            del state.healths[group]
    for name in tuple(state.overrides):
        if name not in pools:
            del state.overrides[name]
    state.paused &= pools
    for name in tuple(state.generations):
        if name not in pools and name != KEEPER.name:
            del state.generations[name]


def complete(state: State, operation: Operation) -> bool:
    """Is every unit that rolls filled by a ready process of the new generation?"""
    units = [unit for pool in operation.pools for unit in state.plan.shards(pool)] + ([KEEPER] if operation.keeper else [])
    return all(is_ready(state, unit, state.generation_of(unit)) for unit in units)
