"""The result of a run: the framework's own, with what the contract's tells besides."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from reproq_django.calls import Call, changed
from reproq_django.failures import task_errors
from reproq_django.framework import TASK_REFRESH_ATTRS, TaskResult, TaskResultStatus
from reproq_django.models import RunState, TaskRun
from reproq_django.paths import task_at
from reproq_django.routing import Routes, parse_result_id
from reproq_supervisor.store.enqueue import Entered

# The framework has no words for a run that waits for another, and for one that was cancelled.
_STATUS_OF = {RunState.WAITING: TaskResultStatus.READY, RunState.CANCELLED: TaskResultStatus.FAILED}
_OWN = ("raw_status", "metadata")


class ReproqTaskResult(TaskResult):
    """A `TaskResult` that also has the names of the contract.

    Attributes:
      raw_status: as the table has it: also WAITING and CANCELLED.
      metadata: what the task has noted down about its run.
      db_alias: the database that it is in.
    """

    raw_status: str
    metadata: dict[str, Any]
    db_alias: str

    def __getstate__(self) -> dict[str, Any]:
        """Return everything: the framework's own class knows only its own fields."""
        return {name: getattr(self, name) for name in (*(each.name for each in fields(TaskResult)), *_OWN, "db_alias")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def result_id(self) -> int:
        """The number of the run in its database."""
        _, number = parse_result_id(self.id)
        assert number is not None, "ids of results are made by us"
        return number

    @property
    def result(self) -> Any:
        """What the task returned.

        Raises:
          RuntimeError: it has not succeeded (yet).
        """
        if self.status != TaskResultStatus.SUCCESSFUL:
            raise RuntimeError(f"run {self.id}: expected it to have succeeded, found {self.raw_status}")
        return self.return_value

    @property
    def data(self) -> TaskRun:
        """The record of the run, read anew."""
        return TaskRun.objects.using(self.db_alias).get(pk=self.result_id)

    def refresh(self) -> None:
        """Read it anew."""
        self._take(self.task.get_backend().get_result(self.id))

    async def arefresh(self) -> None:
        """As `refresh`, for coroutines."""
        self._take(await self.task.get_backend().aget_result(self.id))

    def _take(self, fresh: TaskResult) -> None:
        for name in (*TASK_REFRESH_ATTRS, *_OWN):
            object.__setattr__(self, name, getattr(fresh, name))

    def wait(self, timeout: float | None = None, poll_interval: float = 0.5) -> Any:
        """Wait for its end, and return what the task returned.

        Raises:
          TimeoutError: it has not ended within *timeout* seconds.
          RuntimeError: it failed, or was cancelled.
        """
        for pause_s in _pauses(timeout, poll_interval):
            self.refresh()
            if self.is_finished:
                return self.result
            time.sleep(pause_s)
        raise TimeoutError(f"run {self.id}: expected its end within {timeout} s, found {self.raw_status}")

    async def await_result(self, timeout: float | None = None, poll_interval: float = 0.5) -> Any:
        """As `wait`, for coroutines."""
        for pause_s in _pauses(timeout, poll_interval):
            await self.arefresh()
            if self.is_finished:
                return self.result
            await asyncio.sleep(pause_s)
        raise TimeoutError(f"run {self.id}: expected its end within {timeout} s, found {self.raw_status}")


def _pauses(timeout_s: float | None, poll_interval_s: float) -> Iterator[float]:
    """Yield how long to wait after each look; the last look is at the very end of the time."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = float("inf") if deadline is None else deadline - time.monotonic()
        yield max(0.0, min(poll_interval_s, left))
        if left <= 0:
            return


def enqueued(call: Call, entered: Entered, routes: Routes) -> ReproqTaskResult:
    """Return the result of a run that was just inserted."""
    result = ReproqTaskResult(
        task=call.task,
        id=routes.result_id_of(call.alias, entered.result_id),
        status=TaskResultStatus.READY,
        enqueued_at=entered.enqueued_at,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=call.run.args,
        kwargs=call.run.kwargs,
        backend=call.run.backend_alias,
        errors=[],
        worker_ids=[],
    )
    return _with_own(result, call.alias, str(RunState.READY), {})


def stored(row: TaskRun, alias: str, backend: str, routes: Routes) -> ReproqTaskResult:
    """Return the result of a run as its record tells it.

    Args:
      backend: the alias of the backend that was asked.

    Raises:
      TaskResultMismatch: there is no such task (any more).
    """
    spec = row.spec_json if isinstance(row.spec_json, dict) else {}
    state = RunState(row.status)
    task = changed(task_at(row.task_path), priority=row.priority, queue_name=row.queue_name, run_after=row.run_after, backend=backend)
    result = ReproqTaskResult(
        task=task,
        id=routes.result_id_of(alias, row.result_id),
        status=_STATUS_OF.get(state) or TaskResultStatus(state),
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        last_attempted_at=row.last_attempted_at,
        args=spec.get("args") or [],
        kwargs=spec.get("kwargs") or {},
        backend=backend,
        errors=task_errors(row.errors_json),
        worker_ids=list(row.worker_ids or []),
    )
    object.__setattr__(result, "_return_value", row.return_json)
    return _with_own(result, alias, str(state), row.metadata_json or {})


def _with_own(result: ReproqTaskResult, alias: str, state: str, metadata: dict[str, Any]) -> ReproqTaskResult:
    object.__setattr__(result, "db_alias", alias)
    object.__setattr__(result, "raw_status", state)
    object.__setattr__(result, "metadata", metadata)
    return result
