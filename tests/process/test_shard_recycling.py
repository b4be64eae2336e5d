"""Executors are replaced under load: every run ends once, none is counted twice, and nothing of the old ones stays."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.pool.turns import PoolTurns
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import DEMO, Run, Runs
from tests.support.shard import RunningShard, running_shard

BUSY_S = 90.0
"""For hundreds of tasks, on a machine that has much else to do."""


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def rules(**changes: Any) -> dict[str, Any]:
    return {"tasks": 0, "rss": 0, "age": 0.0, "jitter": 0.0, "at_once": 1, **changes}


def recycled(shard: RunningShard) -> list[dict[str, Any]]:
    return shard.events("executor.recycled")


def assert_each_ran_once(record: Path, ended: list[Run]) -> None:
    assert Counter(run.end for run in ended) == {("SUCCESSFUL", None, 1): len(ended)}
    assert record.read_text().count("start") == len(ended)


@pytest.mark.parametrize(
    ("rule", "seconds"),
    [({"tasks": 20, "jitter": 0.5}, 0.0), ({"tasks": 20, "jitter": 0.5}, 0.02), ({"age": 0.25, "jitter": 0.2}, 0.02), ({"rss": 1}, 0.0)],
    ids=["tasks-short", "tasks", "age", "rss-short"],
)
def test_recycling_under_load_loses_and_counts_nothing(
    database: Database, runs: Runs, tmp_path: Path, rule: dict[str, Any], seconds: float
) -> None:
    record = tmp_path / "record"
    (reason, *_) = rule
    with running_shard(database, executors=2, recycle=rules(**rule)) as shard:
        ids = runs.add("record_interval", str(record), "run", seconds, count=300)
        assert_each_ran_once(record, runs.ended(ids, timeout=BUSY_S))
        shard.wait_snapshot(lambda s: s["recycled"][reason] >= 4, "several were recycled", timeout=60.0)
        assert not shard.events("executor.exited")
        assert {event["reason"] for event in recycled(shard)} == {reason}
        if reason == "tasks":
            assert min(event["tasks"] for event in recycled(shard)) >= 10


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_executors_with_slots_are_recycled_when_their_last_task_has_ended(
    database: Database, runs: Runs, tmp_path: Path, mode: str
) -> None:
    record = tmp_path / "record"
    with running_shard(database, mode=mode, slots=4, executors=2, recycle=rules(tasks=20, jitter=0.2)) as shard:
        long = runs.add("record_interval", str(record), "long", 1.5, count=3)
        ids = runs.add("record_interval", str(record), "run", 0.02, count=300)
        assert_each_ran_once(record, runs.ended([*long, *ids], timeout=BUSY_S))
        shard.wait_snapshot(lambda s: s["recycled"]["tasks"] >= 3, "several were recycled", timeout=60.0)
        assert not shard.events("executor.exited")


def test_recycling_by_age_needs_no_work_and_is_no_loop_of_crashes(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2, recycle=rules(age=0.2)) as shard:
        first = shard.wait_executors(2)
        shard.wait_event("executor.recycled", timeout=60.0, count=12)  # many more than a crew may lose before it has done anything
        assert not shard.events("executor.exited")
        assert not set(first) & set(shard.executors)
        assert {run.end for run in runs.ended(runs.add("echo", count=50))} == {("SUCCESSFUL", None, 1)}


def test_a_leak_ends_before_it_meets_the_hard_limit_and_costs_no_run(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2, recycle=rules(rss=64 << 20)) as shard:
        ended = runs.ended(runs.add("leak", 8, count=60), timeout=BUSY_S)
        assert Counter(run.end for run in ended) == {("SUCCESSFUL", None, 1): 60}
        # Eight leaks of 8 MiB, and what it runs while the other one has the turn.
        assert max(run.result for run in ended) <= 128
        shard.wait_snapshot(lambda s: s["recycled"]["rss"] >= 5, "the leaking were recycled", timeout=60.0)
        assert all(event["private_bytes"] >= 64 << 20 for event in recycled(shard))


def test_memory_that_was_there_before_the_fork_is_not_the_executors_own(database: Database, runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text("large = bytearray(b'x' * 4096) * (96 << 8)\n")
    app = {"path": [str(tmp_path), os.getcwd()], "preload": ["large", "workers.demo.tasks"]}
    with running_shard(database, executors=1, recycle=rules(rss=64 << 20), app=app) as shard:
        assert runs.end_of("echo").status == "SUCCESSFUL"
        assert runs.end_of("leak", 8).status == "SUCCESSFUL"
        shard.wait_snapshots(3)
        assert shard.snapshot["recycled"]["rss"] == 0
        assert runs.end_of("leak", 64).status == "SUCCESSFUL"
        assert shard.wait_event("executor.recycled")["reason"] == "rss"


def test_a_task_that_passes_the_threshold_is_let_finish(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1, recycle=rules(rss=32 << 20)) as shard:
        run = runs.end_of("hold", 96, 1.0)
        assert (run.end, run.result) == (("SUCCESSFUL", None, 1), 96)
        shard.wait_snapshots(2)
        assert shard.snapshot["recycled"]["rss"] == 0  # it gave the memory back, and was asked again at its end


def test_recycling_leaves_no_descriptor_behind(database: Database, runs: Runs) -> None:
    def descriptors(shard: RunningShard) -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (shard.pid, shard.nursery_pid)]

    with running_shard(database, executors=2, recycle=rules(rss=1 << 40)) as shard:  # measured, and never met
        runs.ended(runs.add("echo", count=20))
        shard.wait_snapshots(2)
        before = descriptors(shard)
        shard.adjust(recycle=rules(age=0.05, rss=1 << 40))
        shard.wait_event("executor.recycled", timeout=60.0, count=20)
        shard.adjust(recycle=rules(rss=1 << 40))
        eventually(lambda: descriptors(shard) == before, timeout=30.0, what=f"{before} descriptors, now {descriptors(shard)}")


def test_the_rules_are_live(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        (old,) = shard.wait_executors(1)
        runs.ended(runs.add("echo", count=30))
        shard.adjust(recycle=rules(tasks=5))
        assert shard.wait_event("executor.recycled")["pid"] == old
        assert runs.end_of(f"{DEMO}echo").status == "SUCCESSFUL"


def test_a_turn_that_another_shard_of_the_pool_has_is_waited_for(database: Database, runs: Runs, tmp_path: Path) -> None:
    with running_shard(database, executors=2, recycle=rules(tasks=1), runtime_dir=tmp_path) as shard:
        turns = PoolTurns(tmp_path / "recycle-default.turns")
        assert turns.take_nowait(1) == 0  # as a shard in another process would
        assert {run.status for run in runs.ended(runs.add("echo", count=20))} == {"SUCCESSFUL"}
        shard.wait_snapshot(lambda s: s["recycling"] >= 1, "somebody waits for a turn")
        shard.wait_snapshots(2)
        assert not recycled(shard)
        turns.give_back(0)
        shard.wait_event("executor.recycled")


def test_an_executor_that_crashes_on_its_way_out_is_a_crash(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1, recycle=rules(tasks=1)) as shard:
        ended = runs.ended(runs.add("crash", count=3, max_attempts=1))
        assert Counter(run.end for run in ended) == {("FAILED", "worker_crashed", 1): 3}
        assert runs.end_of("echo").end == ("SUCCESSFUL", None, 1)
        assert len(shard.events("executor.exited")) == 3


def test_a_drain_in_the_middle_of_recycling_gives_everything_back(database: Database, runs: Runs, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=2, recycle=rules(tasks=2)) as shard:
        ids = runs.add("record_interval", str(record), "run", 0.01, count=300)
        shard.wait_event("executor.recycled", count=3)
        shard.say("drain", timeout=30)
        assert shard.wait_exit() == 0
    left = [run for run in runs.look(ids) if run.lane]
    assert {(run.status, run.attempts) for run in left} <= {("READY", 0)}
    assert record.read_text().count("start") == 300 - len(left)
