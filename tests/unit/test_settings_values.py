"""The small languages inside values: durations, sizes, percentages, references, and what is secret."""

import pytest

from reproq_supervisor.settings.interpolation import InterpolationError, interpolate
from reproq_supervisor.settings.masking import is_secret, mask, mask_text
from reproq_supervisor.settings.units import (
    format_duration,
    format_fraction,
    format_size,
    parse_duration,
    parse_fraction,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("1.5h", 5400.0),
        ("30d", 2592000.0),
        ("1w", 604800.0),
        ("0", 0.0),
        (" 15 ", 15.0),
        (15, 15.0),
        (0.25, 0.25),
    ],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 fortnight", "1h-30m", "1e3", "nan", "٣s", True, None, -1, float("nan"), float("inf"), []]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.25, "250ms"), (1.5, "1.5s"), (90, "1m30s"), (900.0, "15m"), (86400, "1d"), (90061, "1d1h1m1s"), (0.0015, "1.5ms")],
)
def test_durations_are_written_as_people_would(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 2**29), ("1MB", 10**6), ("1.5GiB", 3 * 2**29), ("10kb", 10_000), ("7 B", 7), ("42", 42), (42, 42), ("0", 0)],
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", -1, "1.5", 1.5, "1XB", "3 apples", True, None, "²"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (2**29, "512MiB"), (10**6, "1MB"), (1000, "1KB"), (1023, "1023"), (2**40, "1TiB")])
def test_sizes_are_written_as_people_would(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "fraction"), [("10%", 0.1), ("12.5 %", 0.125), (0.1, 0.1), ("0.1", 0.1), (0, 0.0), (1, 1.0), ("100%", 1.0)]
)
def test_percentages_are_read(text: object, fraction: float) -> None:
    assert parse_fraction(text) == fraction


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", 1.01, -0.1, 10, True, None, float("nan")])
def test_what_is_no_percentage_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a fraction"):
        parse_fraction(text)


def test_percentages_are_written_as_people_would() -> None:
    assert [format_fraction(value) for value in (0.0, 0.1, 0.125, 1.0)] == ["0%", "10%", "12.5%", "100%"]


@pytest.mark.parametrize(
    ("text", "filled", "variables"),
    [
        ("plain $HOME $", "plain $HOME $", ()),
        ("${A}", "1", ("A",)),
        ("${A}/${B}/${A}", "1/two/1", ("A", "B")),
        ("${NOPE:-x y}", "x y", ()),
        ("${EMPTY:-x}", "x", ()),
        ("${EMPTY}", "", ("EMPTY",)),
        ("${NOPE:-}", "", ()),
        ("$${A}", "${A}", ()),
        ("$$${A}", "$${A}", ()),
        ("${LIKE}", "${A}", ("LIKE",)),
    ],
)
def test_references_are_filled_in(text: str, filled: str, variables: tuple[str, ...]) -> None:
    result = interpolate(text, {"A": "1", "B": "two", "EMPTY": "", "LIKE": "${A}"})
    assert (result.text, result.variables) == (filled, variables)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NOPE}", "expected the environment variable NOPE to be set"),
        ("${", "got ${"),
        ("${A", "got ${"),
        ("${}", "got ${}"),
        ("${1A}", "got ${1A}"),
        ("${A-x}", "got ${A-x}"),
        ("${A:-${B}}", "got ${"),
        ("${BYTES}", "expected UTF-8 in the environment variable BYTES"),
    ],
)
def test_references_that_cannot_be_filled_in_are_named(text: str, message: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, {"A": "1", "B": "2", "BYTES": "\udcff"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host:5432/x", "postgresql://me:***@host:5432/x"),
        ("postgresql://me:hun@ter/2@host/x", "postgresql://me:***@host/x"),
        ("postgresql://:hunter2@host/x", "postgresql://:***@host/x"),
        ("postgresql://me@host/x", "postgresql://me@host/x"),
        ("postgresql://host/x?password=hunter2&sslmode=require", "postgresql://host/x?password=***&sslmode=require"),
        ("host=h password='hun \\' ter2' dbname=x", "host=h password=*** dbname=x"),
        ("host=h sslpassword = hunter2", "host=h sslpassword = ***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_of_connection_strings_are_masked(text: str, shown: str) -> None:
    assert mask_text(text) == shown
    assert mask_text(shown) == shown


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("web.auth_token", True),
        ("pools.a.env.AWS_SECRET_ACCESS_KEY", True),
        ("pools.a.env.APIKEY", True),
        ("pools.a.env.DB_PASSWORD", True),
        ("pools.token.nice", False),
        ("logs_dir", False),
        ("pools.a.env.KEYBOARD", False),
    ],
)
def test_a_name_says_whether_a_value_is_secret(path: str, secret: bool) -> None:
    assert is_secret(path) is secret


def test_masking_goes_through_mappings_and_lists_and_leaves_the_rest() -> None:
    value = {"env": {"TOKEN": "hunter2", "A": "b", "PASSWORD": ""}, "list": ["postgresql://u:hunter2@h"], "n": 1, "none": None}
    assert mask("", value) == {
        "env": {"TOKEN": "***", "A": "b", "PASSWORD": ""},
        "list": ["postgresql://u:***@h"],
        "n": 1,
        "none": None,
    }
