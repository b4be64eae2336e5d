"""What has to change in a column is said by comparing it with its shape; nothing that would rewrite a table is said."""

from importlib import resources

import pytest

from reproq_supervisor.store.errors import StoreError
from reproq_supervisor.store.schema.columns import Found, changes
from reproq_supervisor.store.schema.files import texts
from reproq_supervisor.store.schema.shape import ELSEWHERE, TABLES, Column, Table

WORD = Column("word", "text", "'x'::text", not_null=True)
FINE = Found("text", "'x'::text", not_null=True, is_identity=False)


def said(wanted: Column, found: Found | None) -> list[str]:
    return list(changes(Table("t", (wanted,)), {} if found is None else {wanted.name: found}))


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    assert said(WORD, FINE) == []


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        (WORD, None, ["ADD COLUMN word text DEFAULT 'x'::text NOT NULL"]),
        (Column("word", "text"), None, ["ADD COLUMN word text"]),
        (Column("word", "text", ELSEWHERE), None, ["ADD COLUMN word text"]),
        (Column("word", "text", ELSEWHERE), Found("text", "''::text", not_null=False, is_identity=False), []),
        (WORD, Found("text", None, not_null=True, is_identity=False), ["ALTER COLUMN word SET DEFAULT 'x'::text"]),
        (Column("word", "text"), Found("text", "'x'::text", not_null=False, is_identity=False), ["ALTER COLUMN word DROP DEFAULT"]),
        (Column("word", "text"), Found("text", None, not_null=True, is_identity=False), ["ALTER COLUMN word DROP NOT NULL"]),
        (Column("word", "text"), Found("character varying(64)", None, not_null=False, is_identity=False), ["ALTER COLUMN word TYPE text"]),
    ],
)
def test_each_difference_is_a_part_of_alter_table(wanted: Column, found: Found | None, expected: list[str]) -> None:
    assert said(wanted, found) == expected


def test_a_column_that_may_be_null_is_not_forbidden_it_here() -> None:
    """That would read the whole table under a lock; `Values` does it in steps."""
    assert said(WORD, Found("text", "'x'::text", not_null=False, is_identity=False)) == []


@pytest.mark.parametrize("found", ["character(64)", "character varying(64)", "character varying", "bpchar"])
def test_a_hash_of_any_length_is_left_to_a_later_step(found: str) -> None:
    assert said(Column("spec_hash", "bpchar"), Found(found, None, not_null=False, is_identity=False)) == []


@pytest.mark.parametrize(("wanted", "found"), [("integer", "bigint"), ("text", "character(64)"), ("jsonb", "json"), ("bpchar", "text")])
def test_a_type_that_would_need_a_rewrite_is_refused_by_name(wanted: str, found: str) -> None:
    with pytest.raises(StoreError, match=rf"t.word: expected the type {wanted}, got "):
        said(Column("word", wanted), Found(found, None, not_null=False, is_identity=False))


def test_every_table_says_each_column_once() -> None:
    for table in TABLES:
        names = [column.name for column in table.columns]
        assert len(names) == len(set(names)), table.name


def test_every_file_of_the_schema_has_a_number_of_its_own() -> None:
    names = [entry.name for entry in (resources.files("reproq_supervisor.store") / "migrations").iterdir() if entry.name.endswith(".sql")]
    assert len(texts()) == len(names), sorted(names)
