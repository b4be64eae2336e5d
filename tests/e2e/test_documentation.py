"""Every command of the documentation is run as a reader would type it, and does what the page says."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.pages import Command, Fragment, NewFile, Statement, steps_of
from tests.support.postgres import Database
from tests.support.terminal import Terminal

ROOT = Path(__file__).parents[2]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```console" in page.read_text()]
# What a page calls the database of the reader.
YOUR_DATABASE = "postgresql://app@localhost/app"


@pytest.fixture
def terminal(empty_database: Database, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal({YOUR_DATABASE: _typeable(empty_database.dsn)})
    try:
        yield terminal
    finally:
        request.node.user_properties.append(("log", terminal.log[-20000:]))
        terminal.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_followed(page: Path, terminal: Terminal) -> None:
    for step in steps_of(page):
        try:
            _follow(terminal, step)
        except Exception as error:
            raise AssertionError(f"{page.name}:{step.line}: {error}\n\nthe daemon's log ends with:\n{terminal.log[-4000:]}") from error


def _typeable(dsn: str) -> str:
    """Return *dsn* without what a shell would take for its own."""
    parts = conninfo_to_dict(dsn)
    return f"postgresql://{parts['user']}@{quote(str(parts['host']), safe='')}:{parts['port']}/{parts['dbname']}"


def _follow(terminal: Terminal, step: object) -> None:
    match step:
        case Command():
            terminal.type(step)
        case NewFile():
            terminal.write(step)
        case Statement():
            terminal.execute(step.text)
        case Fragment():
            pass  # tests/architecture/test_documents.py
