"""The array literals mean what went into them."""

import hypothesis.strategies as st
from hypothesis import given, settings

from reproq_supervisor.store.arrays import number_array, text_array
from tests.support.postgres import Database

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))


def test_a_server_reads_the_texts_that_were_written(database: Database) -> None:
    with database.connect() as connection:

        @settings(max_examples=300, deadline=None)
        @given(values=st.lists(st.none() | TEXT | st.sampled_from(["NULL", "", "{", '"', "\\", ",", " a "])))
        def reads(values: list[str | None]) -> None:
            assert connection.execute("SELECT %s::text[]", (text_array(values),)).fetchone() == (values,)

        reads()


def test_a_server_reads_the_numbers_that_were_written(database: Database) -> None:
    with database.connect() as connection:

        @settings(max_examples=100, deadline=None)
        @given(
            ids=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
            seconds=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        )
        def reads(ids: list[int | None], seconds: list[float | None]) -> None:
            row = connection.execute("SELECT %s::bigint[], %s::float8[]", (number_array(ids), number_array(seconds))).fetchone()
            assert row == (ids, seconds)

        reads()
