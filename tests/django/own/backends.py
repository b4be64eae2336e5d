"""This backend in the place of the two that Django's own tests are about."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.test import override_settings

from reproq_django.backend import ReproqBackend
from reproq_django.framework import Task, TaskResult
from reproq_django.models import TaskRun
from tests.django.own.hearing import Hearing
from tests.support.eventually import eventually

SERVED = "served"
"""The database of which a supervisor runs the tasks."""


class Keeping(ReproqBackend):
    """For the one that only notes down what is enqueued: its notes are the table, which nobody works at."""

    @property
    def results(self) -> list[TaskResult]:
        return [self.get_result(str(number)) for number in TaskRun.objects.order_by("pk").values_list("pk", flat=True)]

    def clear(self) -> None:
        TaskRun.objects.all().delete()


class Finishing(ReproqBackend):
    """For the one that runs a task while it is enqueued: enqueues it where a supervisor is at work, and waits for its end."""

    hearing: ClassVar[Hearing]

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._options = dataclasses.replace(self._options, max_attempts=1)

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        with override_settings(REPROQ_DEFAULT_DB_ALIAS=SERVED):
            result = super().enqueue(task, args, kwargs)

            def ended() -> bool:
                result.refresh()
                return bool(result.is_finished)

            eventually(ended, timeout=90, what=f"run {result.id} ends")
        self.hearing.say()
        return result
