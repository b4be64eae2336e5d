"""A shard that sizes itself: grows for what waits, not for what a machine cannot run, and loses nothing on the way down."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import RunningShard, running_shard

HANG_S = 60.0


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def wait_size(shard: RunningShard, size: int) -> dict[str, Any]:
    return dict(
        shard.wait_snapshot(lambda s: s["executors"]["ready"] == s["executors"]["wanted"] == size, f"it has {size} executors", HANG_S)
    )


def test_a_heap_of_sleeping_tasks_brings_executors_for_all_of_them(database: Database, runs: Runs) -> None:
    with running_shard(database, executors={"min": 1, "max": 6}, drain_target=0.5) as shard:
        assert wait_size(shard, 1)["sizing"]["reason"] == "steady"
        ids = runs.add("nap", 0.3, count=40)
        snapshot = wait_size(shard, 6)
        assert snapshot["sizing"]["max"] == 6
        reasons = [event["reason"] for event in shard.events("pool.sized")]
        # Nobody knows at first that these tasks sleep: until then as many as there are processors.
        assert set(reasons) <= {"backlog", "unseen", "saturated"}
        assert {run.end for run in runs.ended(ids, timeout=HANG_S)} == {("SUCCESSFUL", None, 1)}


def test_computing_tasks_bring_no_more_executors_than_processors(database: Database, runs: Runs) -> None:
    processor = min(os.sched_getaffinity(0))
    with running_shard(database, executors={"min": 1, "max": 8}, drain_target=0.5, cpus=[processor]) as shard:
        ids = runs.add("burn", 0.05, count=60)
        shard.wait_snapshot(lambda s: s["sizing"]["reason"] == "saturated", "it says that more would be of no use", HANG_S)
        runs.ended(ids, timeout=HANG_S)
        shard.listen()
        assert all(event["executors"] <= 2 for event in shard.events("pool.sized"))


def test_a_paused_pool_does_not_grow_for_what_waits(database: Database, runs: Runs) -> None:
    with running_shard(database, executors={"min": 1, "max": 6}, drain_target=0.5) as shard:
        shard.say("pause")
        ids = runs.add("nap", 0.1, count=60)
        shard.wait_snapshots(9)
        assert shard.snapshot["executors"]["wanted"] == 1
        shard.say("resume")
        wait_size(shard, 6)
        runs.ended(ids, timeout=HANG_S)


def test_new_bounds_bring_it_down_without_losing_or_counting_anything(database: Database, runs: Runs, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors={"min": 1, "max": 6}, drain_target=0.5) as shard:
        ids = runs.add("record_interval", str(record), "run", 0.2, count=60)
        wait_size(shard, 6)
        shard.adjust(executors={"min": 1, "max": 2}, drain_target=0.5)
        assert wait_size(shard, 2)["sizing"]["reason"] == "limit"
        assert {run.end for run in runs.ended(ids, timeout=HANG_S)} == {("SUCCESSFUL", None, 1)}
        assert record.read_text().count("start") == len(ids)


def test_a_shard_takes_its_part_of_what_several_serve(database: Database, runs: Runs) -> None:
    executors = {"min": 1, "max": 20}
    with (
        running_shard(database, executors=executors, drain_target=10.0) as first,
        running_shard(database, executors=executors, drain_target=10.0) as second,
    ):
        runs.add("nap", 0.5, count=200)
        for shard in (first, second):
            shard.wait_snapshot(lambda s: s["sizing"]["reason"] == "backlog" or s["executors"]["wanted"] > 1, "it grows", HANG_S)
        # 200 of half a second, unknown at first and so taken for one, in ten seconds: 20 in all, and some for what may still come.
        assert max(event["executors"] for shard in (first, second) for event in shard.events("pool.sized")[:1]) <= 14
        first.say("quit", grace=0.0, within=5.0)
        second.say("quit", grace=0.0, within=5.0)


def test_a_pool_without_executors_forks_one_for_a_task(database: Database, runs: Runs) -> None:
    # Long polls: it must hear of the task, not find it.
    with running_shard(database, executors={"min": 0, "max": 3}, poll={"min": 60.0, "max": 60.0}) as shard:
        shard.wait_snapshots(3)
        assert shard.snapshot["executors"]["pids"] == []
        assert shard.snapshot["state"] == "ready"
        assert runs.ended(runs.add("noop"), timeout=30.0)[0].end == ("SUCCESSFUL", None, 1)
        assert wait_size(shard, 1)["sizing"]["min"] == 0
        assert {run.end for run in runs.ended(runs.add("nap", 0.05, count=20), HANG_S)} == {("SUCCESSFUL", None, 1)}


def test_a_pool_without_executors_that_is_paused_claims_nothing(database: Database, runs: Runs) -> None:
    with running_shard(database, executors={"min": 0, "max": 3}) as shard:
        shard.say("pause")
        shard.wait_snapshot(lambda s: "paused" in s["why"], "it says that it is paused", HANG_S)
        ids = runs.add("noop")
        shard.wait_snapshots(6)
        assert (shard.snapshot["executors"]["wanted"], shard.snapshot["held"]) == (0, 0)
        shard.say("resume")
        runs.ended(ids, HANG_S)
