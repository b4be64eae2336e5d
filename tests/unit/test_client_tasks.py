"""`@task`: how a function becomes a run, and what is refused before anything is enqueued."""

import pickle
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.client import ArgumentsError, NewRun, Task, TaskFailedError, UnknownRunError, WaitTimeoutError, task
from reproq_supervisor.client.options import GivenOptions, TaskOptions
from reproq_supervisor.executor.resolve import Resolver
from tests.support import client_tasks
from tests.support.client_tasks import Reports, add, later, send, whoami

HERE = "tests.support.client_tasks"


def test_a_task_is_still_its_function() -> None:
    assert add(2, b=3) == 5
    assert (add.__name__, add.__doc__, add.func.__name__) == ("add", None, "add")
    assert repr(add) == f"<task {HERE}.add>"


@pytest.mark.parametrize(
    ("found", "path"), [(add, "add"), (send, "send"), (whoami, "whoami"), (later, "later"), (Reports.monthly, "Reports.monthly")]
)
def test_executors_find_the_very_function_under_its_path(found: Task[..., Any], path: str) -> None:
    assert found.path == f"{HERE}.{path}"
    target = Resolver([f"{HERE}."]).resolve(found.path)
    assert target.call is found.func
    assert target.takes_context is found.takes_context is (path == "whoami")


def test_a_call_becomes_a_run_with_all_that_the_decorator_says() -> None:
    assert send.call(7, subject="hi") == NewRun(
        f"{HERE}.send",
        args=(7,),
        kwargs={"subject": "hi"},
        queue_name="mail",
        priority=3,
        max_attempts=5,
        timeout_seconds=60,
        lock_key="account:7",
    )


def test_a_key_may_be_a_function_of_the_arguments_and_be_missing() -> None:
    run = whoami.call("ann")
    assert (run.concurrency_key, run.concurrency_limit, run.takes_context, run.args) == ("name:ann", 2, True, ("ann",))
    assert (whoami.call("").concurrency_key, whoami.call("").concurrency_limit) == (None, 0)


def test_other_options_make_another_task() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    changed = send.using(queue="bulk", delay=timedelta(minutes=2), run_after=at, expires_in=9, dedupe=True, lock_key=None)
    run = changed.call(1)
    assert (run.queue_name, run.delay_s, run.run_after, run.expires_in_s, run.dedupe, run.lock_key) == ("bulk", 120, at, 9, True, None)
    assert run.priority == 3
    assert send.call(1).queue_name == "mail"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: add.call(), r"add: expected arguments for \(a: int, b: int = 1\), got another call: missing a required argument: 'a'"),
        (lambda: add.call(1, 2, 3), "too many positional arguments"),
        (lambda: add.call(1, c=2), "got an unexpected keyword argument 'c'"),
        (lambda: whoami.call(), r"\(name: str\)"),
        (lambda: add.call({1, 2}), r"add: args\[0\]: expected JSON .*, got builtins.set"),
        (lambda: send.call(1, order={"lines": [1, object()]}), r"send: kwargs.order.lines\[1\]: expected JSON"),
        (lambda: send.using(lock_key="{order}").call(1), r"lock_key: expected a format of the arguments .*account_id.*KeyError"),
        (lambda: send.using(lock_key=lambda *_, **__: 7).call(1), "lock_key: expected text or None, got 7"),
        (lambda: send.using(lock_key="a{0}").call(1), "lock_key: expected a format of the arguments"),
        (lambda: add.using(timeout=0.5).call(1), "timeout: expected whole seconds"),
        (lambda: add.using(run_after=datetime(2030, 1, 1)).call(1), "run_after: expected a time with a zone"),  # noqa: DTZ001
        (lambda: add.using(run_after=cast(Any, timedelta(minutes=1))).call(1), "run_after: expected a time with a zone"),
        (lambda: add.using(delay=cast(Any, "60")).call(1), "delay_s: expected seconds"),
        (lambda: add.enqueue_many(["a"]), "expected a tuple of arguments, or a dict"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_call_is_refused_by_name(call: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(ArgumentsError, match=words):
        call()


def test_unknown_options_and_a_context_without_place_are_refused_where_they_are_written() -> None:
    with pytest.raises(TypeError, match="retries"):
        task(retries=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="expected the context as its first argument"):
        task(takes_context=True)(lambda: None)  # type: ignore[arg-type, misc]


def test_what_executors_cannot_import_is_refused_when_it_is_enqueued() -> None:
    @task
    def inside(a: int) -> int:
        return a

    assert inside(3) == 3
    with pytest.raises(ArgumentsError, match="made inside a function; move it into a module"):
        inside.call(3)


def test_a_function_of_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add.func, "__module__", "__main__")
    import sys

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(ArgumentsError, match="made in a script"):
        add.call(1)


@given(
    st.tuples(st.integers()) | st.tuples(st.integers(), st.text("ab")),
    st.dictionaries(st.sampled_from(["account_id", "subject", "x"]), st.integers()),
)
def test_what_is_taken_can_be_called_and_what_is_refused_cannot(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        send.func(*args, **kwargs)
    except TypeError:
        with pytest.raises(ArgumentsError):
            send.call(*args, **kwargs)
    else:
        run = send.call(*args, **kwargs)
        assert (run.args, run.kwargs) == (args, kwargs)


def test_the_typed_options_are_the_options() -> None:
    assert GivenOptions.__optional_keys__ == {field.name for field in fields(TaskOptions)}


def test_errors_survive_pickling() -> None:
    for error in (
        UnknownRunError(7),
        WaitTimeoutError([1, 2], 3.0, "READY"),
        TaskFailedError(7, "app.task", {"kind": "x", "message": "no"}),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_module_of_tasks_is_not_its_task() -> None:
    assert client_tasks.task is task
    assert callable(task)
