"""Which executors are replaced, in which order things happen, and what is done when they cannot."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.core.policy.recycle import RecyclePolicy, RecycleReason
from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.pool.held import Held, Phase
from reproq_supervisor.pool.recycling import Recycling
from reproq_supervisor.pool.turns import PoolTurns
from reproq_supervisor.pool.worker import Executor
from tests.support.crew import StillCrew

AFTER_TWO = RecyclePolicy(tasks=2, jitter=0.0)
Events = list[tuple[str, dict[str, Any]]]


class Scene:
    """A crew of some size, its recycling, and what was told."""

    def __init__(self, size: int, policy: RecyclePolicy, turns: PoolTurns) -> None:
        self.still = StillCrew(size)
        self.crew = self.still.crew
        self.events: Events = []
        self.recycling = Recycling(self.crew, self.still.times, turns, policy, lambda name, **fields: self.events.append((name, fields)))

    def finish(self, executor: Executor, tasks: int) -> None:
        """Let *executor* have finished so many tasks in all."""
        executor.finished_total = tasks
        self.recycling.look_at(executor)

    def run(self, executor: Executor, path: str) -> None:
        """Put a run into the executor's hands."""
        claimed = Claimed(RunId(1), LeaseNo(1), 1, "default", 0, path, 60.0, 3, b"{}")
        executor.in_hand.clear()
        executor.in_hand.add([Held(claimed, lease_until=1e12, claimed_mono=0.0, phase=Phase.HANDED)])

    def leave(self, executor: Executor) -> None:
        """Let a dismissed executor end as it was asked to."""
        self.recycling.note_left(executor)
        self.still.leave(executor)
        self.recycling.settle()

    @property
    def forks(self) -> int:
        """Forks that were asked for."""
        return len(self.still.nursery.forks)


@pytest.fixture
def play() -> Iterator[Callable[..., None]]:
    """Play a scene in an event loop: ``play(scenario, size, policy)``."""

    def run(scenario: Callable[[Scene], Awaitable[None]], size: int, policy: RecyclePolicy, turns: PoolTurns | None = None) -> None:
        async def main() -> None:
            scene = Scene(size, policy, turns or PoolTurns(None))
            try:
                await scenario(scene)
            finally:
                scene.still.close()

        asyncio.run(main())

    yield run


def test_the_replacement_is_there_before_the_old_one_is_dismissed(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        old, other = scene.crew.executors
        scene.finish(old, 2)
        assert scene.forks == 3
        assert (old.outgoing, old.leaving, old.takes_work, scene.crew.ready) == (True, False, False, 2)
        new = scene.still.arrive()
        assert (old.leaving, other.leaving, new.takes_work, scene.crew.ready) == (True, False, True, 2)
        scene.leave(old)
        assert scene.forks == 3
        assert scene.recycling.totals == {RecycleReason.TASKS: 1}
        ((name, fields),) = scene.events
        assert (name, fields["pid"], fields["reason"], fields["tasks"]) == ("executor.recycled", old.pid, "tasks", 2)

    play(scenario, 2, AFTER_TWO)


def test_one_at_a_time_until_it_is_gone(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        first, second, _ = scene.crew.executors
        scene.finish(first, 2)
        scene.finish(second, 2)
        assert (scene.forks, second.takes_work, scene.recycling.waiting) == (4, True, 1)
        scene.still.arrive()
        scene.recycling.look()
        assert (first.leaving, second.outgoing) == (True, False)
        scene.leave(first)
        scene.recycling.look()
        assert (second.outgoing, scene.forks) == (True, 5)

    play(scenario, 3, AFTER_TWO)


def test_more_at_once_where_it_was_asked_for(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        for executor in scene.crew.executors:
            scene.finish(executor, 2)
        assert [executor.outgoing for executor in scene.crew.executors] == [True, True, False]
        assert scene.forks == 5

    play(scenario, 3, RecyclePolicy(tasks=2, jitter=0.0, at_once=2))


def test_shards_of_a_pool_share_their_turns(tmp_path: Path, play: Callable[..., None]) -> None:
    # Locks of one process do not exclude each other, so the other shard is a process of its own.
    path = tmp_path / "recycle-mail.turns"

    async def scenario(scene: Scene) -> None:
        other = await asyncio.create_subprocess_exec(*_taking_a_turn(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert other.stdout is not None
        assert await other.stdout.readline() == b"0\n"
        (executor,) = scene.crew.executors
        scene.finish(executor, 2)
        assert (executor.outgoing, scene.recycling.waiting) == (False, 1)
        other.kill()
        await other.wait()
        scene.recycling.look()
        assert executor.outgoing

    play(scenario, 1, AFTER_TWO, PoolTurns(path))


def _taking_a_turn(path: Path) -> list[str]:
    import sys

    program = (
        "import sys; from pathlib import Path; from reproq_supervisor.pool.turns import PoolTurns\n"
        "turns = PoolTurns(Path(sys.argv[1])); print(turns.take_nowait(1), flush=True); sys.stdin.read()"
    )
    return [sys.executable, "-c", program, str(path)]


def test_a_replacement_that_cannot_be_forked_leaves_the_old_one_at_work(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        (executor,) = scene.crew.executors
        scene.finish(executor, 2)
        assert not executor.takes_work
        scene.crew.note_not_forked(scene.still.nursery.forks[-1])
        scene.recycling.note_not_forked()
        scene.recycling.look()
        assert (executor.takes_work, executor.leaving, scene.recycling.waiting) == (True, False, 1)

    play(scenario, 1, AFTER_TWO)


def test_turns_that_cannot_be_had_leave_everybody_at_work(tmp_path: Path, play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        (executor,) = scene.crew.executors
        scene.finish(executor, 2)
        scene.recycling.look()
        assert (executor.takes_work, scene.forks) == (True, 1)
        ((name, fields),) = scene.events  # told once, and tried again after a while
        assert name == "executor.not_recycled"
        assert "FileNotFoundError" in fields["error"]

    play(scenario, 1, AFTER_TWO, PoolTurns(tmp_path / "missing" / "turns"))


def test_an_outgoing_executor_that_dies_is_replaced_once(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        old, _ = scene.crew.executors
        scene.finish(old, 2)
        scene.still.leave(old)  # without having been dismissed
        scene.recycling.settle()
        assert scene.forks == 3
        scene.still.arrive()
        assert (scene.forks, scene.crew.ready, scene.recycling.totals) == (3, 2, {})
        scene.finish(scene.crew.executors[0], 2)
        assert scene.crew.executors[0].outgoing  # the turn came back

    play(scenario, 2, AFTER_TWO)


def test_a_smaller_size_takes_the_outgoing_one_first_and_needs_no_replacement(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        executors = scene.crew.executors
        scene.finish(executors[2], 2)
        scene.crew.wanted = 2
        scene.crew.fit()
        assert [executor.leaving for executor in executors] == [False, False, True]
        scene.still.arrive()  # it was on its way
        assert scene.crew.ready == 2

    play(scenario, 3, AFTER_TWO)


def test_a_shard_that_drains_forks_no_replacement(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        (executor,) = scene.crew.executors
        scene.crew.wanted = 0
        scene.crew.fit()
        scene.finish(executor, 2)
        assert (executor.leaving, scene.forks) == (True, 1)

    play(scenario, 1, AFTER_TWO)


def test_a_long_task_is_waited_for_before_the_turn_is_taken(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        long, short = scene.crew.executors
        scene.still.times.observe("a.long", 600.0)
        scene.still.times.observe("a.short", 0.01)
        scene.run(long, "a.long")
        scene.run(short, "a.short")
        scene.finish(long, 2)
        assert (long.outgoing, scene.recycling.waiting) == (False, 1)
        scene.finish(short, 2)
        assert short.outgoing
        scene.still.arrive()
        scene.leave(short)
        long.in_hand.clear()
        scene.finish(long, 3)
        assert long.outgoing

    play(scenario, 2, AFTER_TWO)


def test_rules_are_live(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        first, second = scene.crew.executors
        scene.finish(first, 50)
        assert scene.forks == 2
        scene.recycling.policy = RecyclePolicy(tasks=50, jitter=0.0)
        scene.recycling.look()
        assert first.outgoing
        scene.recycling.policy = RecyclePolicy()
        scene.finish(second, 5000)
        assert not second.outgoing

    play(scenario, 2, RecyclePolicy())


def test_every_executor_draws_its_own_jitter_once(play: Callable[..., None]) -> None:
    async def scenario(scene: Scene) -> None:
        (executor,) = scene.crew.executors
        scene.finish(executor, 499)
        assert not executor.outgoing  # at least half of it is never taken off
        used_at = next(tasks for tasks in range(500, 1001) if scene.finish(executor, tasks) or executor.outgoing)
        assert 500 <= used_at <= 1000

    play(scenario, 1, RecyclePolicy(tasks=1000, jitter=0.5))
