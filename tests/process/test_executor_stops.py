"""How a running task is stopped: softly first, then with its stacks in the log, then with its executor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.store.migrate import migrate
from tests.support.postgres import Cluster, Database
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard, running_shard


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[Database]:
    with cluster.new_database(cluster.ensure_template(migrate)) as database:
        yield database


@pytest.fixture(scope="module")
def shard(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShard]:
    """A shard with one executor and a grace of half a second, for all tests of this module."""
    folder = tmp_path_factory.mktemp("stops")
    with running_shard(database, executors=1, grace=0.5, logs_dir=folder / "logs", log=folder / "shard.log") as shard:
        yield shard


@pytest.fixture
def runs(shard: RunningShard, database: Database) -> Runs:
    shard.listen()
    return Runs(database)


def survivors(shard: RunningShard, before: list[int]) -> list[int]:
    return [pid for pid in shard.wait_executors(1) if pid in before]


def test_a_task_over_its_time_can_clean_up_and_its_executor_lives_on(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    before, marker = shard.wait_executors(1), tmp_path / "marker"
    run = runs.end_of(f"{ODD}clean_up_when_asked", str(marker), max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert "1 s" in run.message
    assert marker.read_text() == "SoftTimeout"
    assert survivors(shard, before) == before


def test_a_sleeping_coroutine_over_its_time_can_clean_up(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    before, marker = shard.wait_executors(1), tmp_path / "marker"
    run = runs.end_of(f"{ODD}sleep_in_coroutine", str(marker), max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert marker.read_text() == "CancelledError"
    assert survivors(shard, before) == before


def test_a_coroutine_over_its_time_is_stopped_whatever_its_loop_does_just_then(shard: RunningShard, runs: Runs) -> None:
    before = shard.wait_executors(1)
    run = runs.end_of(f"{ODD}sleep_beside_a_busy_task", max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert survivors(shard, before) == before


@pytest.mark.parametrize("task", ["hang_stubbornly", f"{ODD}hang_in_c", f"{ODD}hang_with_signals_masked"])
def test_a_task_that_does_not_stop_loses_its_executor(shard: RunningShard, runs: Runs, task: str) -> None:
    before = shard.wait_executors(1)
    run = runs.end_of(task, max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert survivors(shard, before) == []
    assert runs.end_of("echo").status == "SUCCESSFUL"


def test_the_stacks_of_a_stubborn_task_are_in_the_log_before_its_executor_is_killed(shard: RunningShard, runs: Runs) -> None:
    runs.end_of("hang_stubbornly", max_attempts=1, timeout_seconds=1)
    shard.wait_for(lambda: "in hang_stubbornly" in shard.log, "the stacks are in the log")


def test_a_time_limit_is_retried_like_any_failure(runs: Runs) -> None:
    run = runs.end_of("nap", 60, max_attempts=2, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 2)


def test_the_smaller_time_limit_of_task_and_pool_counts(database: Database) -> None:
    with running_shard(database, queues={"short": 1}, timeout=0.5):
        run = Runs(database).end_of("nap", 60, max_attempts=1, timeout_seconds=600, queue_name="short")
        assert run.end == ("FAILED", "timeout", 1)
        assert "0.5 s" in run.message


def test_a_running_task_is_cancelled_within_a_second(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    before, ready, marker = shard.wait_executors(1), tmp_path / "ready", tmp_path / "marker"
    (run,) = runs.add(f"{ODD}say_ready_and_clean_up", str(ready), str(marker))
    shard.wait_for(ready.exists, "it runs")
    runs.cancel([run])
    ended = runs.ended([run], timeout=10)[0]  # of itself it would in an hour
    assert (ended.status, ended.errors[-1]["kind"]) == ("CANCELLED", "cancelled")
    assert marker.read_text() == "SoftTimeout"
    assert survivors(shard, before) == before


def test_a_run_that_waits_in_the_shard_is_cancelled_without_running(shard: RunningShard, runs: Runs, tmp_path: Path) -> None:
    record = tmp_path / "record"
    runs.ended(runs.add("record_interval", str(record), "warm", 0, count=50))
    (long,) = runs.add("record_interval", str(record), "long", 2, priority=1)
    waiting = runs.add("record_interval", str(record), "waiting", 0, count=10)
    shard.wait_for(lambda: "long start" in record.read_text(), "the long one runs")
    runs.cancel(waiting)
    assert {run.status for run in runs.ended(waiting)} == {"CANCELLED"}
    assert runs.ended([long])[0].status == "SUCCESSFUL"
    assert "waiting start" not in record.read_text()


def test_a_limit_of_nothing_is_no_limit_of_its_own(runs: Runs) -> None:
    for nothing in (0, -5):
        assert runs.end_of("nap", 0.4, timeout_seconds=nothing).end == ("SUCCESSFUL", None, 1)


def test_a_signal_that_meets_the_end_of_a_task_never_hits_the_next(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, executors=8, queues={"brink": 1}, timeout=0.3, logs_dir=None) as shard:
        pids = shard.wait_executors(8)
        quick, brink = [], []
        for number in range(80):
            brink += runs.add("nap", 0.25 + number % 20 * 0.01, queue_name="brink", max_attempts=1)
            quick += runs.add("echo", queue_name="brink", max_attempts=1)
        assert {run.end for run in runs.ended(quick)} == {("SUCCESSFUL", None, 1)}
        ends = {run.end for run in runs.ended(brink)}
        assert ends == {("SUCCESSFUL", None, 1), ("FAILED", "timeout", 1)}
        assert shard.wait_executors(8) == pids
