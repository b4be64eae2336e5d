"""Every behaviour of a task, run for real: the state, kind, message and attempts that its record shows at the end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.postgres import Cluster
from tests.support.runs import ODD, Runs
from tests.support.shared_pool import SharedPool, shared_pool


@pytest.fixture(scope="module")
def pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    """One shard with two executors for all tests of this module: none may hurt the next."""
    folder = tmp_path_factory.mktemp("demo")
    with shared_pool(cluster, folder, executors=2) as pool:
        yield pool


def test_a_task_returns_its_value(runs: Runs) -> None:
    run = runs.end_of("echo", 1, "zwei", kwargs={"drei": [3.5, None, True]})
    assert run.end == ("SUCCESSFUL", None, 1)
    assert run.result == {"args": [1, "zwei"], "kwargs": {"drei": [3.5, None, True]}}


def test_a_coroutine_returns_its_value(runs: Runs) -> None:
    assert runs.end_of("coroutine_echo", "value").result == "value"
    assert runs.end_of("coroutine_nap", 0.01).result == 0.01


def test_memory_may_be_held_and_leaked(runs: Runs) -> None:
    assert runs.end_of("hold", 32, 0.0).result == 32
    assert runs.end_of("leak", 4).result >= 4


def test_a_task_may_say_how_far_it_is(runs: Runs) -> None:
    run = runs.end_of("print_progress", 3, 0.03)
    assert (run.result, run.log.splitlines()) == (3, ["STDOUT:", "step 1 of 3", "step 2 of 3", "step 3 of 3", "STDERR:"])


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
        ("dereference_null", [], "worker_crashed", "SIGSEGV"),
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


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("[]", "invalid_spec", "expected an object, got list"),
        ("5", "invalid_spec", "expected an object, got int"),
        ("null", "invalid_spec", "expected an object, got NoneType"),
        ('"workers.demo.tasks.noop"', "invalid_spec", "expected an object, got str"),
        ('{"task_path": 5}', "invalid_spec", "task_path"),
        ('{"task_path": ["workers"]}', "invalid_spec", "task_path"),
        ('{"task_path": "noop"}', "security_violation", "noop"),
        ('{"task_path": "workers.demo.tasks.noop", "args": {"a": 1}}', "invalid_spec", "args"),
        ('{"task_path": "workers.demo.tasks.noop", "args": "ab"}', "invalid_spec", "args"),
        ('{"task_path": "workers.demo.tasks.noop", "kwargs": [1]}', "invalid_spec", "kwargs"),
        ('{"task_path": "workers.demo..tasks"}', "app_error", "dotted path"),
        ('{"task_path": "workers.demo.tasks.noop\\n"}', "app_error", "dotted path"),
        (json.dumps({"task_path": "workers.demo." + "x" * 5000}), "app_error", "workers.demo.xxx"),
    ],
)
def test_a_record_that_cannot_be_run_fails_at_once_with_its_reason(runs: Runs, spec: str, kind: str, words: str) -> None:
    run = runs.ended(runs.add_spec(spec, task_path="workers.demo.tasks.noop"))[0]
    assert run.end == ("FAILED", kind, 1)
    assert words in run.message


def test_a_record_of_an_older_producer_without_a_task_path_column_runs(runs: Runs) -> None:
    (run,) = runs.ended(runs.add_spec('{"task_path": "workers.demo.tasks.add", "args": [1], "kwargs": {"b": 2}}'))
    assert (run.end, run.result) == (("SUCCESSFUL", None, 1), 3)


def test_the_path_that_is_run_is_the_one_that_is_checked(runs: Runs) -> None:
    (run,) = runs.ended(runs.add_spec('{"task_path": "os.getcwd"}', task_path="workers.demo.tasks.noop"))
    assert run.end == ("FAILED", "security_violation", 1)


def test_the_column_names_the_task_where_the_spec_does_not(runs: Runs) -> None:
    (run,) = runs.ended(runs.add_spec('{"args": [2, 3]}', task_path="workers.demo.tasks.add"))
    assert (run.end, run.result) == (("SUCCESSFUL", None, 1), 5)


def test_a_task_that_takes_a_context_learns_who_it_is(runs: Runs) -> None:
    spec = '{"task_path": "workers.demo.steering.tell_context", "args": ["more"], "takes_context": true}'
    (run,) = runs.ended(runs.add_spec(spec, priority=7, max_attempts=4))
    expected = {"result_id": str(run.result_id), "attempt": 1, "max_attempts": 4, "task_path": "workers.demo.steering.tell_context"}
    assert run.result == [{**expected, "queue_name": "default", "priority": 7}, "more"]


def test_a_task_may_ask_for_its_own_delay_or_for_no_retry_at_all(runs: Runs) -> None:
    asked = runs.add("workers.demo.steering.ask_for_a_retry", 3600.0, max_attempts=3)
    final = runs.end_of("workers.demo.steering.give_up", "enough", max_attempts=3)
    assert (final.end, final.message) == (("FAILED", "app_error", 1), "enough")
    (run,) = eventually(lambda: [run for run in runs.look(asked) if run.lane == "parked"], what="it waits for its retry")
    assert (run.attempts, run.errors[0]["message"]) == (1, "later, please")
    assert runs.database.query("SELECT due_at - now() > interval '50 minutes' FROM task_lane WHERE result_id = ANY (%s)", asked) == [
        (True,)
    ]
