"""One subcommand of `manage.py reproq`."""

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.management.base import OutputWrapper

Options = dict[str, Any]
"""What argparse read, by destination."""


@dataclass(frozen=True, slots=True)
class Out:
    """Where a subcommand answers."""

    stdout: OutputWrapper
    stderr: OutputWrapper

    def line(self, text: str = "") -> None:
        """Write one line of the answer."""
        self.stdout.write(text)

    def note(self, text: str) -> None:
        """Write one line for whoever watches."""
        self.stderr.write(text)


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Its line in the help, its flags, and what it does; a CommandError ends it with 1."""

    summary: str
    add_flags: Callable[[ArgumentParser], None]
    run: Callable[[Options, Out], None]


def no_flags(parser: ArgumentParser) -> None:
    """Add nothing."""


def database_flag(parser: ArgumentParser, *, several: bool = False) -> None:
    """Add `--database`, and `--all-databases` to what looks at several."""
    parser.add_argument("--database", metavar="ALIAS", help="Database of settings.DATABASES; default: DATABASE_URL, or the queue's.")
    if several:
        parser.add_argument("--all-databases", action="store_true", help="One after the other, every database that queues are in.")
