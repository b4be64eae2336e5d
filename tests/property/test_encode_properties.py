"""Whatever a task returns or raises becomes JSON that PostgreSQL takes, or a clear refusal."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproq_supervisor.executor.encode import BadResultError, encode_error, encode_result
from tests.support.postgres import Database

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.decimals() | st.datetimes() | st.uuids(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(TEXT | st.integers() | st.floats(), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=10))
def test_postgresql_takes_every_result_that_is_not_refused(values: list[Any], empty_database_cursor: Any) -> None:
    texts = []
    for value in values:
        try:
            texts.append(encode_result(value, 1 << 20).decode())
        except BadResultError as error:
            assert str(error).startswith("result: expected")
    rows = empty_database_cursor.execute("SELECT x::jsonb IS NOT NULL FROM unnest(%s::text[]) AS x", [texts]).fetchall()
    assert len(rows) == len(texts)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=TEXT, name=TEXT.filter(lambda text: "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)))
def test_postgresql_takes_every_error(words: str, name: str, empty_database_cursor: Any) -> None:
    text = encode_error("app_error", words, type(name, (Exception,), {})(words)).decode()
    (row,) = empty_database_cursor.execute("SELECT %s::jsonb", [text]).fetchall()
    assert row[0] == json.loads(text)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8")), inner),
        max_leaves=20,
    )
)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert json.loads(encode_result(value, 1 << 20)) == value


@pytest.fixture
def empty_database_cursor(empty_database: Database) -> Any:
    with empty_database.connect() as connection:
        yield connection.cursor()
