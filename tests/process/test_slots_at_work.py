"""How many of its slots an executor uses, on the real thing: what it is told, and the number that gets most done."""

from pathlib import Path
from statistics import median

import pytest

from reproq_supervisor.pool.held import Held
from reproq_supervisor.process.deadlines import SoftReason
from tests.support.lone_executor import LoneExecutor, held_run, lone_executor
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import running_shard

HANG_S = 60.0
SHARED = "tests.support.shared_tasks."
WAITING = {"thread": f"{SHARED}wait_for_file", "async": f"{SHARED}wait_for_file_in_coroutine"}
every_mode = pytest.mark.parametrize("mode", ["thread", "async"])


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def waiting(mode: str, files: list[Path]) -> list[Held]:
    return [held_run(number, WAITING[mode], f'{{"args": ["{file}"]}}') for number, file in enumerate(files, 1)]


def flushed(executor: LoneExecutor) -> LoneExecutor:
    executor.end.flush()
    return executor


@every_mode
def test_an_executor_runs_as_many_as_it_was_told_last(mode: str, tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(8)]
    with lone_executor(mode, 4) as executor:
        executor.end.use_slots(2)
        runs = waiting(mode, files)
        executor.hand(runs)
        flushed(executor).wait_unstarted(6)
        executor.end.use_slots(4)
        flushed(executor).wait_unstarted(4)
        executor.end.use_slots(1)
        # It hears things in their order: when this one has ended, it has heard of its slots.
        executor.end.send_stop(runs[3].seq, SoftReason.CANCEL)
        flushed(executor).wait_results(1)
        for file in files[:2]:
            file.touch()
        # Three of four have ended; the fourth is one already, so none of those that wait has started.
        assert len(executor.wait_results(3)) == 3
        assert executor.end.unstarted() == 4
        files[2].touch()
        executor.wait_results(4)
        executor.wait_unstarted(3)
        for file in files[4:]:
            file.touch()
        executor.wait_results(8)


@every_mode
def test_an_executor_whose_slots_change_all_the_time_loses_and_doubles_nothing(mode: str) -> None:
    path = "workers.demo.tasks.coroutine_echo" if mode == "async" else "workers.demo.tasks.echo"
    runs = [held_run(number, path, f'{{"args": [{number}]}}') for number in range(1, 2001)]
    with lone_executor(mode, 8) as executor:
        for number in range(0, len(runs), 10):
            executor.end.use_slots(1 + number // 10 % 8)
            executor.hand(runs[number : number + 10])
            executor.read()
        done = [held.claimed.result_id for held, _ in executor.wait_results(len(runs), timeout=HANG_S)]
    assert sorted(done) == list(range(1, len(runs) + 1))


@every_mode
def test_an_executor_that_is_left_alone_with_fewer_slots_than_it_has_leaves(mode: str) -> None:
    with lone_executor(mode, 8) as executor:
        executor.end.use_slots(1)
        executor.hand([held_run(1, "workers.demo.tasks.echo", '{"args": [1]}')])
        executor.wait_results(1)
        executor.end.dismiss()
        assert executor.wait_exit() == 0


@pytest.mark.slow
def test_a_pool_of_coroutines_finds_the_number_that_gets_most_done(database: Database, runs: Runs) -> None:
    best = 8
    with running_shard(database, mode="async", slots={"min": 1, "max": 100}) as shard:
        runs.add(f"{SHARED}share", 0.02, best, count=12_000)
        seen: list[int] = []
        while len(seen) < 40:
            shard.wait_snapshots(1)
            seen.append(shard.snapshot["slot_sizing"]["slots"])
            assert shard.snapshot["slots"] <= 100
        # It climbs there by doubling, and then stays about it; far beyond it a quarter of the work gets done.
        assert best / 2 <= median(seen[15:]) <= 2 * best, seen
        events = shard.events("pool.slots_changed")
        assert {event["reason"] for event in events} & {"gain", "loss"}
        shard.say("quit", grace=0.0, within=10.0)


def test_a_shard_that_starts_again_begins_with_what_was_right(database: Database, runs: Runs) -> None:
    with running_shard(database, mode="async", slots={"min": 1, "max": 100}, slots_before=37) as shard:
        snapshot = shard.wait_snapshot(lambda s: s["slots"] == 37, "it begins with 37", HANG_S)
        assert snapshot["slot_sizing"]["slots"] == 37
        assert {run.end for run in runs.ended(runs.add("coroutine_nap", 0.01, count=100), HANG_S)} == {("SUCCESSFUL", None, 1)}


@every_mode
def test_a_fixed_number_is_nobodys_decision(mode: str, database: Database, runs: Runs) -> None:
    with running_shard(database, mode=mode, slots=4) as shard:
        runs.ended(runs.add("nap", 0.01, count=20), HANG_S)
        shard.wait_snapshots(2)
        assert shard.snapshot["slot_sizing"] is None
        assert shard.snapshot["slots"] == 4
