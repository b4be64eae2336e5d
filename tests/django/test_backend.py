"""What the backend promises, as the framework's documentation and the contract say it."""

import asyncio
import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.test import override_settings

from reproq_django.backend import ReproqBackend
from reproq_django.framework import InvalidTask, TaskResultDoesNotExist, TaskResultStatus, task_backends, task_enqueued
from reproq_django.models import TaskRun
from reproq_django.results import ReproqTaskResult
from reproq_django.signals import task_enqueued as contract_task_enqueued
from tests.django.app import tasks

pytestmark = pytest.mark.usefixtures("any_database")


@pytest.fixture
def told() -> Iterator[list[tuple[str, Any]]]:
    """What the signals said, in order."""
    heard: list[tuple[str, Any]] = []

    def framework(sender: Any, task_result: Any, **_: Any) -> None:
        heard.append(("framework", task_result))

    def contract(sender: Any, task_result: Any, spec: Any, **_: Any) -> None:
        heard.append(("contract", spec["task_path"]))

    task_enqueued.connect(framework)
    contract_task_enqueued.connect(contract)
    yield heard
    task_enqueued.disconnect(framework)
    contract_task_enqueued.disconnect(contract)


def backend(alias: str = "default") -> ReproqBackend:
    found = task_backends[alias]
    assert isinstance(found, ReproqBackend)
    return found


def test_a_task_is_enqueued_and_found_again() -> None:
    result = tasks.add.enqueue(1, b=2)

    assert isinstance(result, ReproqTaskResult)
    assert result.task == tasks.add
    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.READY, False, 0)
    assert (result.args, result.kwargs, result.backend) == ([1], {"b": 2}, "default")
    assert result.enqueued_at is not None
    assert result.started_at is result.finished_at is result.last_attempted_at is None
    assert tasks.add.get_result(result.id) == result
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value


def test_the_record_has_what_the_contract_wants() -> None:
    result = tasks.add.using(priority=5).enqueue(1, lock_key="account:1", concurrency_key="shop", concurrency_limit=2)

    row = TaskRun.objects.get(pk=result.id)
    assert (row.task_path, row.status, row.priority, row.backend_alias) == ("tests.django.app.tasks.add", "READY", 5, "default")
    assert (row.lock_key, row.concurrency_key, row.concurrency_limit) == ("account:1", "shop", 2)
    assert row.spec_json == {
        "v": 1,
        "task_path": "tests.django.app.tasks.add",
        "args": [1],
        "kwargs": {},
        "takes_context": False,
        "queue_name": "default",
        "priority": 5,
        "lock_key": "account:1",
        "concurrency_key": "shop",
        "concurrency_limit": 2,
        "run_after": None,
        "exec": {"timeout_seconds": 900, "max_attempts": 3},
        "provenance": {"code_ref": None, "pip_lock_hash": None},
    }


def test_both_kinds_of_signals_are_sent(told: list[tuple[str, Any]]) -> None:
    result = tasks.add.enqueue(1)

    assert told == [("framework", result), ("contract", "tests.django.app.tasks.add")]


def test_an_active_run_of_the_same_content_is_returned() -> None:
    first = tasks.add.enqueue(1)
    second = tasks.add.enqueue(1)
    other = tasks.add.enqueue(2)

    assert second == first
    assert other.id != first.id
    TaskRun.objects.filter(pk=first.id).update(status="CANCELLED")
    assert tasks.add.enqueue(1).id != first.id


def test_without_dedup_twins_are_twins() -> None:
    with override_settings(TASKS={"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "OPTIONS": {"DEDUP_ACTIVE": False}}}):
        ids = {tasks.add.enqueue(1).id, tasks.add.enqueue(1).id}
        ids |= {result.id for result in backend().bulk_enqueue([(tasks.add, [1], {})] * 3)}

    assert len(ids) == 5


def test_many_are_enqueued_in_order() -> None:
    known = tasks.add.enqueue(7)

    results = backend().bulk_enqueue([(tasks.add, [number % 10], {}) for number in range(20)])

    assert [result.args for result in results] == [[number % 10] for number in range(20)]
    assert [result.id for result in results[:10]] == [result.id for result in results[10:]]
    assert results[7] == known
    assert TaskRun.objects.count() == 10


def test_a_rolled_back_transaction_enqueues_nothing() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        tasks.add.enqueue(1)
        raise RuntimeError

    assert not TaskRun.objects.exists()


def test_a_duplicate_leaves_the_transaction_usable() -> None:
    first = tasks.add.enqueue(1)
    with transaction.atomic():
        assert tasks.add.enqueue(1).id == first.id
        assert TaskRun.objects.count() == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("run_after", [timedelta(hours=1), datetime(2100, 1, 1, tzinfo=UTC)])
def test_a_task_can_be_due_later(run_after: Any) -> None:
    with_using = tasks.add.using(run_after=run_after).enqueue(1)
    with_argument = tasks.add.enqueue(2, run_after=run_after)

    for result in (with_using, with_argument):
        row = TaskRun.objects.get(pk=result.id)
        assert row.run_after is not None
        assert row.run_after > datetime.now(UTC) + timedelta(minutes=50)
        assert result.task.run_after == row.run_after
        assert tasks.add.get_result(result.id) == result


def test_a_naive_time_and_what_is_no_time_are_refused() -> None:
    with pytest.raises(ValueError, match="with a zone"):
        tasks.add.enqueue(1, run_after=datetime(2100, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(TypeError, match="run_after"):
        tasks.add.enqueue(1, run_after=5)
    assert not TaskRun.objects.exists()


def test_a_key_can_be_made_of_the_arguments() -> None:
    result = tasks.add.enqueue(1, b=2, concurrency_key=lambda a, b: f"sum:{a + b}", concurrency_limit=1, priority=None)

    row = TaskRun.objects.get(pk=result.id)
    assert (row.concurrency_key, row.concurrency_limit, row.priority) == ("sum:3", 1, 0)
    assert TaskRun.objects.get(pk=tasks.add.enqueue(2, concurrency_key=" ", concurrency_limit="x").id).concurrency_key is None


def test_the_options_of_the_backend_count() -> None:
    options = {"TIMEOUT_SECONDS": 5, "MAX_ATTEMPTS": 1, "EXPIRES_IN": timedelta(hours=1), "CODE_REF": "abc", "PIP_LOCK_HASH": "def"}
    with override_settings(TASKS={"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "OPTIONS": options}}):
        row = TaskRun.objects.get(pk=tasks.add.enqueue(1).id)

    assert (row.timeout_seconds, row.max_attempts) == (5, 1)
    assert row.expires_at is not None
    assert timedelta(minutes=59) < row.expires_at - row.enqueued_at < timedelta(minutes=61)
    assert row.spec_json["provenance"] == {"code_ref": "abc", "pip_lock_hash": "def"}


def test_a_queue_that_the_backend_does_not_have_is_refused() -> None:
    with override_settings(TASKS={"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "QUEUES": ["default"]}}):
        with pytest.raises(InvalidTask, match="Queue"):
            tasks.add.using(queue_name="other")
        with pytest.raises(InvalidTask, match="priority"):
            tasks.add.using(priority=101)


def test_what_json_has_not_is_refused_by_name() -> None:
    with pytest.raises(TypeError):
        tasks.add.enqueue(object())
    with pytest.raises(ValueError, match=r"args\[0\].*NUL"):
        tasks.add.enqueue("a\0b")
    with pytest.raises(ValueError, match=r"kwargs\.b.*finite"):
        tasks.add.enqueue(1, b=float("nan"))
    assert not TaskRun.objects.exists()


@pytest.mark.parametrize("result_id", ["12345", "no number", "default:12345", "", "9" * 30, "-1"])
def test_an_unknown_id_has_no_result(result_id: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(result_id)


def test_everything_is_there_for_coroutines() -> None:
    async def use() -> None:
        result = await tasks.double.aenqueue(2)
        assert await tasks.double.aget_result(result.id) == result
        await result.arefresh()
        await backend().asave_metadata(result.id, {"seen": True})
        await result.arefresh()
        assert result.metadata == {"seen": True}
        many = await backend().abulk_enqueue([(tasks.double, [number], {}) for number in range(3)])
        assert len({each.id for each in many}) == 3
        await sync_to_async(connections.close_all)()  # those of its own thread

    asyncio.run(use())


def test_what_the_framework_has_no_word_for_is_told_beside_it() -> None:
    result = tasks.add.enqueue(1)
    TaskRun.objects.filter(pk=result.id).update(status="CANCELLED", errors_json=[{"kind": "cancelled", "message": "enough"}])

    result.refresh()

    assert (result.status, result.raw_status, result.is_finished) == (TaskResultStatus.FAILED, "CANCELLED", True)
    assert result.errors[0].exception_class.__name__ == "Cancelled"
    assert result.errors[0].traceback == "enough"
    with pytest.raises(RuntimeError, match="CANCELLED"):
        result.wait(timeout=1)


def test_a_result_can_be_copied() -> None:
    result = tasks.add.enqueue(1)

    twin = copy.copy(result)

    assert (twin, twin.raw_status, twin.db_alias, twin.result_id) == (result, "READY", "default", result.result_id)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="tasks can be pickled from Django 6.1 on")
def test_a_result_can_be_kept_in_a_cache() -> None:
    result = tasks.add.enqueue(1)

    kept = pickle.loads(pickle.dumps(result))

    assert (kept, kept.raw_status, kept.metadata) == (result, "READY", {})
    kept.refresh()
