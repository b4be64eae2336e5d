"""Results and errors as JSON that PostgreSQL takes."""

import datetime
import decimal
import json
import pathlib
import uuid
from typing import Any

import pytest

from reproq_supervisor.executor.encode import (
    MAX_MESSAGE_CHARS,
    MAX_TRACEBACK_CHARS,
    BadResultError,
    encode_error,
    encode_result,
    message_of,
)

MANY = 1 << 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("Grüße 🌍", '"Grüße 🌍"'),
        ({"a": (1, 2.5, True)}, '{"a":[1,2.5,true]}'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), '"2026-01-02T03:04:05+00:00"'),
        ([datetime.date(2026, 1, 2), datetime.time(3, 4)], '["2026-01-02","03:04:00"]'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (pathlib.Path("/a/b"), '"/a/b"'),
        ({1: "a"}, '{"1":"a"}'),
        ("\\u0000", '"\\\\u0000"'),
    ],
)
def test_what_json_can_say_is_stored(value: object, text: str) -> None:
    assert encode_result(value, MANY).decode() == text


def _loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "NaN or an infinite number"),
        ([{"a": float("-inf")}], "NaN or an infinite number"),
        ({float("nan"): 1}, "NaN or an infinite number"),
        ("a\0b", "the NUL character"),
        ({"\0": 1}, "the NUL character"),
        ("\\\0", "the NUL character"),
        ("\ud800", "a lone surrogate"),
        (object(), "an object of type builtins.object"),
        ({1, 2}, "an object of type builtins.set"),
        (b"bytes", "an object of type builtins.bytes"),
        ({(1, 2): 3}, "keys must be"),
        (_loop(), "contains itself"),
        pytest.param(10**5000, "limit", id="a long number"),
        ("x" * 50, "expected at most 40 bytes of JSON, got 52"),
    ],
)
def test_what_cannot_be_stored_says_why(value: object, words: str) -> None:
    with pytest.raises(BadResultError) as caught:
        encode_result(value, 40 if isinstance(value, str) and len(value) == 50 else MANY)
    assert words in str(caught.value)


def test_an_error_carries_class_and_traceback() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        fields = json.loads(encode_error("app_error", message_of(error), error))
    assert (fields["kind"], fields["message"], fields["exception_class"]) == ("app_error", "'missing'", "KeyError")
    assert fields["exception_class_path"] == "builtins.KeyError"
    assert "test_encode.py" in fields["traceback"]


def test_a_long_error_is_cut_where_it_says_least() -> None:
    error = ValueError("x" * 100_000)
    fields = json.loads(encode_error("app_error", message_of(error), error))
    assert len(fields["message"]) == MAX_MESSAGE_CHARS
    assert fields["message"].endswith("x…")
    assert len(fields["traceback"]) == MAX_TRACEBACK_CHARS
    assert fields["traceback"].startswith("…x")


def test_an_error_never_holds_what_postgresql_refuses() -> None:
    text = encode_error("app_error", "a\0b\ud800c", ValueError("\0")).decode()
    assert "\\u0000" not in text
    assert json.loads(text)["message"] == "a\ufffdb?c"


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def test_an_error_whose_text_fails_is_still_an_error() -> None:
    fields = json.loads(encode_error("app_error", message_of(Wordless()), Wordless()))
    assert fields["message"] == "(Wordless whose text failed with RuntimeError)"
    assert "Wordless" in fields["traceback"]


class Quitter(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_error_whose_text_exits_is_still_an_error() -> None:
    fields = json.loads(encode_error("app_error", message_of(Quitter()), Quitter()))
    assert "SystemExit" in fields["message"]
