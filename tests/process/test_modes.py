"""`mode: thread` and `mode: async`: several tasks in one executor, each of which is timed, stopped, cancelled and logged by itself."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database
from tests.support.runs import ODD, SHARED, Runs
from tests.support.shard import RunningShard, running_shard
from tests.support.shared_pool import SharedPool, shared_pool

SLOTS = 6


@pytest.fixture(scope="module", params=["thread", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pool(mode: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    """A shard with one executor, which all tests of a mode share."""
    folder = tmp_path_factory.mktemp(mode)
    with shared_pool(cluster, folder, mode=mode, slots=SLOTS, grace=1.0) as pool:
        yield pool


@pytest.fixture
def executor(shard: RunningShard) -> int:
    """The one executor."""
    return shard.wait_executors(1)[0]


def wait_running(shard: RunningShard, count: int) -> None:
    shard.wait_snapshot(lambda s: s["running"] == count, f"{count} run")


def beside(runs: Runs, tmp_path: Path, count: int = 2, name: str = "go") -> tuple[list[Any], Path]:
    """Start tasks that run until the returned file exists."""
    go = tmp_path / name
    ids = runs.add(f"{SHARED}wait_for_file", str(go), count=count, max_attempts=3)
    return ids, go


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("task", ["nap", "coroutine_nap"])
def test_as_many_tasks_as_there_are_slots_run_at_once(shard: RunningShard, runs: Runs, tmp_path: Path, task: str) -> None:
    record = tmp_path / "record"
    kind = "record_interval" if task == "nap" else f"{SHARED}record_interval_in_coroutine"
    ids = runs.add(kind, str(record), "x", 0.3, count=3 * SLOTS)
    assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
    running = most = 0
    for _, what in sorted((line.split()[3], line.split()[1]) for line in record.read_text().splitlines()):
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == SLOTS
    assert shard.wait_snapshot(lambda s: s["slots"] == SLOTS, "its slots are told")


def test_results_and_errors_belong_to_their_runs(runs: Runs) -> None:
    coroutines = [runs.add("coroutine_echo", number)[0] for number in range(20)]
    functions = [runs.add("echo", number)[0] for number in range(20)]
    assert [run.result for run in runs.ended(coroutines)] == list(range(20))
    assert [run.result for run in runs.ended(functions)] == [{"args": [number], "kwargs": {}} for number in range(20)]
    assert runs.end_of("fail", "words", max_attempts=1).end == ("FAILED", "app_error", 1)
    assert runs.end_of(f"{ODD}interrupt", max_attempts=1).end == ("FAILED", "app_error", 1)
    assert runs.end_of(f"{SHARED}interrupt_in_coroutine", max_attempts=1).end == ("FAILED", "app_error", 1)
    assert runs.end_of("return_nan").end == ("FAILED", "bad_result", 1)
    assert runs.end_of(f"{SHARED}stop_iteration", max_attempts=1).end == ("FAILED", "app_error", 1)
    assert runs.end_of(f"{SHARED}return_coroutine", 5).result == 5


def test_short_tasks_go_through_in_numbers(runs: Runs) -> None:
    ids = runs.add("echo", count=1500) + runs.add("coroutine_echo", 1, count=1500)
    assert {run.end for run in runs.ended(ids, timeout=120)} == {("SUCCESSFUL", None, 1)}


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "seen"), [(f"{SHARED}spin_until_stopped", "SoftTimeout"), (f"{ODD}sleep_in_coroutine", "CancelledError")])
def test_a_task_over_its_time_can_clean_up_and_the_others_go_on(runs: Runs, executor: int, tmp_path: Path, task: str, seen: str) -> None:
    others, go = beside(runs, tmp_path)
    marker = tmp_path / "marker"
    run = runs.end_of(task, str(marker), max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert marker.read_text() == seen
    go.touch()
    assert {run.end for run in runs.ended(others)} == {("SUCCESSFUL", None, 1)}
    assert is_alive(executor)


@pytest.mark.parametrize("task", [f"{SHARED}spin_until_stopped", f"{ODD}sleep_in_coroutine"])
def test_a_running_task_is_cancelled_and_the_others_go_on(
    shard: RunningShard, runs: Runs, executor: int, tmp_path: Path, task: str
) -> None:
    others, go = beside(runs, tmp_path)
    (run,) = runs.add(task, str(tmp_path / "marker"))
    wait_running(shard, 3)
    runs.cancel([run])
    ended = runs.ended([run])[0]
    assert (ended.status, ended.errors[-1]["kind"]) == ("CANCELLED", "cancelled")
    go.touch()
    assert {run.end for run in runs.ended(others)} == {("SUCCESSFUL", None, 1)}
    assert is_alive(executor)


def test_several_are_asked_to_stop_at_once(runs: Runs, executor: int, tmp_path: Path) -> None:
    ids = runs.add(f"{ODD}sleep_in_coroutine", str(tmp_path / "marker"), count=SLOTS, max_attempts=1, timeout_seconds=1)
    assert {run.end for run in runs.ended(ids)} == {("FAILED", "timeout", 1)}
    assert is_alive(executor)


@pytest.mark.parametrize(("task", "args"), [("nap", [3600]), (f"{ODD}hang_in_c", [])])
def test_a_task_that_does_not_stop_costs_the_executor_and_the_others_nothing(
    shard: RunningShard, runs: Runs, executor: int, tmp_path: Path, task: str, args: list[int]
) -> None:
    """A blocked call sees no exception; code that keeps the interpreter lock lets nobody see anything."""
    others, go = beside(runs, tmp_path)
    stubborn = runs.end_of(task, *args, max_attempts=1, timeout_seconds=1)
    assert stubborn.end == ("FAILED", "timeout", 1)
    eventually(lambda: not is_alive(executor), what="the executor is killed")
    go.touch()
    assert {run.end for run in runs.ended(others)} == {("SUCCESSFUL", None, 1)}
    shard.wait_for(lambda: f"in {task.rpartition('.')[2]}" in shard.log, "the stacks are in the log")


def test_what_ends_within_the_grace_of_the_others_is_not_repeated(shard: RunningShard, runs: Runs, executor: int, tmp_path: Path) -> None:
    record = tmp_path / "record"
    (stubborn,) = runs.add("nap", 3600, max_attempts=1, timeout_seconds=1)
    wait_running(shard, 1)
    (other,) = runs.add("record_interval", str(record), "other", 2.5)  # ends after the stubborn one was given up
    assert runs.ended([other])[0].end == ("SUCCESSFUL", None, 1)
    assert runs.ended([stubborn])[0].end == ("FAILED", "timeout", 1)
    assert record.read_text().count("start") == 1
    eventually(lambda: not is_alive(executor), what="the executor is killed")


# -- deaths -----------------------------------------------------------------------------------------------------------


def test_a_crash_counts_for_every_run_of_the_executor_and_names_the_others(
    shard: RunningShard, runs: Runs, executor: int, tmp_path: Path
) -> None:
    others, go = beside(runs, tmp_path)
    wait_running(shard, 2)
    crashed = runs.end_of(f"{ODD}print_and_crash", "last words", max_attempts=1)
    assert crashed.end == ("FAILED", "worker_crashed", 1)
    assert (crashed.errors[-1]["exit_code"], sorted(crashed.errors[-1]["shared_with"])) == (3, sorted(others))
    assert crashed.log == "STDOUT:\nlast words\nSTDERR:\n"
    go.touch()
    for run in runs.ended(others):
        assert run.end == ("SUCCESSFUL", "worker_crashed", 2)
        assert sorted(run.errors[-1]["shared_with"]) == sorted({crashed.result_id, *others} - {run.result_id})
    assert not is_alive(executor)


def test_a_killed_executor_loses_nothing(shard: RunningShard, runs: Runs, executor: int, tmp_path: Path) -> None:
    ids, go = beside(runs, tmp_path, count=SLOTS)
    wait_running(shard, SLOTS)
    more = runs.add("echo", count=50)
    os.kill(executor, signal.SIGKILL)
    go.touch()
    assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", "worker_crashed", 2)}
    assert {run.end for run in runs.ended(more)} == {("SUCCESSFUL", None, 1)}


# -- output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [f"{ODD}print_only", *(f"{SHARED}{name}" for name in ("print_in_coroutine", "print_in_a_thread", "print_in_a_pool", "log_to_stderr"))],
)
def test_what_python_code_writes_is_in_the_log_of_its_run(runs: Runs, task: str) -> None:
    ids = [runs.add(task, f"words {number}")[0] for number in range(2 * SLOTS)]
    for number, run in enumerate(runs.ended(ids)):
        words = f"words {number}\n"
        assert run.end == ("SUCCESSFUL", None, 1)
        assert run.log == (f"STDOUT:\nSTDERR:\n{words}" if task.endswith("log_to_stderr") else f"STDOUT:\n{words}STDERR:\n")


def test_a_silent_task_has_no_log(runs: Runs) -> None:
    assert runs.end_of("noop").logs_uri is None


def test_what_is_written_below_python_is_in_the_log_of_the_executor_with_the_runs_of_that_time(
    shard: RunningShard, runs: Runs, executor: int, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    (run,) = runs.add(f"{SHARED}write_below_python", "from C", "from a program", str(go))
    wait_running(shard, 1)
    log = Path(shard.start_message["logs_dir"]) / f"executor-default-0-{executor}.log"
    eventually(lambda: log.exists() and "from a program" in log.read_text(), what="it is written down")
    go.touch()
    assert runs.ended([run])[0].log == ""
    assert "from C\n" in log.read_text()
    assert f"running: {run}" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_writer_that_a_task_left_behind_never_reaches_the_log_of_another(runs: Runs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = runs.end_of(f"{SHARED}leave_writing_thread", "late words", str(go))
    assert first.log == "STDOUT:\nearly words\nSTDERR:\n"
    next_run = runs.end_of(f"{ODD}print_around", "words", str(go), str(go) + ".done", 5.0)
    assert next_run.log == "STDOUT:\nwords\nwords\nSTDERR:\n"
    assert (tmp_path / "go.done").exists()


def test_a_flood_is_kept_to_its_first_mebibyte_and_the_rest_is_counted(runs: Runs) -> None:
    run = runs.end_of("flood", 8)
    assert f"[{run.result - (1 << 20)} bytes more were dropped]" in run.log
    assert len(run.log) < (1 << 20) + 200


@pytest.mark.parametrize("task", ["close_standard_descriptors", "redirect_standard_descriptors"])
def test_a_task_that_moves_the_descriptors_moves_them_for_nobody_else(
    shard: RunningShard, runs: Runs, executor: int, tmp_path: Path, task: str
) -> None:
    elsewhere, go = tmp_path / "elsewhere", tmp_path / "go"
    runs.end_of(f"{ODD}{task}", *([str(elsewhere), "before"] if task.startswith("redirect") else []))
    go.touch()
    assert runs.end_of(f"{ODD}print_only", "next").log == "STDOUT:\nnext\nSTDERR:\n"
    assert runs.end_of(f"{SHARED}write_below_python", task, "x", str(go)).log == ""
    log = Path(shard.start_message["logs_dir"]) / f"executor-default-0-{executor}.log"
    eventually(lambda: log.exists() and f"{task}\n" in log.read_text(), what="it is in the log of the executor")
    assert not elsewhere.exists() or elsewhere.read_text() == ""


@pytest.mark.parametrize("task", ["close_stdout", "replace_stdout", "drop_stdout"])
def test_a_task_that_spoils_standard_output_spoils_only_its_own(runs: Runs, task: str) -> None:
    assert runs.end_of(f"{ODD}{task}", *(["x"] if task == "close_stdout" else [])).end == ("SUCCESSFUL", None, 1)
    assert runs.end_of(f"{ODD}print_only", "next").log == "STDOUT:\nnext\nSTDERR:\n"


# -- drain and leases -------------------------------------------------------------------------------------------------


def test_a_drain_lets_running_tasks_end_and_asks_them_when_its_time_is_over(database: Database, mode: str, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, mode=mode, slots=4, grace=5.0) as shard:
        quick, go = beside(runs, tmp_path)
        slow = runs.add(f"{ODD}sleep_in_coroutine", str(tmp_path / "marker"), count=2)
        wait_running(shard, 4)
        waiting = runs.add("echo", count=20)
        shard.say("drain", timeout=2.0)
        go.touch()
        assert {run.end for run in runs.ended(quick)} == {("SUCCESSFUL", None, 1)}
        assert shard.wait_exit(30) == 0
        assert (tmp_path / "marker").read_text() == "CancelledError"
        assert {(run.status, run.attempts, len(run.errors)) for run in runs.look(slow + waiting)} == {("READY", 0, 0)}


def test_what_runs_while_the_database_is_frozen_is_stopped_before_its_lease_ends_and_released(
    own_database: Database, mode: str, tmp_path: Path
) -> None:
    runs, marker = Runs(own_database), tmp_path / "marker"
    with running_shard(own_database, mode=mode, slots=4, lease=5.0, heartbeat=0.5, grace=0.5) as shard:
        (executor,) = shard.wait_executors(1)
        soft = runs.add(f"{ODD}sleep_in_coroutine", str(marker))
        wait_running(shard, 1)
        own_database.cluster.freeze()
        frozen = time.monotonic()
        eventually(marker.exists, what="it is asked to stop", timeout=10)
        assert time.monotonic() - frozen < 5.0
        assert is_alive(executor), "what listens costs no executor"
        own_database.cluster.thaw()
        shard.wait_snapshot(lambda s: s["released_total"] == 1, "it is given back")
        again = ("RUNNING", 1, [])  # uncounted: the second execution is the first attempt
        eventually(lambda: [(run.status, run.attempts, run.errors) for run in runs.look(soft)] == [again], what="it runs again")


def test_a_result_that_comes_after_the_lease_was_given_away_is_dropped(database: Database, mode: str, tmp_path: Path) -> None:
    runs, marker = Runs(database), tmp_path / "marker"
    with running_shard(database, mode=mode, slots=4) as shard:
        (executor,) = shard.wait_executors(1)
        others, go = beside(runs, tmp_path)
        runs.add(f"{ODD}sleep_in_coroutine", str(marker))
        wait_running(shard, 3)
        assert runs.release(shard.start_message["worker_id"]) == 3
        shard.wait_snapshot(lambda s: s["lost_total"] >= 3, "the loss is counted")
        eventually(marker.exists, what="it is stopped")
        go.touch()
        assert {run.status for run in runs.ended(others)} == {"SUCCESSFUL"}
        shard.wait_snapshot(lambda s: s["running"] == 1, "the other runs again")
        assert is_alive(executor)


def test_an_executor_that_has_done_enough_is_replaced_without_a_lost_or_counted_run(database: Database, mode: str) -> None:
    runs = Runs(database)
    recycle = {"tasks": 20, "rss": 0, "age": 0.0, "jitter": 0.0, "at_once": 1}
    with running_shard(database, mode=mode, slots=4, executors=2, recycle=recycle) as shard:
        ids = runs.add("nap", 0.01, count=150) + runs.add("coroutine_nap", 0.01, count=150)
        assert {run.end for run in runs.ended(ids, timeout=120)} == {("SUCCESSFUL", None, 1)}
        shard.wait_snapshot(lambda s: s["recycled"]["tasks"] >= 3, "some were replaced")


def test_hundreds_of_slots_are_used_and_given_back(database: Database, mode: str) -> None:
    runs = Runs(database)
    with running_shard(database, mode=mode, slots=300, grace=20.0) as shard:
        ids = runs.add("coroutine_nap" if mode == "async" else "nap", 3600, count=300)
        wait_running(shard, 300)
        more = runs.add("echo", count=10)
        runs.cancel(ids[:150])
        if mode == "async":
            assert {run.status for run in runs.ended(ids[:150])} == {"CANCELLED"}
            assert {run.end for run in runs.ended(more)} == {("SUCCESSFUL", None, 1)}
            wait_running(shard, 150)
        shard.say("quit")
        assert shard.wait_exit(60) == 0
        left = {(run.status, run.attempts) for run in runs.look(ids[150:])}
        assert left == {("READY", 0)}


# -- what a task can do to the process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["fork_and_return", "fork_and_exit"])
def test_a_task_that_forks_and_comes_back_twice_is_answered_once(runs: Runs, executor: int, task: str) -> None:
    run = runs.end_of(f"{ODD}{task}", max_attempts=1)
    assert (run.end, run.result) == (("SUCCESSFUL", None, 1), "parent")
    assert is_alive(executor)


def test_bytes_that_are_no_result_cost_the_executor(runs: Runs, executor: int) -> None:
    run = runs.end_of(f"{ODD}write_rubbish_to_sockets", max_attempts=1)
    assert run.end == ("FAILED", "worker_crashed", 1)
    eventually(lambda: not is_alive(executor), what="the executor is gone")


def test_large_payloads_and_results_pass_each_other(runs: Runs) -> None:
    ids = [runs.add(f"{ODD}give_back", letter * 400_000)[0] for letter in "abcdefghijkl"]
    assert [run.result for run in runs.ended(ids)] == [letter * 400_000 for letter in "abcdefghijkl"]


# -- a loop that is kept busy -----------------------------------------------------------------------------------------


def test_a_coroutine_that_keeps_the_loop_busy_is_stopped_at_its_time(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, mode="async", slots=4, heartbeat=5.0, lease=60.0) as shard:
        (executor,) = shard.wait_executors(1)
        run = runs.end_of(f"{SHARED}block_the_loop", 3600, max_attempts=1, timeout_seconds=1)
        assert run.end == ("FAILED", "timeout", 1)
        assert is_alive(executor)


def test_a_coroutine_that_keeps_others_from_starting_answers_for_it_alone(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, mode="async", slots=4, heartbeat=1.0, log=tmp_path / "log") as shard:
        (executor,) = shard.wait_executors(1)
        go = tmp_path / "go"
        (beside_it,) = runs.add(f"{SHARED}wait_for_file_in_coroutine", str(go))
        wait_running(shard, 1)
        (blocker,) = runs.add(f"{SHARED}block_the_loop", 3600, max_attempts=1)
        wait_running(shard, 2)
        waiting = runs.add("coroutine_echo", 1, count=2)
        ended = runs.ended([blocker])[0]
        assert ended.end == ("FAILED", "worker_crashed", 1)
        assert "kept its executor" in ended.message
        go.touch()
        assert {run.end for run in runs.ended([beside_it, *waiting])} == {("SUCCESSFUL", None, 1)}
        assert not is_alive(executor)
        assert "block_the_loop" in shard.log


def test_a_loop_that_a_task_stops_or_leaves_goes_on_for_the_others(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, mode="async", slots=4) as shard:
        (executor,) = shard.wait_executors(1)
        (other,) = runs.add("coroutine_nap", 1.5)
        wait_running(shard, 1)
        stopped = runs.end_of(f"{SHARED}stop_the_loop", max_attempts=1)
        assert (stopped.end, stopped.result) == (("SUCCESSFUL", None, 1), "still here")
        assert runs.end_of(f"{SHARED}exit_in_a_child", max_attempts=1).end == ("FAILED", "app_error", 1)
        assert runs.ended([other])[0].end == ("SUCCESSFUL", None, 1)
        assert is_alive(executor)


def test_a_task_that_cancels_all_that_is_on_the_loop_leaves_no_run_without_an_end(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, mode="async", slots=4) as shard:
        (executor,) = shard.wait_executors(1)
        assert runs.end_of("coroutine_nap", 0.0).status == "SUCCESSFUL"
        in_thread, go = beside(runs, tmp_path, count=1)
        (in_coroutine,) = runs.add(f"{SHARED}wait_for_file_in_coroutine", str(go), max_attempts=1)
        wait_running(shard, 2)
        assert runs.end_of(f"{SHARED}cancel_all_others").status == "SUCCESSFUL"
        assert runs.ended([in_coroutine])[0].end == ("FAILED", "app_error", 1)
        go.touch()
        assert runs.ended(in_thread)[0].end == ("SUCCESSFUL", None, 1)
        assert is_alive(executor)


def test_a_task_left_on_the_loop_writes_into_nobodys_log(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, mode="async", slots=4, logs_dir=tmp_path / "logs"):
        runs.end_of(f"{SHARED}leave_ticking_task", "late words")
        logs = [runs.end_of(f"{SHARED}print_in_coroutine", "words") for _ in range(5)]
        assert {run.log for run in logs} == {"STDOUT:\nwords\nSTDERR:\n"}
