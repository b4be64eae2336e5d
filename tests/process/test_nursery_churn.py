"""Executors die by the thousand, and a nursery cannot always fork: nothing is leaked, and nothing else is touched."""

import os
import resource
import signal
from pathlib import Path

import psutil
import pytest

from reproq_supervisor.core.policy.fresh import executors_to_keep
from tests.support.eventually import eventually
from tests.support.marked import children_of, state_of
from tests.support.postgres import Database
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard, running_shard

FORKED_TASKS = int(os.environ.get("REPROQ_CHURN_TASKS", "2000"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def settle(shard: RunningShard, executors: int) -> tuple[int, int]:
    """Wait until all executors are up and nothing is left of others; return the descriptors of shard and nursery."""
    shard.wait_executors(executors)
    eventually(lambda: len(children_of(shard.nursery_pid)) == executors, what="no zombie is left")
    shard.wait_snapshot(lambda s: s["executors"]["ready"] == executors and not s["executors"]["booting"], "all are ready")
    return descriptors(shard.pid), descriptors(shard.nursery_pid)


def not_more(after: tuple[int, int], before: tuple[int, int]) -> bool:
    """Answer whether neither count grew: the first one may have met descriptors that were just being handed over."""
    return after[0] <= before[0] and after[1] <= before[1]


@pytest.mark.slow
def test_descriptors_and_zombies_stay_flat_over_a_thousand_executor_deaths(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, executors=4, logs_dir=tmp_path / "logs") as shard:
        runs.ended(runs.add(f"{ODD}print_and_crash", "words", count=40, max_attempts=1))
        before = settle(shard, 4)
        ids = runs.add(f"{ODD}print_and_crash", "words", count=1000, max_attempts=1)
        assert {run.end for run in runs.ended(ids, timeout=90)} == {("FAILED", "worker_crashed", 1)}
        assert not_more(settle(shard, 4), before)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_descriptors_and_zombies_stay_flat_over_thousands_of_forked_tasks(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    kept = executors_to_keep(4, single_use=True)
    with running_shard(database, executors=4, isolation="fork", logs_dir=tmp_path / "logs") as shard:

        def settled() -> tuple[int, int]:
            eventually(lambda: len(children_of(shard.nursery_pid)) == len(shard.executors) == kept, what="only those that wait are left")
            shard.wait_snapshots(2)
            return descriptors(shard.pid), descriptors(shard.nursery_pid)

        runs.ended(runs.add(f"{ODD}print_only", "words", count=50))
        before = settled()
        for task in (f"{ODD}print_only", "noop"):
            ids = runs.add(task, *(["words"] if task != "noop" else []), count=FORKED_TASKS // 2)
            assert {run.end for run in runs.ended(ids, timeout=550)} == {("SUCCESSFUL", None, 1)}
        assert settled() == before
        assert not shard.events("executor.exited")


def test_descriptors_and_zombies_stay_flat_over_deaths_of_idle_and_leaving_executors(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, executors=4) as shard:
        before = settle(shard, 4)
        for round_ in range(15):
            for pid in shard.wait_executors(4)[: 1 + round_ % 4]:
                os.kill(pid, signal.SIGKILL)
            shard.adjust(executors=1 + round_ % 3)
            shard.wait_executors(1 + round_ % 3)
            assert runs.end_of("echo").status == "SUCCESSFUL"
            shard.adjust(executors=4)
        assert not_more(settle(shard, 4), before)


def test_executors_that_die_before_they_do_anything_end_the_shard_with_a_reason(database: Database, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos.register_at_fork(after_in_child=lambda: os._exit(7))\n")
    app = {"path": [str(tmp_path)], "preload": ["deadly"]}
    with running_shard(database, ready=False, app=app, executors=2) as shard:
        assert "executors in a row" in shard.wait_said("failed")["reason"]
        assert shard.wait_exit() == 70
        assert {event["status"] for event in shard.events("executor.exited")} <= {7, -signal.SIGKILL}


def test_a_nursery_that_cannot_fork_keeps_what_runs_and_tries_again(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, executors=2) as shard:
        ids = runs.add("nap", 3)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        before = shard.wait_executors(2)
        nursery = psutil.Process(shard.nursery_pid)
        soft, hard = nursery.rlimit(resource.RLIMIT_NOFILE)
        nursery.rlimit(resource.RLIMIT_NOFILE, (descriptors(nursery.pid) + 2, hard))
        shard.adjust(executors=6)
        shard.wait_event("executor.not_forked")
        assert set(before) <= set(shard.executors)
        nursery.rlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert set(before) < set(shard.wait_executors(6))
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
        assert all(state_of(pid) for pid in before)


def test_hundreds_of_executors_are_forked_in_one_go(database: Database) -> None:
    with running_shard(database, executors=1) as shard:
        shard.adjust(executors=300)
        shard.wait_snapshot(lambda s: s["executors"]["ready"] == 300, "all are up", timeout=40)
        assert Runs(database).end_of("echo").status == "SUCCESSFUL"
        shard.adjust(executors=1)
        shard.wait_snapshot(lambda s: len(s["executors"]["pids"]) == 1, "they are gone", timeout=40)
