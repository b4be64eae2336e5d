"""Wanted against actual: which units lack a process, and which processes nobody wants.

A rolling change needs no steps of its own: when a unit is wanted in a newer generation than the one that fills it, the old process stays
until the new one is ready. Taking a wish back (a failed canary) drains the new one at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS, Unit


@dataclass(frozen=True, slots=True, order=True)
class Want:
    """A unit to be filled by a process of that generation."""

    unit: Unit
    generation: int


@dataclass(frozen=True, slots=True)
class Differences:
    """Units to start, if their account allows it, and processes to drain."""

    missing: tuple[Want, ...]
    unwanted: tuple[Process, ...]


def reconcile(wanted: Sequence[Want], actual: Iterable[Process]) -> Differences:
    """Compare what is wanted with what is there.

    One-shot children are never unwanted: they end by themselves, or by those who started them.
    """
    filling = [process for process in actual if process.fills]
    have = {Want(process.unit, process.generation) for process in filling}
    wishes = set(wanted)
    awaited: dict[Unit, int] = {}  # unit → generation that is wanted but not ready yet
    ready = {Want(p.unit, p.generation) for p in filling if p.state is ProcessState.READY}
    for want in wanted:
        if want not in ready:
            awaited[want.unit] = max(want.generation, awaited.get(want.unit, want.generation))
    unwanted = []
    for process in filling:
        if process.state is ProcessState.STARTING or process.unit.role in ONE_SHOTS:
            continue
        if Want(process.unit, process.generation) in wishes:
            continue
        if process.generation < awaited.get(process.unit, process.generation):
            continue
        unwanted.append(process)
    return Differences(tuple(want for want in wanted if want not in have), tuple(unwanted))
