"""The array literals mean what went into them."""

import hypothesis.strategies as st
from hypothesis import given, settings

from reproq_supervisor.store.arrays import text_array
from tests.support.postgres import Database

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))


def test_a_server_reads_the_texts_that_were_written(database: Database) -> None:
    with database.connect() as connection:

        @settings(max_examples=300, deadline=None)
        @given(values=st.lists(st.none() | TEXT | st.sampled_from(["NULL", "", "{", '"', "\\", ",", " a "])))
        def reads(values: list[str | None]) -> None:
            assert connection.execute("SELECT %s::text[]", (text_array(values),)).fetchone() == (values,)

        reads()
