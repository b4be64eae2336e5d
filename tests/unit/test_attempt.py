"""One attempt, from the bytes of a spec to a verdict."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from reproq_supervisor.core.work import Result, Verdict, Work
from reproq_supervisor.executor.api import Fail, Retry, SoftTimeout
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.context import TaskContext
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process.deadlines import DeadlineTable, SoftReason

Run = Callable[..., Result]


@pytest.fixture
def table() -> Iterator[DeadlineTable]:
    table = DeadlineTable.create(1)
    yield table
    os.close(table.fd)


@pytest.fixture
def run(table: DeadlineTable, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a function as if it were a task; with *spec*, run that text."""

    def run_it(function: Any, *args: Any, spec: str | None = None, **fields: Any) -> Result:
        function_module = type("Module", (), {"task": staticmethod(function) if callable(function) else function})
        monkeypatch.setattr(f"{__name__}.HOME", function_module, raising=False)
        path = f"{__name__}.HOME.task"
        text = json.dumps({"task_path": path, "args": args, **fields}) if spec is None else spec
        work = Work(5, 42, 2, 3, 1, "mail", path, text.encode())
        return run_attempt(work, Resolver(["*"]), SoftSignal(table, 0), 1000)

    return run_it


HOME: Any = None


def body(result: Result) -> Any:
    return json.loads(result.body)


def raising(error: BaseException) -> Callable[[], None]:
    def task() -> None:
        raise error

    return task


def test_a_value_succeeds(run: Run) -> None:
    result = run(lambda a, b: [b, a], 1, 2)
    assert (result.seq, result.verdict, body(result), result.delay_s) == (5, Verdict.SUCCEED, [2, 1], None)


def test_arguments_by_name_arrive(run: Run) -> None:
    assert body(run(lambda *, name: name, kwargs={"name": "x"})) == "x"


def test_a_coroutine_is_run(run: Run) -> None:
    async def task(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert body(run(task, 3)) == 3


@pytest.mark.parametrize("asked", ["by the spec", "by the task"])
def test_a_context_comes_first(run: Run, asked: str) -> None:
    class Task:
        takes_context = asked == "by the task"

        @staticmethod
        def run(context: TaskContext, extra: int) -> list[Any]:
            return [context.result_id, context.attempt, context.max_attempts, context.queue_name, context.priority, extra]

    result = run(Task(), 9, takes_context=asked == "by the spec")
    assert body(result) == ["42", 2, 3, "mail", 1, 9]


@pytest.mark.parametrize(
    ("error", "verdict", "kind", "message"),
    [
        (ValueError("bad"), Verdict.FAIL, "app_error", "bad"),
        (SystemExit(3), Verdict.FAIL, "app_error", "3"),
        (KeyboardInterrupt(), Verdict.FAIL, "app_error", ""),
        (asyncio.CancelledError("who?"), Verdict.FAIL, "app_error", "who?"),
        (GeneratorExit(), Verdict.FAIL, "app_error", ""),
        (MemoryError(), Verdict.FAIL, "app_error", ""),
        (RecursionError("deep"), Verdict.FAIL, "app_error", "deep"),
        (ExceptionGroup("many", [ValueError("one")]), Verdict.FAIL, "app_error", "many (1 sub-exception)"),
        (Retry("later"), Verdict.FAIL, "app_error", "later"),
        (Fail("never"), Verdict.FAIL_FINALLY, "app_error", "never"),
        (SoftTimeout("timeout"), Verdict.STOPPED, "timeout", "stopped: timeout"),
        (SoftTimeout("cancel"), Verdict.STOPPED, "cancelled", "stopped: cancel"),
    ],
)
def test_whatever_a_task_raises_is_a_verdict(run: Run, error: BaseException, verdict: Verdict, kind: str, message: str) -> None:
    result = run(raising(error))
    assert (result.verdict, body(result)["kind"], body(result)["message"]) == (verdict, kind, message)
    assert body(result)["exception_class"] == type(error).__name__


@pytest.mark.parametrize("delay_s", [None, 0.0, 7.5])
def test_a_retry_may_ask_for_its_delay(run: Run, delay_s: float | None) -> None:
    assert run(raising(Retry(delay_s=delay_s))).delay_s == delay_s


@pytest.mark.parametrize("delay", ["soon", timedelta(seconds=5), [5], float("inf"), float("nan"), 1e12])
def test_a_delay_that_is_no_number_or_for_ever_is_an_error_of_the_application(run: Run, delay: Any) -> None:
    def task() -> None:
        raise Retry(delay_s=delay)

    result = run(task)
    assert (result.verdict, result.delay_s) == (Verdict.FAIL, None)
    assert body(result)["exception_class"] in ("ValueError", "TypeError")


def test_a_retry_of_the_applications_own_class_needs_no_delay(run: Run) -> None:
    class Later(Retry):
        def __init__(self) -> None:
            Exception.__init__(self, "later")

    assert run(raising(Later())).delay_s is None


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), -1, "soon", True])
def test_what_an_own_class_says_for_ever_is_left_to_the_policy(run: Run, delay: Any) -> None:
    class Later(Retry):
        delay_s = delay

        def __init__(self) -> None:
            Exception.__init__(self, "later")

    assert run(raising(Later())).delay_s is None


def test_a_delay_that_has_passed_means_at_once(run: Run) -> None:
    assert run(raising(Retry(delay_s=-5))).delay_s == 0.0


def test_wrong_arguments_are_an_error_of_the_application(run: Run) -> None:
    result = run(lambda: None, 1, 2)
    assert (result.verdict, body(result)["exception_class"]) == (Verdict.FAIL, "TypeError")


def test_a_result_that_cannot_be_stored_fails_for_good(run: Run) -> None:
    result = run(lambda: "x" * 1000)
    assert (result.verdict, body(result)["kind"]) == (Verdict.FAIL_FINALLY, "bad_result")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "{",
        "{} {}",
        "[1]",
        "null",
        '{"args": 5}',
        '{"kwargs": "x"}',
        '{"task_path": 5}',
        "[" * 100_000,
        '{"args": [1' + "0" * 9000 + "]}",
    ],
)
def test_a_spec_that_cannot_be_read_fails_for_good(run: Run, spec: str) -> None:
    result = run(None, spec=spec)
    assert (result.verdict, body(result)["kind"]) == (Verdict.FAIL_FINALLY, "invalid_spec")
    assert body(result)["message"].startswith("spec_json")


def test_a_spec_may_stand_between_blanks(run: Run) -> None:
    path = f"{__name__}.HOME.task"
    assert body(run(lambda number: number, spec=f'\r\n\t {{"task_path": "{path}", "args": [1]}} \n')) == 1


def test_a_task_that_was_asked_to_stop_before_it_began_does_not_begin(run: Run, table: DeadlineTable) -> None:
    began = []
    table.set_soft(0, 5, SoftReason.DRAIN)
    result = run(lambda: began.append(1))
    assert (result.verdict, began) == (Verdict.STOPPED, [])


def test_a_request_for_an_earlier_hand_out_does_not_concern_this_one(run: Run, table: DeadlineTable) -> None:
    table.set_soft(0, 4, SoftReason.TIMEOUT)
    assert run(lambda: 1).verdict is Verdict.SUCCEED
