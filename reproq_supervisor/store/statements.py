"""Reads the named statements of `sql/*.sql`, once.

A statement begins with ``-- name: verb``; the comment lines after it say what it means and returns; it ends with the next name or the file.
"""

import re
from functools import cache
from pathlib import Path

# `importlib.resources` would take 0.5 MiB of each shard and keeper.
_FOLDER = Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(table: str) -> dict[str, bytes]:
    """Return the statements of `sql/<table>.sql` by name, as bytes: psycopg takes those as text that no one has formatted."""
    source = (_FOLDER / f"{table}.sql").read_text("utf-8")
    parts = _NAME.split(source)[1:]
    return {name: body.strip().encode() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def tables() -> list[str]:
    """Return the names of all statement files."""
    return sorted(path.stem for path in _FOLDER.glob("*.sql"))
