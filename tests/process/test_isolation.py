"""What holds wherever each task has a process of its own (`isolation: fork` and `exec`)."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.marked import parent_of, state_of
from tests.support.postgres import Cluster, Database
from tests.support.runs import ODD, Runs
from tests.support.shard import EXEC, RunningShard, running_shard
from tests.support.shared_pool import SharedPool, shared_pool

ISOLATIONS: dict[str, dict[str, Any]] = {"fork": {"isolation": "fork"}, "exec": {"isolation": "exec", "exec": EXEC}}


@pytest.fixture(scope="module", params=sorted(ISOLATIONS))
def pool(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    folder = tmp_path_factory.mktemp(request.param)
    with shared_pool(cluster, folder, executors=2, grace=0.5, **ISOLATIONS[request.param]) as pool:
        yield pool


def test_the_death_of_a_task_is_its_own(shard: RunningShard, runs: Runs) -> None:
    nap = runs.add("nap", 1.0)
    crashed = runs.ended(runs.add("kill_itself", count=10, max_attempts=1))
    assert {run.end for run in crashed} == {("FAILED", "worker_crashed", 1)}
    assert runs.ended(nap)[0].end == ("SUCCESSFUL", None, 1)


def test_a_task_over_its_time_can_clean_up(runs: Runs, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    run = runs.end_of(f"{ODD}clean_up_when_asked", str(marker), max_attempts=1, timeout_seconds=1)
    assert (run.end, marker.read_text()) == (("FAILED", "timeout", 1), "SoftTimeout")


def test_a_task_that_does_not_stop_is_killed(runs: Runs) -> None:
    assert runs.end_of("hang_stubbornly", max_attempts=1, timeout_seconds=1).end == ("FAILED", "timeout", 1)


def test_a_running_task_is_cancelled(shard: RunningShard, runs: Runs) -> None:
    ids = runs.add("hang")
    shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
    runs.cancel(ids)
    assert runs.ended(ids)[0].status == "CANCELLED"


def test_a_task_leaves_no_process_behind(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    left = runs.end_of(f"{ODD}leave_writer", "late words", str(go)).result
    eventually(lambda: state_of(left) == "", what="what escaped is gone")
    next_run = runs.end_of(f"{ODD}print_around", "words", str(go), str(go) + ".done", 0.2)
    assert next_run.log in ("STDOUT:\nwords\nwords\nSTDERR:\n", "STDOUT:\nSTDERR:\nwords\nwords\n")


@pytest.mark.parametrize("isolation", sorted(ISOLATIONS))
def test_a_drain_lets_what_runs_finish_and_gives_the_rest_back(database: Database, isolation: str) -> None:
    runs = Runs(database)
    with running_shard(database, executors=2, **ISOLATIONS[isolation]) as shard:
        ids = runs.add("nap", 1.0, count=10)
        shard.wait_snapshot(lambda s: s["running"] == 2, "two run")
        shard.say("drain", timeout=20)
        assert shard.wait_exit() == 0
    ended = [run.end for run in runs.look(ids)]
    assert ended.count(("SUCCESSFUL", None, 1)) == 2
    assert ended.count(("READY", None, 0)) == 8


@pytest.mark.parametrize("isolation", sorted(ISOLATIONS))
def test_a_drain_that_runs_out_of_time_gives_back_what_runs(database: Database, isolation: str) -> None:
    runs = Runs(database)
    with running_shard(database, executors=2, grace=0.5, **ISOLATIONS[isolation]) as shard:
        ids = runs.add("hang", count=1) + runs.add("hang_stubbornly", count=1)
        shard.wait_snapshot(lambda s: s["running"] == 2, "both run")
        shard.say("drain", timeout=0)
        assert shard.wait_exit() == 0
    assert [run.end for run in runs.look(ids)] == [("READY", None, 0)] * 2


@pytest.mark.parametrize("isolation", sorted(ISOLATIONS))
@pytest.mark.parametrize("victim", ["executor", "nursery", "shard"])
def test_nothing_of_a_task_outlives_its_executor(database: Database, isolation: str, victim: str, tmp_path: Path) -> None:
    runs, ticks = Runs(database), tmp_path / "ticks"
    with running_shard(database, executors=1, **ISOLATIONS[isolation]) as shard:
        runs.add(f"{ODD}tick", str(ticks), 3600)
        shard.wait_for(lambda: ticks.exists() and ticks.stat().st_size, "the task runs")
        task = int(ticks.read_text().split()[0])
        executor = task if isolation == "fork" else parent_of(task)
        pid = {"executor": executor, "nursery": shard.nursery_pid, "shard": shard.pid}[victim]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: state_of(task) in ("", "Z"), what="the task is dead")


@pytest.mark.parametrize("isolation", sorted(ISOLATIONS))
@pytest.mark.slow
def test_a_frozen_shard_lets_no_task_run_past_its_lease(database: Database, isolation: str, tmp_path: Path) -> None:
    runs, ticks = Runs(database), tmp_path / "ticks"
    with running_shard(database, executors=1, lease=5.0, **ISOLATIONS[isolation]) as shard:
        (run,) = runs.add(f"{ODD}tick", str(ticks), 3600)
        shard.wait_for(lambda: ticks.exists() and ticks.stat().st_size, "the task runs")
        task = int(ticks.read_text().split()[0])
        shard.kill(signal.SIGSTOP)
        ((until,),) = runs.database.query("SELECT extract(epoch FROM leased_until)::float8 FROM task_lane WHERE result_id = %s", run)
        eventually(lambda: state_of(task) in ("", "Z"), timeout=60, what="the nursery killed it")
        ((now,),) = runs.database.query("SELECT extract(epoch FROM clock_timestamp())::float8")
        last = float(ticks.read_text().split()[-1])
        assert last - time.clock_gettime(time.CLOCK_BOOTTIME) + now < until
