"""One deed for many tasks: asked about first, done in batches, with a bar on a terminal and a summary at the end."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click

from reproq_supervisor.core.runs import RunId

T = TypeVar("T")

# Runs of one transaction: short enough that nobody who wants one of them waits long.
BATCH = 200


def confirm(words: str, *, yes: bool) -> None:
    """Ask whether to go on, where somebody can answer.

    Raises:
      click.Abort: the answer was no.
    """
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(words, abort=True, err=True)


def in_batches(runs: Sequence[RunId], deed: str, act: Callable[[Sequence[RunId]], Iterable[T]]) -> Iterator[T]:
    """Let *act* do its deed batch by batch, and yield what it says of each run.

    What goes wrong with the database in the middle leaves what was done before: the same command goes on from there.
    """
    with progress(deed, len(runs)) as advance:
        for start in range(0, len(runs), BATCH):
            batch = runs[start : start + BATCH]
            yield from act(batch)
            advance(len(batch))


@contextmanager
def progress(deed: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's standard error, nothing elsewhere; the block is given the function that moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(deed, total=total)
        yield lambda count: bar.advance(task, count)


def summary(counts: Counter[str], words: dict[str, str]) -> list[str]:
    """Return a line for each outcome, in the order of *words*."""
    return [f"{counts[outcome]} {text}" for outcome, text in words.items() if counts[outcome]]
