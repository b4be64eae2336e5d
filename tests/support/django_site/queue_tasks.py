"""Tasks of the framework, and what its signals said in this process."""

import os
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group

from reproq_django import signals
from reproq_django.framework import task, task_finished, task_started

_HEARD: list[list[Any]] = []


def _hear_started(sender: Any, task_result: Any, **_: Any) -> None:
    _HEARD.append(["framework started", task_result.task.module_path.rpartition(".")[2], str(task_result.status)])


def _hear_finished(sender: Any, task_result: Any, **_: Any) -> None:
    _HEARD.append(["framework finished", task_result.task.module_path.rpartition(".")[2], str(task_result.status)])


def _hear_contract(sender: Any, task_context: Any, **said: Any) -> None:
    _HEARD.append(["contract", sender, task_context.attempt, said.get("ok")])


def _stumble(sender: Any, **_: Any) -> None:
    raise RuntimeError("a receiver that fails")


task_started.connect(_hear_started)
task_finished.connect(_hear_finished)
signals.task_started.connect(_hear_contract)
signals.task_finished.connect(_hear_contract)
signals.task_started.connect(_stumble)


@task
def name_of(group: Group, delay: timedelta) -> list[Any]:
    return [group.name, delay.total_seconds()]


@task
async def coroutine_name_of(group: Group, delay: timedelta) -> list[Any]:
    return [group.name, delay.total_seconds()]


@task(takes_context=True)
def describe(context: Any, word: str) -> dict[str, Any]:
    context.metadata["word"] = word
    context.save_metadata()
    result = context.task_result
    return {
        "attempt": context.attempt,
        "result_id": context.result_id,
        "queue": context.queue_name,
        "alias": context.db_alias,
        "status": str(result.status),
        "id": result.id,
        "args": result.args,
        "attempts": result.attempts,
    }


@task
def fail(words: str) -> None:
    raise ValueError(words)


@task
def return_what_nobody_can_store() -> Any:
    return object()


@task
async def coroutine_return_what_nobody_can_store() -> Any:
    return float("nan")


@task
def heard() -> list[Any]:
    """Return what the signals said in this process so far, but of this very run."""
    return list(_HEARD)


@task
def process_and_settings() -> list[Any]:
    return [os.getpid(), os.environ.get("DJANGO_SETTINGS_MODULE")]
