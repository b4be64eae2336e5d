"""What must hold after every step of every script."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from reproq_supervisor.core.policy.shutdown import Phase
from reproq_supervisor.core.supervision.commands import Command, Send, Signal, Spawn
from reproq_supervisor.core.supervision.events import ProcessCrashed, ProcessExited
from reproq_supervisor.core.supervision.facts import ChildExited, Fact, SignalName
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS, Role
from tests.sim.world import DEATH_TAKES_S, SimChild, World

WATCHES = []
MOST_REPLIES = 1
LEAST_PAUSE_S = 0.25
"""The shortest pause after a failure: the first one, with all of its jitter."""
MOST_STARTS_IN_10_S = 21
"""One that leaves by itself over and over is started twice a second; nothing is started more often."""


def watch(check: Any) -> Any:
    """Enter an invariant."""
    WATCHES.append(check)
    return check


@watch
def no_unit_is_filled_twice_in_one_generation(world: World, fact: Fact, commands: list[Command]) -> None:
    filled = Counter((p.unit, p.generation) for p in world.core.state.roster if p.fills)
    assert max(filled.values(), default=1) <= 1, filled


@watch
def a_unit_has_at_most_an_old_and_a_new_process_that_work(world: World, fact: Fact, commands: list[Command]) -> None:
    ready = Counter(p.unit for p in world.core.state.roster if p.state is ProcessState.READY)
    assert max(ready.values(), default=1) <= 2, ready
    # A third may be starting: the canary of a restart that was asked for while the last one is not through.
    filled = Counter(p.unit for p in world.core.state.roster if p.fills)
    assert max(filled.values(), default=1) <= 3, filled


@watch
def no_shard_starts_while_the_daemon_stops(world: World, fact: Fact, commands: list[Command]) -> None:
    stopping = world.core.state.stopping
    if stopping is not None:
        started = [c for c in commands if isinstance(c, Spawn) and c.unit.role in (Role.SHARD, Role.LOADER, Role.PREPARE)]
        assert not started, started


@watch
def the_keeper_outlives_the_shards_and_the_database_the_keeper(world: World, fact: Fact, commands: list[Command]) -> None:
    stopping = world.core.state.stopping
    if stopping is None:
        return
    living = {p.unit.role for p in world.core.state.roster if p.alive and p.killed_mono is None}
    if stopping.phase in (Phase.KEEPER, Phase.DATABASE, Phase.OVER):
        assert Role.SHARD not in living
    if stopping.phase in (Phase.DATABASE, Phase.OVER):
        assert Role.KEEPER not in living


@watch
def nothing_is_left_alive_when_the_supervisor_exits(world: World, fact: Fact, commands: list[Command]) -> None:
    stopping = world.core.state.stopping
    if world.exit_code is None or stopping is None:
        return
    assert all(child.killed_at is not None for child in world.living()), world.living()
    assert set(world.orphans) <= world.killed_orphans, world.orphans
    if stopping.budget.kill_s > 2.0 * DEATH_TAKES_S:
        assert not world.living(), world.living()
        assert not world.orphans, world.orphans


@watch
def leases_are_released_only_of_workers_that_are_gone_with_all_they_had(world: World, fact: Fact, commands: list[Command]) -> None:
    released = {w for c in commands if isinstance(c, Send) and c.message["type"] == "release_dead" for w in c.message["worker_ids"]}
    for child in world.children.values():
        if child.worker_id in released:
            assert not child.alive, child
            assert child.serial not in world.orphans.values(), child


@watch
def every_request_is_answered_at_most_once(world: World, fact: Fact, commands: list[Command]) -> None:
    assert all(len(answers) <= MOST_REPLIES for answers in world.replies.values())


@watch
def an_exit_that_was_asked_for_is_on_nobodys_account(world: World, fact: Fact, commands: list[Command]) -> None:
    if not isinstance(fact, ChildExited):
        return
    child = world.children[fact.serial]
    if child.asked and not _was_hung(world, child.pid):
        event = next(e for _, e in reversed(world.events) if isinstance(e, ProcessExited) and e.pid == child.pid)
        assert event.kind == "planned", event


@watch
def who_behaves_is_not_killed(world: World, fact: Fact, commands: list[Command]) -> None:
    for command in commands:
        if isinstance(command, Signal) and command.signal is SignalName.KILL:
            child = world.children[command.serial]
            excused = child.frozen or child.unit.role in ONE_SHOTS or _has_no_time(world, child)
            assert not child.behaviour.is_good or excused, child


def _has_no_time(world: World, child: SimChild) -> bool:
    """A database cannot be told how little time there is: in a very short stop it has to be killed."""
    stopping = world.core.state.stopping
    return child.unit.role is Role.POSTGRES and stopping is not None and stopping.budget.database_s < 1.0


@watch
def nobody_is_started_again_at_once_after_a_failure(world: World, fact: Fact, commands: list[Command]) -> None:
    """A unit that failed waits, whether it ended by itself or was given up; only a reload forgets."""
    for command in commands:
        if not isinstance(command, Spawn) or command.generation != world.core.state.generation_of(command.unit):
            continue
        for at, event in reversed(world.events):
            if event.name in ("reload.committed", "group.recovered") or world.now - at >= LEAST_PAUSE_S:
                break
            assert not _is_failure_of(world, event, command), event


def _is_failure_of(world: World, event: Any, command: Spawn) -> bool:
    """Is the event the one that is on the account of what is started? For one that hung that is the decision to kill it, not its exit."""
    hung = event.name == "process.condemned" and "did not leave" not in event.why
    crashed = isinstance(event, ProcessCrashed) and event.kind == "abnormal" and not event.cause.startswith("was killed:")
    if not (hung or crashed) or event.child != command.unit.name:
        return False
    return next(child.generation for child in world.children.values() if child.pid == event.pid) == command.generation


@watch
def no_unit_is_started_all_the_time(world: World, fact: Fact, commands: list[Command]) -> None:
    for command in commands:
        if isinstance(command, Spawn) and command.unit.role not in ONE_SHOTS:
            lately = [at for at, spawn in world.spawned if (spawn.unit, spawn.generation) == (command.unit, command.generation)]
            assert len([at for at in lately if at > world.now - 10.0]) <= MOST_STARTS_IN_10_S, command


@watch
def what_is_dead_is_not_thought_alive(world: World, fact: Fact, commands: list[Command]) -> None:
    for process in world.core.state.roster:
        child = world.children.get(process.serial)
        if child is not None and process.state is ProcessState.READY and process.unit.role in (Role.SHARD, Role.KEEPER):
            assert child.ready, (process, child)


def _was_hung(world: World, pid: int) -> bool:
    return any(getattr(e, "name", "") == "process.condemned" and e.pid == pid and "did not leave" not in e.why for _, e in world.events)


def check_all(checks: Iterable[Any] = WATCHES) -> list[Any]:
    """Return every invariant, for `World.watchers`."""
    return list(checks)
