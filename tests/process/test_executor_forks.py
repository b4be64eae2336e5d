"""Tasks that misuse their process: they fork and come back twice, close what is not theirs, leave children behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.postgres import Cluster
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard
from tests.support.shared_pool import SharedPool, shared_pool


@pytest.fixture(scope="module")
def pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    folder = tmp_path_factory.mktemp("forks")
    with shared_pool(cluster, folder, executors=1) as pool:
        yield pool


@pytest.mark.parametrize("task", ["fork_and_return", "fork_and_exit", "fork_and_fail"])
def test_a_child_that_comes_back_from_the_task_ends_and_the_parent_speaks(shard: RunningShard, runs: Runs, task: str) -> None:
    before = shard.wait_executors(1)
    ids = runs.add(f"{ODD}{task}", count=20, max_attempts=1)
    assert {(run.status, run.result) for run in runs.ended(ids)} == {("SUCCESSFUL", "parent")}
    assert shard.wait_executors(1) == before
    assert runs.end_of("echo").status == "SUCCESSFUL"


def test_siblings_draw_different_random_numbers(runs: Runs) -> None:
    ids = runs.add(f"{ODD}draw_and_end", count=6, max_attempts=2)
    drawn = [error["message"] for run in runs.ended(ids) for error in run.errors]
    assert len(drawn) == 12
    numbers = {run.log for run in runs.look(ids)}
    assert len(numbers) == 6


def test_a_task_that_closes_every_descriptor_is_a_crash_of_its_executor(shard: RunningShard, runs: Runs) -> None:
    before = shard.wait_executors(1)
    assert runs.end_of(f"{ODD}close_every_descriptor", max_attempts=1).end == ("FAILED", "worker_crashed", 1)
    assert not set(shard.wait_executors(1)) & set(before)
    assert runs.end_of("echo").status == "SUCCESSFUL"


def test_a_task_that_writes_rubbish_to_the_work_socket_is_a_crash_of_its_executor(shard: RunningShard, runs: Runs) -> None:
    before = shard.wait_executors(1)
    assert runs.end_of(f"{ODD}write_rubbish_to_sockets", max_attempts=1).end == ("FAILED", "worker_crashed", 1)
    assert not set(shard.wait_executors(1)) & set(before)
    assert runs.end_of("echo").status == "SUCCESSFUL"


def test_programs_that_a_task_starts_inherit_nothing_of_the_executor(runs: Runs) -> None:
    assert runs.end_of(f"{ODD}list_inheritable_descriptors").result == [0, 1, 2]


def test_a_grandchild_that_escaped_ends_with_the_executor(shard: RunningShard, runs: Runs) -> None:
    (executor,) = shard.wait_executors(1)
    escaped = runs.end_of("leave_grandchild").result
    assert Path(f"/proc/{escaped}").exists()
    runs.end_of("kill_itself", max_attempts=1)
    eventually(lambda: escaped not in shard.processes(), what="the grandchild is gone")
    shard.wait_event("stranger.killed", timeout=60.0)
    eventually(lambda: executor not in shard.wait_executors(1), what="another executor has come")


def test_a_program_that_a_task_starts_inherits_standard_descriptors_only(runs: Runs) -> None:
    assert runs.end_of(f"{ODD}descriptors_of_a_program").result == ["0", "1", "2", "3"]  # 3 is the folder that it lists
