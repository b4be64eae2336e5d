"""Workflows of tasks: chains, groups and chords, inserted whole or not at all, in the caller's transaction.

    chain(fetch, (resize, [100], {}), publish).enqueue()                            each waits until the one before it has succeeded
    group((resize, [100], {}), (resize, [200], {})).enqueue()                       beside each other
    chord((resize, [100], {}), (resize, [200], {}), callback=publish).enqueue()     and the callback after all of them

A run of a workflow belongs to it alone: it is never taken for a duplicate. It gets its own arguments, and no results of others.
"""

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from asgiref.sync import sync_to_async
from django.utils import timezone

from reproq_django.backend import ReproqBackend
from reproq_django.by_models import chain_by_models, chord_by_models, group_by_models
from reproq_django.calls import Call
from reproq_django.framework import Task
from reproq_django.inserting import ask_store
from reproq_django.results import ReproqTaskResult, enqueued
from reproq_django.routing import Routes, is_postgres
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import Entered
from reproq_supervisor.store.flows import chaining, chording, grouping

T = TypeVar("T")

# A task, or (task, args, kwargs).
Item: TypeAlias = Any


class _Workflow(Generic[T]):
    """What can be inserted whole; T is what it answers."""

    def enqueue(self) -> T:
        """Insert it."""
        raise NotImplementedError

    async def aenqueue(self) -> T:
        """As `enqueue`, for coroutines."""
        return await sync_to_async(self.enqueue, thread_sensitive=True)()


class Chain(_Workflow[list[ReproqTaskResult]]):
    """Tasks one after the other; if one fails for good, the rest fail with it, unrun."""

    def __init__(self, *items: Item) -> None:
        self.items = items

    def enqueue(self) -> list[ReproqTaskResult]:
        """Insert it, and return the results in order. Raises as `ReproqBackend.enqueue`, and ValueError for queues of two databases."""
        plan = _Plan.of(self.items)
        if not plan.calls:
            return []
        ask = is_postgres(plan.alias)
        ids = ask_store(plan.alias, chaining(plan.runs, plan.id)) if ask else chain_by_models(plan.alias, plan.runs, plan.id)
        return plan.results(ids)


class Group(_Workflow[list[ReproqTaskResult]]):
    """Tasks beside each other, with nothing in common but the id of their workflow."""

    def __init__(self, *items: Item) -> None:
        self.items = items

    def enqueue(self) -> list[ReproqTaskResult]:
        """Insert it, and return the results in order. Raises as `Chain.enqueue`."""
        plan = _Plan.of(self.items)
        if not plan.calls:
            return []
        ask = is_postgres(plan.alias)
        ids = ask_store(plan.alias, grouping(plan.runs, plan.id)) if ask else group_by_models(plan.alias, plan.runs, plan.id)
        return plan.results(ids)


class Chord(_Workflow[tuple[list[ReproqTaskResult], ReproqTaskResult]]):
    """Tasks beside each other, and one that runs once all of them have succeeded; if one fails for good, it fails, unrun."""

    def __init__(self, *items: Item, callback: Item) -> None:
        self.items = items
        self.callback = callback

    def enqueue(self) -> tuple[list[ReproqTaskResult], ReproqTaskResult]:
        """Insert it, and return the results in order, and that of the callback. Raises as `Chain.enqueue`."""
        plan = _Plan.of([*self.items, self.callback])
        *members, last = plan.runs
        if is_postgres(plan.alias):
            ids, callback = ask_store(plan.alias, chording(members, last, plan.id))
        else:
            ids, callback = chord_by_models(plan.alias, members, last, plan.id)
        *results, of_callback = plan.results([*ids, callback])
        return results, of_callback


def chain(*items: Item) -> Chain:
    """Return a chain of tasks; an item is a task without arguments, or (task, args, kwargs)."""
    return Chain(*items)


def group(*items: Item) -> Group:
    """Return a group of tasks; items as in `chain`."""
    return Group(*items)


def chord(*items: Item, callback: Item) -> Chord:
    """Return a group of tasks with a callback; items as in `chain`."""
    return Chord(*items, callback=callback)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """The calls of a workflow, each with its backend, in one database."""

    id: uuid.UUID
    alias: str
    calls: list[tuple[ReproqBackend, Call]]
    routes: Routes

    @classmethod
    def of(cls, items: Sequence[Item]) -> "_Plan":
        routes = Routes.read()
        calls = [_call_of(item, routes) for item in items]
        aliases = sorted({call.alias for _, call in calls})
        if len(aliases) > 1:
            raise ValueError(f"workflow: expected tasks of one database, got queues in {', '.join(aliases)}")
        return cls(uuid.uuid4(), aliases[0] if aliases else routes.default, calls, routes)

    @property
    def runs(self) -> list[NewRun]:
        return [call.run for _, call in self.calls]

    def results(self, ids: Sequence[RunId]) -> list[ReproqTaskResult]:
        """Return the results, and tell who listens."""
        now = timezone.now()
        results = []
        for (backend, call), run in zip(self.calls, ids, strict=True):
            results.append(enqueued(call, Entered(run, now), self.routes))
            backend.tell_enqueued(call, results[-1])
        return results


def _call_of(item: Item, routes: Routes) -> tuple[ReproqBackend, Call]:
    task, args, kwargs = item if isinstance(item, tuple) and len(item) == 3 else (item, (), {})
    if not isinstance(task, Task):
        raise TypeError(f"workflow: expected a task, or (task, args, kwargs), got {item!r}")
    backend = task.get_backend()
    if not isinstance(backend, ReproqBackend):
        raise TypeError(f"workflow: {task.module_path}: expected a task of {ReproqBackend.__name__}, got one of {type(backend).__name__}")
    call = backend.call_of(task, args, kwargs, routes)
    return backend, dataclasses.replace(call, run=dataclasses.replace(call.run, dedupe=False))
