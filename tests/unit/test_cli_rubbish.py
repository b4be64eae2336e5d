"""Whatever is typed, a command answers in words: no trace, no endless message, no wait."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.generate.commands import leaf_commands
from tests.support.program import enter_empty_surroundings, run_program

RUBBISH = ("", "-1", "99999999999999999999999999", "NaN", "\udcff", "x" * 5000, "[" * 5000, "{}", "/dev/null", "${X}", "%s\n")
# These start something, and read what they are given by the same means.
_STARTING = ("run", "worker", "demo")
COMMANDS = {name: command for name, command in leaf_commands() if name not in _STARTING}
NOBODY = "postgresql://127.0.0.1:1/x"


@pytest.mark.parametrize("name", COMMANDS)
def test_rubbish_is_answered_in_words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)
    for arguments in _tries(COMMANDS[name]):
        done = run_program(*name.split(), *arguments)
        assert "Traceback" not in done.err, arguments
        assert "unexpected " not in done.err, arguments
        assert len(done.err) < 20_000, arguments


def _tries(command: click.Command) -> Iterator[list[str]]:
    """Yield command lines in which one value is rubbish and the others make sense."""
    needed = ["a.b" if each.name == "task_path" else "1" for each in command.params if isinstance(each, click.Argument)]
    for rubbish in RUBBISH:
        for index in range(len(needed)):
            yield ["--dsn", NOBODY, "--", *needed[:index], rubbish, *needed[index + 1 :]]
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                yield [f"--dsn={NOBODY}", f"{option.opts[-1]}={rubbish}", *needed]
