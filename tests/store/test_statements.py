"""Every statement is understood by a live server."""

import re

import pytest

from reproq_supervisor.store.statements import load, tables
from tests.support.postgres import Database

EVERY = [(table, name) for table in tables() for name in load(table)]


@pytest.mark.parametrize(("table", "name"), EVERY)
def test_a_statement_can_be_prepared(database: Database, table: str, name: str) -> None:
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    text = re.sub(r"%\((\w+)\)s", numbered, load(table)[name].decode())
    with database.connect() as connection:
        if re.search(r"^COPY", text, re.MULTILINE):
            with connection.cursor().copy(text.encode()):
                pass  # it cannot be prepared; no rows
        elif re.search(r"^(CREATE TABLE|ALTER TABLE|LOCK TABLE|DROP)", text, re.MULTILINE):
            with connection.transaction(force_rollback=True):
                connection.execute(text.encode())  # a definition cannot be prepared
        else:
            connection.execute(f"PREPARE it AS {text}".encode())
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE name = 'it'").fetchone() == (1,)


def test_names_are_unique_within_a_file() -> None:
    for table in tables():
        assert load(table), f"{table}.sql: expected statements, got none"
