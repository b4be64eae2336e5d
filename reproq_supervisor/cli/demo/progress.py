"""Follow the tasks until all have ended: bars on a terminal, a line a second elsewhere, nothing for programs."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from reproq_supervisor.cli.output import Output
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.store.commands import QueueStats

_LOOK_EVERY_S = 0.2
_LINE_EVERY_S = 1.0
_BAR_CHARS = 16  # leaves room for the words on a terminal of 80 columns
# Longer than any time limit of config/demo.yaml with its grace and lease.
_STALLED_AFTER_S = 60.0

Queues = Mapping[str, QueueStats]


class StalledError(ReproqError):
    """Nothing has happened for so long that nothing will."""


class Display(Protocol):
    """Shows how far each queue has come."""

    def show(self, queues: Queues) -> None: ...


def ended(queue: QueueStats) -> int:
    """Return how many tasks of a queue have ended."""
    return queue.ended.successful + queue.ended.failed + queue.ended.cancelled


def have_ended(queues: Queues, planned: Mapping[str, int]) -> bool:
    """Answer whether every queue has ended what it was given."""
    return all(name in queues and ended(queues[name]) >= count for name, count in planned.items())


def describe(queue: QueueStats) -> str:
    """Say in a few words what the tasks of a queue do."""
    return f"{queue.running} claimed, {queue.ready} waiting, {queue.parked} to retry, {queue.ended.failed} failed"


def follow(look: Callable[[], Queues], planned: Mapping[str, int], display: Display) -> None:
    """Look and show until all tasks have ended.

    Args:
      look: returns the queues now; raises when there is nothing to wait for any more.
      planned: how many tasks each queue was given.

    Raises:
      StalledError: a minute passed without a change.
    """
    seen: Queues = {}
    changed_mono = time.monotonic()
    while True:
        queues = {name: stats for name, stats in look().items() if name in planned}
        display.show(queues)
        if have_ended(queues, planned):
            return
        now = time.monotonic()
        if _standing(queues) != _standing(seen):
            seen, changed_mono = queues, now
        elif now - changed_mono > _STALLED_AFTER_S:
            found = "; ".join(f"{name}: {describe(stats)}" for name, stats in queues.items())
            raise StalledError(f"demo: expected progress within {_STALLED_AFTER_S:g} s, found none ({found})")
        time.sleep(_LOOK_EVERY_S)


def _standing(queues: Queues) -> dict[str, tuple[int, str]]:
    """Return what counts as progress; the age of what waits grows by itself."""
    return {name: (ended(stats), describe(stats)) for name, stats in queues.items()}


def display_for(output: Output, planned: Mapping[str, int]) -> AbstractContextManager[Display]:
    """Return the display that suits who is looking."""
    if output.as_json:
        return nullcontext(_Silence())
    if output.console.is_terminal:
        return Bars(output.console, planned)
    return nullcontext(Lines(planned))


class _Silence:
    def show(self, queues: Queues) -> None:
        pass


@dataclass
class Lines:
    """A line a second, for logs."""

    planned: Mapping[str, int]
    _next_mono: float = 0.0

    def show(self, queues: Queues) -> None:
        """Write a line if the last one is a second old, or will be the last."""
        now = time.monotonic()
        if now >= self._next_mono or have_ended(queues, self.planned):
            self._next_mono = now + _LINE_EVERY_S
            states = (
                f"{name} {ended(queues[name])}/{count} ({describe(queues[name])})" for name, count in self.planned.items() if name in queues
            )
            click.echo("  " + "; ".join(states))


class Bars:
    """A bar for each queue. Refreshed by `show` alone: a thread of rich's own would outlive an interruption."""

    def __init__(self, console: Console, planned: Mapping[str, int]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=_BAR_CHARS),
            MofNCompleteColumn(),
            TextColumn("{task.fields[doing]}"),
            console=console,
            auto_refresh=False,
        )
        self._bars = {name: self._progress.add_task(name, total=count, doing="") for name, count in planned.items()}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, queues: Queues) -> None:
        """Draw the bars."""
        for name, stats in queues.items():
            self._progress.update(self._bars[name], completed=ended(stats), doing=describe(stats))
        self._progress.refresh()
