"""Values as people type them: what the database could not hold is refused with the option's name, before it is asked."""

import pytest

from reproq_supervisor.cli.values import short_name
from tests.support.program import run_program

# Nobody listens there: whoever gets so far has taken the value.
NOBODY = "postgresql://127.0.0.1:1/x"
TAKEN = 69


def enqueue(*arguments: str) -> tuple[int, str]:
    done = run_program("enqueue", "a.b", "--dsn", NOBODY, *arguments)
    return done.code, done.err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--delay", "36501d", "expected at most 36500d"),
        ("--delay", "99999999999999999999d", "expected at most 36500d"),
        ("--args", r'["a\u0000b"]', "without NUL"),
        ("--args", r'[[{"a": ["\ud800"]}]]', "without halves of characters"),
        ("--args", "[1e400]", "1e400 is too large for a number"),
        ("--kwargs", r'{"a\u0000": 1}', "without NUL"),
        ("--queue", "", "expected a name of 1 to 200 characters"),
        ("--queue", "q" * 201, "expected a name of 1 to 200 characters"),
        ("--queue", "a\nb", "without control characters"),
        ("--queue", "\udcff", "expected text in UTF-8"),
        ("--lock-key", "\udcff", "expected text in UTF-8"),
        ("--concurrency-key", "\udcff", "expected text in UTF-8"),
    ],
)
def test_what_cannot_be_stored_is_a_usage_error_that_names_its_option(option: str, value: str, expected: str) -> None:
    code, error = enqueue(option, value)
    assert code == 2
    assert option in error
    assert expected in error


@pytest.mark.parametrize(
    ("option", "value"),
    [("--delay", "36500d"), ("--args", r'["\\u0000 \ud83d\ude00", 1e300]'), ("--queue", "q" * 200), ("--lock-key", "käse")],
)
def test_what_can_be_stored_is_taken(option: str, value: str) -> None:
    assert enqueue(option, value)[0] == TAKEN


def test_a_long_name_loses_its_middle() -> None:
    assert short_name("x" * 40) == "x" * 40
    assert short_name("a" * 30 + "b" * 30) == "a" * 20 + "…" + "b" * 19
