"""The backend for `TASKS`: `reproq_django.backend.ReproqBackend`."""

import types
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async

from reproq_django import signals
from reproq_django.calls import Call, call_of
from reproq_django.checks import backend_problems
from reproq_django.conf import BackendOptions, check_shape
from reproq_django.framework import BaseTaskBackend, Task, TaskResult, TaskResultDoesNotExist, task_enqueued
from reproq_django.inserting import insert
from reproq_django.models import TaskRun
from reproq_django.results import ReproqTaskResult, enqueued, stored
from reproq_django.routing import Routes, parse_result_id
from reproq_supervisor.client.arguments import check_json
from reproq_supervisor.store.enqueue import Entered


class ReproqBackend(BaseTaskBackend):
    """Enqueues tasks into the tables that a supervisor works off, within the transaction of the caller."""

    supports_defer = True
    supports_priority = True
    supports_get_result = True
    supports_async_task = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        check_shape(alias, params)
        # None stands for nothing said, as an empty list does: any queue.
        super().__init__(alias, {**params, "QUEUES": params.get("QUEUES", ["default"]) or ()})
        self._options = BackendOptions.of(self.options)

    def validate_task(self, task: Task) -> None:
        """As the framework, but a delay (a timedelta as `run_after`) is as good as a time."""
        if isinstance(task.run_after, timedelta):
            names = ("func", "takes_context", "priority", "queue_name", "backend")
            super().validate_task(types.SimpleNamespace(run_after=None, **{name: getattr(task, name) for name in names}))
        else:
            super().validate_task(task)

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Enqueue *task*; one of the same content that has not ended is returned instead, unless DEDUP_ACTIVE is off.

        Raises:
          InvalidTask: this backend does not take it.
          TypeError, ValueError: an argument cannot be stored, or a reserved one is not right.
          django.db.DatabaseError: the database refused, or cannot be asked now.
        """
        return self.bulk_enqueue([(task, args, kwargs)])[0]

    def bulk_enqueue(self, calls: Iterable[tuple[Task, Sequence[Any], Mapping[str, Any]]]) -> list[TaskResult]:
        """Enqueue many, those of each database in one transaction; return the results in order. Raises as `enqueue`."""
        routes = Routes.read()
        planned = [self.call_of(task, args, kwargs, routes) for task, args, kwargs in calls]
        results = self._inserted(planned, routes)
        for call, result in zip(planned, results, strict=True):
            self.tell_enqueued(call, result)
        return results

    def call_of(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], routes: Routes) -> Call:
        """Return what enqueueing *task* would insert. Raises as `enqueue`, but asks no database."""
        self.validate_task(task)
        return call_of(task, args, kwargs, self._options, self.alias, routes)

    async def abulk_enqueue(self, calls: Iterable[tuple[Task, Sequence[Any], Mapping[str, Any]]]) -> list[TaskResult]:
        """As `bulk_enqueue`, for coroutines."""
        return await sync_to_async(self.bulk_enqueue, thread_sensitive=True)(calls)

    def get_result(self, result_id: str) -> TaskResult:
        """Return the result with this id.

        Raises:
          TaskResultDoesNotExist: there is none (any more).
          TaskResultMismatch: its task does not exist any more.
        """
        alias, number = parse_result_id(result_id)
        row = None if number is None else TaskRun.objects.using(alias).filter(pk=number).first()
        if row is None:
            raise TaskResultDoesNotExist(f"{result_id}: expected the id of a run, found none in {alias!r}")
        return stored(row, alias, self.alias, Routes.read())

    def save_metadata(self, result_id: str, metadata: dict[str, Any]) -> None:
        """Replace what is noted down about a run.

        Raises:
          TaskResultDoesNotExist: there is no such run.
          ValueError: something of it cannot be stored.
        """
        check_json(metadata, "metadata")
        alias, number = parse_result_id(result_id)
        if number is None or not TaskRun.objects.using(alias).filter(pk=number).update(metadata_json=metadata):
            raise TaskResultDoesNotExist(f"{result_id}: expected the id of a run, found none in {alias!r}")

    async def asave_metadata(self, result_id: str, metadata: dict[str, Any]) -> None:
        """As `save_metadata`, for coroutines."""
        await sync_to_async(self.save_metadata, thread_sensitive=True)(result_id, metadata)

    def check(self, **kwargs: Any) -> list[Any]:
        """Say what is wrong with the settings."""
        return [*super().check(**kwargs), *backend_problems(self.alias, self.options)]

    def _inserted(self, planned: Sequence[Call], routes: Routes) -> list[TaskResult]:
        by_alias: dict[str, list[int]] = defaultdict(list)
        for at, call in enumerate(planned):
            by_alias[call.alias].append(at)
        results: dict[int, ReproqTaskResult] = {}
        for alias, places in by_alias.items():
            entered = insert(alias, [planned[at].run for at in places])
            results.update(zip(places, self._results(alias, [planned[at] for at in places], entered, routes), strict=True))
        return [results[at] for at in range(len(planned))]

    def _results(self, alias: str, calls: Sequence[Call], entered: Sequence[Entered], routes: Routes) -> Iterable[ReproqTaskResult]:
        """Yield the results in order; what was there before is read, for it may be running."""
        there = [each.result_id for each in entered if each.enqueued_at is None]
        rows = TaskRun.objects.using(alias).in_bulk(there) if there else {}
        for call, each in zip(calls, entered, strict=True):
            row = rows.get(each.result_id)
            yield enqueued(call, each, routes) if row is None else stored(row, alias, self.alias, routes)

    def tell_enqueued(self, call: Call, result: TaskResult) -> None:
        """Send the signals of a run that was inserted."""
        task_enqueued.send(type(self), task_result=result)
        if signals.task_enqueued.receivers:
            signals.task_enqueued.send(type(self), task_result=result, spec=call.run.payload())
