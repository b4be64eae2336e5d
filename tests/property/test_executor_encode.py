"""Results and errors as JSON text: what PostgreSQL would refuse is found before it is sent."""

import datetime
import decimal
import json
import math
import pathlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.executor.encode import BadResultError, encode_error, encode_result, message_of

MOST = 1 << 20
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(storable, inner, max_size=4),
    max_leaves=20,
)


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@given(values)
def test_a_value_comes_back_as_it_was_returned(value: Any) -> None:
    assert json.loads(encode_result(value, MOST)) == value


@given(st.text(max_size=40))
def test_text_is_stored_exactly_when_postgresql_can_hold_it(text: str) -> None:
    bad = "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
    try:
        stored = json.loads(encode_result({"text": [text]}, MOST))
    except BadResultError:
        assert bad, repr(text)
    else:
        assert not bad
        assert stored == {"text": [text]}


@given(st.text("\\u0\0", max_size=20))
def test_a_backslash_before_u0000_is_not_nul(text: str) -> None:
    if "\0" in text:
        with pytest.raises(BadResultError, match="NUL"):
            encode_result(text, MOST)
    else:
        assert json.loads(encode_result(text, MOST)) == text


@given(st.text("aé€😀", max_size=50), st.integers(0, 250))
def test_the_size_is_counted_in_bytes_of_json(text: str, most: int) -> None:
    size = len(text.encode()) + 2
    if size <= most:
        assert len(encode_result(text, most)) == size
    else:
        with pytest.raises(BadResultError, match=f"at most {most} bytes of JSON, got {size}"):
            encode_result(text, most)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC), "2024-05-06T07:08:00+00:00"),
        (datetime.date(2024, 5, 6), "2024-05-06"),
        (datetime.time(7, 8), "07:08:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        ((1, (2,)), [1, [2]]),
    ],
)
def test_common_values_become_their_usual_text(value: object, stored: object) -> None:
    assert json.loads(encode_result({"value": value}, MOST)) == {"value": stored}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "NaN or an infinite number"),
        ([math.inf], "NaN or an infinite number"),
        ({"a": {1, 2}}, "an object of type builtins.set"),
        (object(), "an object of type builtins.object"),
        (b"bytes", "an object of type builtins.bytes"),
        ({(1, 2): 3}, "keys must be"),
        ("\ud800", "lone surrogate"),
        (endless(), "a value that contains itself"),
        (nested(200_000), "nested too deep"),
    ],
)
def test_what_cannot_be_stored_says_why(value: object, words: str) -> None:
    with pytest.raises(BadResultError, match=words):
        encode_result(value, MOST)


# -- errors -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=100))
def test_an_error_is_always_storable(message: str) -> None:
    fields = json.loads(encode_error("app_error", message))
    assert fields["kind"] == "app_error"
    assert len(fields["message"]) == len(message)
    encode_result(fields, MOST)


def test_a_message_is_cut_with_a_mark() -> None:
    assert json.loads(encode_error("app_error", "x" * 4096))["message"] == "x" * 4096
    assert json.loads(encode_error("app_error", "x" * 4097))["message"] == "x" * 4095 + "…"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_names_its_class_and_its_traceback() -> None:
    fields = json.loads(encode_error("app_error", "words", raised(ValueError("words"))))
    assert list(fields) == ["kind", "message", "exception_class", "exception_class_path", "traceback"]
    assert fields["exception_class_path"] == "builtins.ValueError"
    assert (fields["exception_class"], fields["traceback"].splitlines()[-1]) == ("ValueError", "ValueError: words")
    assert "in raised" in fields["traceback"]


def test_the_end_of_a_long_traceback_is_kept() -> None:
    text = json.loads(encode_error("app_error", "", raised(ValueError("x" * 20_000 + "the end"))))["traceback"]
    assert len(text) == 16384
    assert text.startswith("…")
    assert text.endswith("the end\n")


def test_an_exception_whose_text_fails_still_has_a_message_and_a_traceback() -> None:
    error = raised(Silent())
    assert message_of(error) == "(Silent whose text failed with RuntimeError)"
    assert json.loads(encode_error("app_error", "", error))["exception_class"] == "Silent"


def test_a_message_is_the_text_of_the_exception() -> None:
    assert message_of(ValueError("words")) == "words"
