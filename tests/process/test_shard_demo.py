"""Every behaviour of a task, run for real: the state, kind, message and attempts that its record shows at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Cluster
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard, running_shard


@pytest.fixture(scope="module")
def pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningShard, Runs]]:
    """One shard with two executors for all tests of this module: none may hurt the next."""
    from reproq_supervisor.store.migrate import migrate

    folder = tmp_path_factory.mktemp("demo")
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, executors=2, logs_dir=folder / "logs", log=folder / "shard.log") as shard,
    ):
        yield shard, Runs(database)


@pytest.fixture
def runs(pool: tuple[RunningShard, Runs]) -> Runs:
    return pool[1]


def test_a_task_returns_its_value(runs: Runs) -> None:
    run = runs.end_of("echo", 1, "zwei", kwargs={"drei": [3.5, None, True]})
    assert run.end == ("SUCCESSFUL", None, 1)
    assert run.result == {"args": [1, "zwei"], "kwargs": {"drei": [3.5, None, True]}}


def test_a_coroutine_returns_its_value(runs: Runs) -> None:
    assert runs.end_of("coroutine_echo", "value").result == "value"


@pytest.mark.parametrize(("name", "result"), [("held.func", 6), ("held", 6), ("runner", 7)])
def test_a_task_object_is_called_through_func_or_run(runs: Runs, name: str, result: int) -> None:
    assert runs.end_of(f"{ODD}{name}", 5).result == result


@pytest.mark.parametrize(
    ("task", "args", "kind", "words"),
    [
        ("fail", ["on purpose"], "app_error", "on purpose"),
        ("exit_process", [4], "app_error", "4"),
        ("crash", [9], "worker_crashed", "exited with code 9"),
        ("kill_itself", [], "worker_crashed", "SIGKILL"),
        (f"{ODD}interrupt", [], "app_error", ""),
        (f"{ODD}raise_without_words", [], "app_error", "whose text failed"),
    ],
)
def test_a_failure_is_retried_until_no_attempt_is_left(runs: Runs, task: str, args: list[object], kind: str, words: str) -> None:
    run = runs.end_of(task, *args, max_attempts=2)
    assert run.end == ("FAILED", kind, 2)
    assert [error["attempt"] for error in run.errors] == [1, 2]
    assert words in run.message


@pytest.mark.parametrize(
    ("task", "args", "kind", "words"),
    [
        ("return_nan", [], "bad_result", "NaN"),
        ("return_nul", [], "bad_result", "NUL"),
        ("return_large", [2 << 20], "bad_result", "at most 1048576 bytes"),
        ("return_object", [], "bad_result", "object"),
        (f"{ODD}half_surrogate", [], "bad_result", "surrogate"),
        (f"{ODD}nested", [200_000], "bad_result", "nested too deep"),
        (f"{ODD}big_number", [5000], "bad_result", "4300 digits"),
        ("nowhere", [], "app_error", "has no attribute 'nowhere'"),
        ("workers.demo.nowhere.task", [], "app_error", "has no attribute 'nowhere'"),
        (f"{ODD}not_callable", [], "app_error", "expected a callable"),
        ("os.system", ["true"], "security_violation", "os.system"),
        (f"{ODD}imported_run", [["true"]], "security_violation", "subprocess.run"),
        ("workers.demo.tasks.os.system", ["true"], "security_violation", "imported module os"),
    ],
)
def test_what_can_never_work_fails_at_once(runs: Runs, task: str, args: list[object], kind: str, words: str) -> None:
    run = runs.end_of(task, *args, max_attempts=5)
    assert run.end == ("FAILED", kind, 1)
    assert words in run.message


def test_a_failing_task_leaves_class_and_traceback(runs: Runs) -> None:
    error = runs.end_of("fail", "why", max_attempts=1).errors[0]
    assert error["exception_class"] == "RuntimeError"
    assert "raise RuntimeError(message)" in error["traceback"]


def test_a_task_that_fails_twice_succeeds_at_the_third_attempt(runs: Runs, tmp_path: Path) -> None:
    run = runs.end_of("fail_until", str(tmp_path / "marker"), 2, max_attempts=5)
    assert (run.status, run.result, run.attempts) == ("SUCCESSFUL", 3, 3)
