"""How a command answers: tables and lines for people, JSON for programs; colour only on a terminal."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 10_000
_SHORT_CELL = 14
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Output:
    """Standard output in one of its two forms.

    A command gathers its answer as plain data, then calls `show_json` or, for people, the other methods.
    """

    as_json: bool = False

    def show_json(self, data: Any) -> None:
        """Write *data* as one line of JSON: streams write one line per item."""
        click.echo(json.dumps(data, ensure_ascii=False, default=str))

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """Write one line; *style* is one of rich's, such as "bold red"."""
        self.console.print("\n".join(visible(line) for line in text.split("\n")), style=style)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing") -> None:
        """Write a table; numbers are aligned to the right. *empty* is said when there are no rows."""
        listed = [list(row) for row in rows]
        if listed:
            self.console.print(build_table(columns, listed))
        else:
            self.line(empty)

    @cached_property
    def console(self) -> "Console":
        """The console for what these methods cannot say (live displays). Nothing in a text is taken for markup."""
        from rich.console import Console

        console = Console(markup=False, highlight=False, emoji=False)
        if not console.is_terminal:
            console = Console(markup=False, highlight=False, emoji=False, width=_PIPE_WIDTH, soft_wrap=True)
        return console


def build_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
    """Return the table for a console to print, for what is more than a table."""
    from rich.table import Table  # 30 ms that --json and --help need not pay

    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[visible("" if cell is None else str(cell)) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        # Where room is scarce the long texts give way: a number that is torn apart is none.
        is_short = all(len(row[index]) <= _SHORT_CELL for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=is_short)
    for row in cells:
        table.add_row(*row)
    return table


def visible(text: str) -> str:
    """Return *text* with its control characters spelled out: names come from whoever enqueues, and a terminal would obey them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
