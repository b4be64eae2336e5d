"""The page of commands, from click's own declarations: what `--help` says is what the manual says."""

import inspect
from collections.abc import Iterator

import click

from reproq_supervisor.cli.commands import SECTIONS
from reproq_supervisor.cli.main import PROGRAM, program

# Said once at the top instead of under every command; `--help` is click's own.
_COMMON = ("config", "dsn", "as_json", "help")

_HEAD = f"""\
# Commands

`{PROGRAM}` and `reproq` are the same program. This page is made from its own help: `{PROGRAM} COMMAND --help` says the same.

Every command takes these options.

{{common}}

The configuration is the file that `-c` names, or `REPROQ_CONFIG`, or `supervisor.yaml` or `config/supervisor.yaml` in the working
directory. The database is, in this order: `--dsn`, the variable `DATABASE_URL`, the file's `database`. [Exit
codes](operations.md#exit-codes) are the same for all commands.
"""


def commands_page() -> str:
    """Return the page: one section a group, one heading a command."""
    root = click.Context(program, info_name=PROGRAM)
    parts = [_HEAD.format(common=_table(_common_options(root)))]
    for title, commands in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in commands:
            command = program.get_command(root, name)
            assert command is not None
            parts += _sections(command, click.Context(command, parent=root, info_name=name))
    return "\n".join(parts)


def leaf_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by what is typed after the program's name."""
    root = click.Context(program, info_name=PROGRAM)
    for name in program.list_commands(root):
        command = program.get_command(root, name)
        assert command is not None
        yield from _leaves(name, command)


def _leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _leaves(f"{name} {inner.name}", inner)
    else:
        yield name, command


def examples_of(command: click.Command) -> list[str]:
    """Return the command lines of its example; a line that ends in a backslash goes on in the next."""
    lines = inspect.cleandoc(command.epilog or "").partition("Example:\n")[2]
    return [line.strip() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _sections(inner, click.Context(inner, parent=context, info_name=name))
        return
    yield f"### {context.command_path.removeprefix(PROGRAM).strip()}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    options = [param for param in command.params if isinstance(param, click.Option) and param.name not in _COMMON]
    if rows := [row for option in options if (row := option.get_help_record(context))]:
        yield _table(rows)
    if examples := examples_of(command):
        yield "```sh\n{}\n```\n".format("\n".join(examples))


def _common_options(root: click.Context) -> list[tuple[str, str]]:
    version = program.get_command(root, "version")
    assert version is not None
    context = click.Context(version, parent=root, info_name="version")
    return [row for param in version.get_params(context) if param.name in _COMMON and (row := param.get_help_record(context))]


def _table(rows: list[tuple[str, str]]) -> str:
    return "| option | |\n|---|---|\n" + "".join(f"| `{_cell(name)}` | {_cell(text)} |\n" for name, text in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
