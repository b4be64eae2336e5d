"""Workflows are inserted whole, with what each run waits for."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.test import override_settings

from reproq_django.framework import task_enqueued
from reproq_django.models import TaskRun, WorkflowRun
from reproq_django.workflows import chain, chord, group
from tests.django.app import tasks
from tests.django.conftest import sqlite_settings, using_databases

pytestmark = pytest.mark.usefixtures("any_database")


def states() -> list[tuple[str, int | None, int]]:
    return list(TaskRun.objects.order_by("pk").values_list("status", "parent_id", "wait_count"))


def test_each_run_of_a_chain_waits_for_the_one_before_it() -> None:
    results = chain((tasks.add, [1], {}), (tasks.add, [1], {}), (tasks.add, [3], {"b": 4})).enqueue()

    first, second, _ = (int(result.id) for result in results)
    assert states() == [("READY", None, 0), ("WAITING", first, 1), ("WAITING", second, 1)]
    assert len(set(TaskRun.objects.values_list("workflow_id", flat=True))) == 1
    assert [result.kwargs for result in results] == [{}, {}, {"b": 4}]
    assert tasks.add.get_result(results[1].id).raw_status == "WAITING"


def test_a_group_is_not_deduplicated() -> None:
    assert len({result.id for result in group(*[(tasks.add, [1], {})] * 3).enqueue()}) == 3
    assert states() == [("READY", None, 0)] * 3


def test_the_callback_of_a_chord_waits_for_all() -> None:
    members, callback = chord((tasks.add, [1], {}), (tasks.add, [2], {}), callback=(tasks.add, [3], {})).enqueue()

    rows = {row.pk: row for row in TaskRun.objects.all()}
    assert [rows[int(member.id)].status for member in members] == ["READY", "READY"]
    assert (rows[int(callback.id)].status, rows[int(callback.id)].wait_count) == ("WAITING", 2)
    flow = WorkflowRun.objects.get()
    assert (flow.expected_count, flow.callback_result_id) == (2, int(callback.id))
    assert rows[int(callback.id)].workflow_id == flow.workflow_id


def test_workflows_of_nothing() -> None:
    assert chain().enqueue() == group().enqueue() == []
    members, callback = chord(callback=(tasks.add, [3], {})).enqueue()
    assert (members, states()) == ([], [("READY", None, 0)])
    assert WorkflowRun.objects.get().callback_result_id == int(callback.id)


def test_reserved_arguments_options_and_signals_count_here_too() -> None:
    heard: list[Any] = []
    task_enqueued.connect(listen := lambda task_result, **_: heard.append(task_result.id))
    options = {"TIMEOUT_SECONDS": 7, "EXPIRES_IN": timedelta(hours=1)}
    with override_settings(TASKS={"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "OPTIONS": options}}):
        results = group((tasks.add, [1], {"lock_key": "a", "priority": 9})).enqueue()
    task_enqueued.disconnect(listen)

    row = TaskRun.objects.get()
    assert (row.lock_key, row.priority, row.timeout_seconds, row.spec_json["kwargs"]) == ("a", 9, 7, {})
    assert row.expires_at is not None
    assert heard == [result.id for result in results]


def test_a_workflow_is_whole_or_not_there() -> None:
    with pytest.raises(TypeError):
        chain((tasks.add, [1], {}), (tasks.add, [object()], {})).enqueue()
    with pytest.raises(RuntimeError), transaction.atomic():
        chord((tasks.add, [1], {}), callback=(tasks.add, [2], {})).enqueue()
        raise RuntimeError
    assert (TaskRun.objects.count(), WorkflowRun.objects.count()) == (0, 0)


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a task"):
        chain(tasks.plain).enqueue()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected a task, or \(task, args, kwargs\)"):
        chain((tasks.add, [1])).enqueue()
    with (
        override_settings(
            TASKS={"default": {"BACKEND": f"{tasks.add.__class__.__module__.split('.base')[0]}.backends.dummy.DummyBackend"}}
        ),
        pytest.raises(TypeError, match="DummyBackend"),
    ):
        chain((tasks.add, [1], {})).enqueue()


def test_tasks_of_two_databases_are_no_workflow(tmp_path: Any) -> None:
    with (
        using_databases(default=sqlite_settings(tmp_path / "a"), other=sqlite_settings(tmp_path / "b")),
        override_settings(REPROQ_QUEUE_DATABASES={"mail*": "other"}),
        pytest.raises(ValueError, match="one database"),
    ):
        group((tasks.add, [1], {}), (tasks.add.using(queue_name="mails"), [1], {})).enqueue()


def test_coroutines_enqueue_workflows_too() -> None:
    async def use() -> None:
        assert len(await chain((tasks.add, [1], {}), (tasks.add, [2], {})).aenqueue()) == 2
        assert len(await group((tasks.add, [1], {})).aenqueue()) == 1
        assert len((await chord((tasks.add, [1], {}), callback=(tasks.add, [1], {})).aenqueue())[0]) == 1
        await sync_to_async(connections.close_all)()

    asyncio.run(use())
    assert TaskRun.objects.count() == 5
