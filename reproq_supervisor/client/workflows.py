"""Workflows to begin: chains, groups and chords, with the meaning of the contract.

A run of a workflow gets its own arguments and no results of others: a callback that needs them asks for them by their ids.
"""

import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reproq_supervisor.client.arguments import ArgumentsError, check_run
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId

if TYPE_CHECKING:
    from reproq_supervisor.store.asking import Question

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Workflow(Generic[T_co]):
    """Runs that are inserted together; T is the shape of their ids."""

    runs: tuple[NewRun, ...]
    id: uuid.UUID = field(default_factory=uuid.uuid4, kw_only=True)

    def beginning(self) -> "Question[T_co]":
        """Insert it, and return the ids of its runs."""
        raise NotImplementedError

    def _check(self, *more: NewRun) -> None:
        for run in (*self.runs, *more):
            check_run(run)
            if run.dedupe:
                raise ArgumentsError(f"{run.task_path}: expected a run of a workflow without dedupe, for it belongs to one workflow alone")


class Chain(Workflow[list[RunId]]):
    """Each run waits until the one before it has succeeded; if that fails for good, the rest fail with it, unrun."""

    __slots__ = ()

    def beginning(self) -> "Question[list[RunId]]":
        from reproq_supervisor.store.flows import chaining

        self._check()
        return (yield from chaining(self.runs, self.id)) if self.runs else []


class Group(Workflow[list[RunId]]):
    """Runs beside each other, with nothing in common but the id of their workflow."""

    __slots__ = ()

    def beginning(self) -> "Question[list[RunId]]":
        from reproq_supervisor.store.flows import grouping

        self._check()
        return (yield from grouping(self.runs, self.id)) if self.runs else []


@dataclass(frozen=True, slots=True)
class Chord(Workflow[tuple[list[RunId], RunId]]):
    """Runs beside each other, and a callback that runs once all of them have succeeded; if one fails for good, it fails, unrun."""

    callback: NewRun

    def beginning(self) -> "Generator[Any, Any, tuple[list[RunId], RunId]]":
        from reproq_supervisor.store.flows import chording

        self._check(self.callback)
        return (yield from chording(self.runs, self.callback, self.id))


def chain(*runs: NewRun) -> Chain:
    """Return a chain to begin with `client.begin`, which returns the ids in order."""
    return Chain(runs)


def group(*runs: NewRun) -> Group:
    """Return a group to begin with `client.begin`, which returns the ids in order."""
    return Group(runs)


def chord(*runs: NewRun, callback: NewRun) -> Chord:
    """Return a chord to begin with `client.begin`, which returns (the ids in order, the callback's)."""
    return Chord(runs, callback)
