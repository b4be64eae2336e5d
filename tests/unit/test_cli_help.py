"""What `--help` shows: every command has examples, and they are commands that this program understands."""

import shlex

import click
import pytest

from docs.generate.commands import examples_of, leaf_commands
from reproq_supervisor.cli.main import PROGRAM, program

COMMANDS = dict(leaf_commands())
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in examples_of(command)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_of_itself(name: str) -> None:
    assert any(line.partition(" ")[2].startswith(name) for line in examples_of(COMMANDS[name]))


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_is_understood(name: str, line: str) -> None:
    words = shlex.split(line)
    end = next((index for index, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
    assert words[0] in (PROGRAM, "reproq")
    _parse(program, words[1:end])


def _parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Let click read *arguments* for *command*; nothing is invoked.

    Raises:
      click.UsageError: it does not understand them.
    """
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=command.name)
        _, inner, rest = command.resolve_command(context, arguments)
        assert inner is not None
        _parse(inner, rest, context)
    else:
        command.make_context(command.name, list(arguments), parent=parent)
