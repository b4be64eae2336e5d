"""What living children are told when things change: settings, pauses, dead workers.

Nothing is sent to a child before its `hello`, since it may not read yet; its `hello` brings it up to date.
"""

from typing import Any

from reproq_supervisor.core.supervision.commands import Send
from reproq_supervisor.core.supervision.messages import PAUSE, RESUME, adjust_message, release_message
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import Role

_LISTENING = (ProcessState.BOOTING, ProcessState.READY)


def tell_newcomer(state: State, process: Process) -> None:
    """Bring a child that has just said hello up to date."""
    if process.unit.role not in (Role.SHARD, Role.KEEPER):
        return
    _tell_settings(state, process)
    if process.unit.pool in state.paused:
        state.do(Send(process.serial, PAUSE))


def tell_settings(state: State) -> None:
    """Tell every shard and keeper its settings, if they are not what it was told last."""
    for process in _listeners(state):
        _tell_settings(state, process)


def _tell_settings(state: State, process: Process) -> None:
    plan = state.plan_of(process)
    if process.unit.pool and process.unit.pool not in plan.pools:
        return  # its pool is no more, and it is about to drain
    message = adjust_message(plan, state.pool_settings(plan, process.unit.pool))
    if message != process.told:
        process.told = message
        state.do(Send(process.serial, message))


def tell_pause(state: State, pool: str) -> None:
    """Tell the shards of *pool* to stop or go on claiming, as it is wanted of the pool now."""
    for process in _listeners(state):
        if process.unit.pool == pool:
            state.do(Send(process.serial, PAUSE if pool in state.paused else RESUME))


def tell_all(state: State, message: dict[str, Any], *more: Role) -> None:
    """Tell every shard and keeper that listens, those on their way out too, and children of *more* roles."""
    for process in state.roster.of_role(Role.SHARD, Role.KEEPER, *more):
        if process.hello_mono is not None and process.alive:
            state.do(Send(process.serial, message))


def tell_keeper(state: State) -> None:
    """Pass the ids of dead workers to a keeper that is ready."""
    keeper = state.keeper()
    if keeper is None:
        return
    for batch in state.dead_workers.take_untold():
        state.do(Send(keeper.serial, release_message(batch)))


def _listeners(state: State) -> list[Process]:
    return [
        process
        for process in state.roster.of_role(Role.SHARD, Role.KEEPER)
        if process.state in _LISTENING and process.hello_mono is not None
    ]
