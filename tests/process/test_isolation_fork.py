"""`isolation: fork`: every task has a process of its own, forked ahead of it and gone after it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.core.policy.fresh import executors_to_keep
from tests.support.eventually import eventually
from tests.support.marked import children_of
from tests.support.postgres import Cluster
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard
from tests.support.shared_pool import SharedPool, shared_pool


@pytest.fixture(scope="module")
def pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    folder = tmp_path_factory.mktemp("fork")
    with shared_pool(cluster, folder, executors=2, isolation="fork", grace=0.5) as pool:
        yield pool


def test_each_task_finds_a_fresh_process(runs: Runs) -> None:
    ids = runs.add(f"{ODD}count_calls", count=60)
    results = [run.result for run in runs.ended(ids)]
    assert {calls for _, calls in results} == {1}
    assert len({pid for pid, _ in results}) == 60


def test_forks_wait_for_work_and_never_more_than_wanted_run(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    kept = executors_to_keep(2, single_use=True)
    shard.wait_executors(kept)
    record = tmp_path / "record"
    ids = runs.add("record_interval", str(record), "x", 0.2, count=12)
    assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
    running = most = 0
    for _, what in sorted((line.split()[3], line.split()[1]) for line in record.read_text().splitlines()):
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 2
    shard.wait_executors(kept)


def test_an_executor_that_leaves_after_its_task_is_nothing_to_tell(shard: RunningShard, runs: Runs) -> None:
    before = len(shard.events("executor.exited"))
    runs.ended(runs.add("echo", count=30))
    runs.end_of("fail", max_attempts=1)
    eventually(lambda: len(children_of(shard.nursery_pid)) == executors_to_keep(2, single_use=True), what="all of them are reaped")
    shard.wait_snapshots(2)
    assert len(shard.events("executor.exited")) == before


@pytest.mark.parametrize(
    ("task", "args", "log"),
    [
        (f"{ODD}write_from_c", ["from C"], "STDOUT:\nfrom C\nSTDERR:\nfrom C\n"),
        (f"{ODD}print_only", ["from Python"], "STDOUT:\nfrom Python\nSTDERR:\n"),
        (f"{ODD}print_from_a_program", ["from a program"], "STDOUT:\nfrom a program\nSTDERR:\n"),
        (f"{ODD}print_and_crash", ["last words"], "STDOUT:\nlast words\nSTDERR:\n"),
        ("noop", [], ""),
    ],
)
def test_what_a_task_writes_is_in_its_log(runs: Runs, task: str, args: list[str], log: str) -> None:
    assert runs.end_of(task, *args, max_attempts=1).log == log


def test_a_waiting_fork_that_is_killed_is_replaced(shard: RunningShard, runs: Runs) -> None:
    kept = executors_to_keep(2, single_use=True)
    for pid in (before := shard.wait_executors(kept)):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not set(before) & set(shard.wait_executors(kept)), what="others took their places")
    assert runs.end_of("echo").end == ("SUCCESSFUL", None, 1)


def test_the_size_changes_while_it_runs(shard: RunningShard, runs: Runs) -> None:
    shard.adjust(executors=5)
    shard.wait_executors(executors_to_keep(5, single_use=True))
    shard.adjust(executors=2)
    shard.wait_executors(executors_to_keep(2, single_use=True))
    assert runs.end_of("echo").end == ("SUCCESSFUL", None, 1)
