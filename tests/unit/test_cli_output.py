"""Tables and lines for people, whatever the names in them are."""

import io

from rich.console import Console

from reproq_supervisor.cli.output import build_table, visible

LONG = "a-queue-" + "with-a-very-long-name-" * 8


def rendered(columns: tuple[str, ...], rows: list[tuple[object, ...]], width: int = 80) -> list[str]:
    """Return the lines of a table on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(build_table(columns, rows))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_long_name_leaves_the_numbers_whole() -> None:
    lines = rendered(("queue", "ready", "running"), [(LONG, 1234567, 89), ("mail", 5, 0)])
    assert all(len(line) <= 80 for line in lines)
    assert "".join(line.split()[0] for line in lines[1:-1]) == LONG
    assert lines[1].split()[1:] == ["1234567", "89"]


def test_a_terminal_obeys_no_name() -> None:
    lines = rendered(("queue", "ready"), [("a\x1b[2Jb\nc\u2028d", 1)])
    assert lines[1].split() == [r"a\x1b[2Jb\nc\u2028d", "1"]
    assert visible("plain käse") == "plain käse"
