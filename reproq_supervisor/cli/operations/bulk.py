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


class InterruptedDeed(click.Abort):
    """Somebody did not want to wait for the rest; what was done stays done."""


def confirm(words: str, *, yes: bool, unasked: bool = False) -> None:
    """Ask whether to go on.

    Args:
      unasked: go on where nobody can be asked, as scripts of older versions expect.

    Raises:
      click.Abort: the answer was no.
      click.UsageError: nobody can be asked.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if unasked:
            return
        raise click.UsageError(f"{words} expected --yes, since nobody can be asked; --dry-run says which they are")
    click.confirm(words, abort=True, err=True)


def in_batches(
    runs: Sequence[RunId], deed: str, act: Callable[[Sequence[RunId]], Iterable[T]], *, goes_on: str | None = None
) -> Iterator[T]:
    """Let *act* do its deed batch by batch, and yield what it says of each run.

    What goes wrong with the database in the middle leaves what was done before: the same command goes on from there.

    Args:
      goes_on: how to go on after an interruption where it does not.

    Raises:
      InterruptedDeed: by Ctrl-C.
    """
    with progress(deed, len(runs), goes_on=goes_on) as advance:
        for start in range(0, len(runs), BATCH):
            batch = runs[start : start + BATCH]
            yield from act(batch)
            advance(len(batch))


@contextmanager
def progress(deed: str, total: int | None, *, goes_on: str | None = None, dry: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's standard error, nothing elsewhere; the block is given the function that moves it on.

    Args:
      dry: it only looks.

    Raises:
      InterruptedDeed: by Ctrl-C, with how far it had come.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(deed, total=total)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.advance(task, count)

        try:
            yield advance
        except KeyboardInterrupt as error:
            told = f"interrupted in a dry run of {deed}: nothing was changed" if dry else _interrupted(deed, done, total, goes_on)
            raise InterruptedDeed(told) from error


def _interrupted(deed: str, done: int, total: int | None, goes_on: str | None) -> str:
    """Tell how far it had come. The batch under way was undone, unless its commit was just on its way."""
    count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    return f"interrupted while {deed}: {count} tasks were done, and stay so; {goes_on or 'the same command goes on with the others'}"


def summary(counts: Counter[str], words: dict[str, str]) -> list[str]:
    """Return a line for each outcome, in the order of *words*."""
    return [f"{counts[outcome]} {text}" for outcome, text in words.items() if counts[outcome]]
