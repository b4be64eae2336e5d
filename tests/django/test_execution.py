"""Tasks of the framework in real executors: their arguments, their context, their signals."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group

from reproq_django.failures import task_errors
from reproq_django.framework import TaskResultStatus
from tests.support.django_site import queue_tasks as tasks
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import EXEC, ROOT, running_shard

SITE = "tests.support.django_site."
APP = {
    "path": [str(ROOT)],
    "preload": [f"{SITE}queue_tasks"],
    "allowed_task_modules": [SITE],
    "django_settings_module": f"{SITE}queue_settings",
}


@contextmanager
def executors(database: Database, folder: Path, **pool: Any) -> Iterator[Runs]:
    with running_shard(database, app=APP, env={"DJANGO_SITE_DSN": database.dsn}, log=folder / "shard.log", **pool):
        yield Runs(database)


def outcome(runs: Runs, result: Any) -> Any:
    """Wait until the run of *result* has ended, and return what it returned."""
    (run,) = runs.ended([result.result_id])
    assert run.end[0] == "SUCCESSFUL", run.errors
    return run.result


@pytest.mark.parametrize("pool", [{}, {"mode": "async", "slots": 2}, {"mode": "thread", "slots": 2}])
@pytest.mark.parametrize("name", ["name_of", "coroutine_name_of"])
def test_models_and_durations_arrive_as_they_were_given(postgres: Database, tmp_path: Path, name: str, pool: dict[str, Any]) -> None:
    group = Group.objects.create(name="editors")
    with executors(postgres, tmp_path, **pool) as runs:
        assert outcome(runs, getattr(tasks, name).enqueue(group, delay=timedelta(minutes=1))) == ["editors", 60.0]


def test_a_model_that_is_gone_fails_its_task_and_tells_which(postgres: Database, tmp_path: Path) -> None:
    group = Group.objects.create(name="gone")
    result = tasks.name_of.enqueue(group, delay=timedelta(0))
    Group.objects.all().delete()
    postgres.query("UPDATE task_runs SET max_attempts = 1")
    postgres.query("UPDATE task_lane SET max_attempts = 1")
    with executors(postgres, tmp_path) as runs:
        (run,) = runs.ended([result.result_id])
    assert run.end == ("FAILED", "app_error", 1)
    assert "auth.group" in run.message


def test_a_task_gets_the_framework_s_context_with_all_that_the_executor_knows(postgres: Database, tmp_path: Path) -> None:
    with executors(postgres, tmp_path) as runs:
        result = tasks.describe.enqueue("hello")
        assert outcome(runs, result) == {
            "attempt": 1,
            "result_id": str(result.result_id),
            "queue": "default",
            "alias": "default",
            "status": "RUNNING",
            "id": result.id,
            "args": ["hello"],
            "attempts": 1,
        }
        result.refresh()
        assert result.metadata == {"word": "hello"}


@pytest.mark.parametrize("name", ["name_of", "coroutine_name_of"])
def test_signals_tell_of_begin_and_end_and_their_failures_fail_nobody(postgres: Database, tmp_path: Path, name: str) -> None:
    group = Group.objects.create(name="heard")
    with executors(postgres, tmp_path) as runs:
        outcome(runs, getattr(tasks, name).enqueue(group, delay=timedelta(0)))
        failed = tasks.fail.using(queue_name="default").enqueue("broken")
        postgres.query("UPDATE task_lane SET max_attempts = 1 WHERE result_id = %s", failed.result_id)
        runs.ended([failed.result_id], timeout=60)
        heard = outcome(runs, tasks.heard.enqueue())
    of_first = [
        ["contract", "reproq_django.executor", 1, None],
        ["framework started", name, "RUNNING"],
        ["contract", "reproq_django.executor", 1, True],
        ["framework finished", name, "SUCCESSFUL"],
    ]
    assert heard[:4] == of_first
    assert ["framework finished", "fail", "FAILED"] in heard[4:]
    assert ["contract", "reproq_django.executor", 1, False] in heard[4:]
    failed.refresh()
    assert failed.status == TaskResultStatus.FAILED
    assert task_errors(failed.data.errors_json)[-1].exception_class_path == "builtins.ValueError"


@pytest.mark.parametrize("name", ["return_what_nobody_can_store", "coroutine_return_what_nobody_can_store"])
def test_signals_tell_of_a_result_that_cannot_be_stored_as_of_a_failure(postgres: Database, tmp_path: Path, name: str) -> None:
    with executors(postgres, tmp_path) as runs:
        (run,) = runs.ended([getattr(tasks, name).enqueue().result_id])
        assert run.end[:2] == ("FAILED", "bad_result")
        heard = outcome(runs, tasks.heard.enqueue())
    assert ["framework finished", name, "FAILED"] in heard
    assert ["framework finished", name, "SUCCESSFUL"] not in heard


def test_the_contract_s_executor_runs_a_task_in_a_fresh_interpreter(postgres: Database, tmp_path: Path) -> None:
    group = Group.objects.create(name="fresh")
    program = {**EXEC, "command": [sys.executable, "-m", "reproq_django.executor"]}
    with executors(postgres, tmp_path, isolation="exec", exec=program) as runs:
        assert outcome(runs, tasks.name_of.enqueue(group, delay=timedelta(seconds=2))) == ["fresh", 2.0]
        process, module = outcome(runs, tasks.process_and_settings.enqueue())
        assert process and module == f"{SITE}queue_settings"
