"""How far it is: a bar on a terminal, a line a second elsewhere, nothing for programs."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from reproq_supervisor.cli.output import Output

_LINE_EVERY_S = 1.0


class Display(Protocol):
    """Shows how many have ended."""

    def show(self, ended: int, doing: str) -> None: ...


def display_for(output: Output, count: int) -> AbstractContextManager[Display]:
    """Return the display that suits who is looking."""
    if output.as_json:
        return nullcontext(_Silence())
    if output.console.is_terminal:
        return _Bar(output.console, count)
    return nullcontext(_Lines(count))


class _Silence:
    def show(self, ended: int, doing: str) -> None:
        pass


class _Lines:
    def __init__(self, count: int) -> None:
        self._count = count
        self._next_mono = 0.0

    def show(self, ended: int, doing: str) -> None:
        now = time.monotonic()
        if now >= self._next_mono or ended >= self._count:
            self._next_mono = now + _LINE_EVERY_S
            click.echo(f"  {ended:,}/{self._count:,} {doing}".rstrip())


class _Bar:
    """Refreshed by `show` alone: a thread of rich's own would outlive an interruption."""

    def __init__(self, console: Console, count: int) -> None:
        columns = (TextColumn(" "), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[doing]}"))
        self._progress = Progress(*columns, console=console, auto_refresh=False)
        self._bar = self._progress.add_task("", total=count, doing="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, ended: int, doing: str) -> None:
        self._progress.update(self._bar, completed=ended, doing=doing)
        self._progress.refresh()
