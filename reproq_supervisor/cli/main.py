"""The program `reproq-supervisor` (also `reproq`): finds a command, runs it, and turns what went wrong into words and an exit code."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

import reproq_supervisor
from reproq_supervisor.cli.commands import SECTIONS, find_command
from reproq_supervisor.cli.failures import FAILED, LOST_ANSWER, report

PROGRAM = "reproq-supervisor"
_OPTIONS_OF_COMMANDS = ("-c", "--config", "--dsn", "--json")


class Program(click.Group):
    """A group whose commands are imported when they are asked for: help is fast, and a missing extra hurts only what needs it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name of the table."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None when there is no such name."""
        entry = find_command(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(f"reproq_supervisor.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the program's own options; one that every command takes, but the program does not, is told where it belongs."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in _OPTIONS_OF_COMMANDS:
                hint = f"{error.option_name}: expected behind a command, as in: {PROGRAM} status {error.option_name} …"
                raise click.UsageError(hint, ctx) from error
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a slip of the finger is told with what was probably meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]}?" if near else f"{PROGRAM} --help lists them"
            raise click.UsageError(f"expected a command, got {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help from the table alone."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in commands.items()])


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Example: {PROGRAM} run -c supervisor.yaml")
@click.version_option(reproq_supervisor.__version__, prog_name=PROGRAM)
def program() -> None:
    """Run the background side of a Python application on PostgreSQL alone."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and leave with its exit code.

    A command returns None (0) or its exit code, and raises what `failures` knows how to word.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = Path(sys.argv[0]).name
    try:
        code = program.main(given, prog_name=PROGRAM if name == "__main__.py" else name, standalone_mode=False)
        sys.stdout.flush()  # what is left of the answer is told to be lost here, not when the interpreter ends
    except BrokenPipeError:  # whoever read has left, as in `... | head`
        _forget_answer()
        code = FAILED
    except Exception as error:  # boundary: whatever happened ends as words and an exit code
        if isinstance(error, OSError) and error.errno in LOST_ANSWER:
            _forget_answer()
        code = report(error, as_json="--json" in given)
    sys.exit(code if isinstance(code, int) else 0)


def _forget_answer() -> None:
    """Let what the output still holds, and what is written from now on, go nowhere instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
