"""Stopping, pausing and resizing: nothing is lost, no attempt is counted, and what runs is left alone as long as it may."""

import os
import signal
from pathlib import Path

import pytest

from reproq_supervisor.core.policy.handout import FEW_WAITING
from reproq_supervisor.core.runs import RunId
from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Database
from tests.support.runs import ODD, SHARED, Runs
from tests.support.shard import RunningShard, running_shard


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def wait_running(shard: RunningShard, count: int) -> None:
    shard.wait_snapshot(lambda s: s["running"] == count, f"{count} tasks run")


@pytest.mark.parametrize("how", ["drain", "term"])
def test_a_drain_lets_running_tasks_finish_and_gives_the_rest_back(database: Database, runs: Runs, how: str) -> None:
    with running_shard(database, executors=4) as shard:
        running = runs.add("nap", 1.5, count=4)
        wait_running(shard, 4)
        waiting = runs.add("nap", 1.5, count=20)
        if how == "term":
            shard.kill(signal.SIGTERM)
        else:
            shard.say("drain", timeout=10)
        assert shard.wait_exit() == 0
        assert {run.end for run in runs.look(running)} == {("SUCCESSFUL", None, 1)}
        assert {(run.lane, run.attempts, len(run.errors)) for run in runs.look(waiting)} == {("ready", 0, 0)}


@pytest.mark.parametrize("order", ["drain", "quit"])
def test_a_drain_without_time_asks_running_tasks_to_stop_and_releases_them_uncounted(
    database: Database, runs: Runs, tmp_path: Path, order: str
) -> None:
    with running_shard(database, executors=2) as shard:
        ids = runs.add(f"{ODD}clean_up_when_asked", str(tmp_path / "marker"), count=2)
        wait_running(shard, 2)
        shard.say(order, timeout=0)
        assert shard.wait_exit() == 0
        assert (tmp_path / "marker").read_text() == "SoftTimeout"
        assert {(run.lane, run.attempts, len(run.errors)) for run in runs.look(ids)} == {("ready", 0, 0)}


def test_a_task_that_refuses_to_stop_is_killed_and_released_uncounted(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1, grace=0.5) as shard:
        ids = runs.add("hang_stubbornly")
        wait_running(shard, 1)
        shard.say("drain", timeout=0.2)
        assert shard.wait_exit() == 0
        assert [(run.lane, run.attempts, run.errors) for run in runs.look(ids)] == [("ready", 0, [])]


def test_a_quit_overtakes_a_drain(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        ids = runs.add("nap", 60)
        wait_running(shard, 1)
        shard.say("drain", timeout=60)
        shard.wait_snapshot(lambda s: s["state"] == "draining", "it drains")
        shard.say("quit")
        assert shard.wait_exit() == 0
        assert [(run.lane, run.attempts) for run in runs.look(ids)] == [("ready", 0)]


def test_an_idle_shard_drains_at_once(database: Database) -> None:
    with running_shard(database, executors=8) as shard:
        shard.say("drain", timeout=60)
        assert shard.wait_exit(timeout=2) == 0


def test_a_lost_lifeline_ends_everything_and_releases_what_ran(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        ids = [*runs.add("hang_stubbornly"), *runs.add(f"{ODD}leave_family")]
        wait_running(shard, 2)
        shard.close_lifeline()
        shard.wait_gone(timeout=2)
        assert {(run.lane, run.attempts, len(run.errors)) for run in runs.look(ids)} == {("ready", 0, 0)}


def test_a_paused_shard_claims_nothing_and_keeps_its_executors(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        before = shard.wait_executors(2)
        running = runs.add("nap", 1)
        wait_running(shard, 1)
        shard.say("pause")
        shard.wait_snapshot(lambda s: "paused" in s["why"], "it is paused")
        waiting = runs.add("echo", count=5)
        assert runs.ended(running)[0].end == ("SUCCESSFUL", None, 1)
        shard.wait_snapshots(4)
        assert {run.lane for run in runs.look(waiting)} == {"ready"}
        shard.say("resume")
        assert {run.end for run in runs.ended(waiting)} == {("SUCCESSFUL", None, 1)}
        assert shard.wait_executors(2) == before


def test_work_that_never_starts_outlives_any_number_of_pauses(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        runs.ended(runs.add("noop", count=50))
        runs.add("nap", 60, priority=1)
        behind = runs.add("noop", count=5, max_attempts=1)
        wait_running(shard, 1)
        for _ in range(12):  # more than the releases that a run may have
            shard.wait_snapshot(lambda s: s["held"] > 1, "it holds more than it runs")
            shard.say("pause")
            shard.wait_snapshot(lambda s: "paused" in s["why"] and s["held"] <= 1, "it has put them back")
            shard.say("resume")
        assert {(run.status, run.attempts) for run in runs.look(behind)} == {("READY", 0)}


def test_what_was_held_for_short_tasks_is_given_back_when_they_turn_out_long(database: Database, runs: Runs, tmp_path: Path) -> None:
    go, there = tmp_path / "go", tmp_path / "there"
    there.touch()
    task = f"{SHARED}wait_for_file"

    def hold_many() -> list[RunId]:
        runs.ended(runs.add(task, str(there), count=600))
        ids = runs.add(task, str(go), count=200)
        wait_running(shard, 1)
        shard.wait_snapshots(2)
        if shard.snapshot["held"] > FEW_WAITING + 1 or shard.snapshot["released_total"]:
            return ids
        # On a busy machine they may have seemed long before.
        go.touch()
        runs.ended(ids)
        go.unlink()
        return []

    with running_shard(database, executors=1) as shard:
        ids = eventually(hold_many, timeout=60, what="it holds more than it will start soon")
        # What others could run, and what stands before what is urgent.
        shard.wait_snapshot(lambda s: s["released_total"] > 0 and s["held"] <= FEW_WAITING + 1, "it has given back all but a few")
        go.touch()
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}


def test_growing_and_shrinking_touch_no_running_executor(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        ids = runs.add("nap", 3, count=2)
        wait_running(shard, 2)
        busy = set(shard.wait_executors(2))
        shard.adjust(executors=5)
        assert busy < set(shard.wait_executors(5))
        shard.adjust(executors=2)
        assert set(shard.wait_executors(2)) == busy
        shard.adjust(executors=1)  # now one of the busy ones has to go, after its task
        shard.wait_executors(1)
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}


def test_resizing_all_the_time_loses_nothing(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=3) as shard:
        ids = runs.add("nap", 0.01, count=400)
        size = 0
        while runs.lane():
            size += 1
            shard.adjust(executors=1 + size % 4)
            shard.listen(0.02)
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
        assert not shard.events("executor.exited"), "a dismissed executor ends in order"


def test_a_new_time_limit_holds_for_what_runs(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        ids = runs.add("nap", 60, max_attempts=1)
        wait_running(shard, 1)
        shard.adjust(timeout=0.5, executors=1)
        assert runs.ended(ids)[0].end == ("FAILED", "timeout", 1)


def test_frozen_executors_do_not_hold_up_a_drain(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=3) as shard:
        runs.add("nap", 60)
        wait_running(shard, 1)
        for pid in shard.wait_executors(3):
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(state_of(pid) == "T" for pid in shard.snapshot["executors"]["pids"]), what="they are frozen")
        shard.say("drain", timeout=0)
        assert shard.wait_exit() == 0
        assert runs.lane() == {"ready": 1}
