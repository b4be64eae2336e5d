"""What a client takes as arguments comes back equal; what it refuses, it refuses by name."""

import decimal
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.client.arguments import ArgumentsError, check_json, check_run
from reproq_supervisor.core.new_run import NewRun

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20)
NO_JSON = st.sampled_from(
    [math.nan, math.inf, -math.inf, "a\0", "\ud800", b"", {1}, {1: 2}, {None: 1}, decimal.Decimal(1), object(), 10**5000, {"a\0": 1}, len]
)


@given(JSON)
def test_what_is_taken_comes_back_equal(value: Any) -> None:
    check_json(value, "x")
    run = NewRun("app.task", args=[value], kwargs={"value": value})
    check_run(run)
    assert json.loads(run.spec())["args"] == [value]


@given(JSON, NO_JSON, st.lists(st.integers(0, 3) | st.sampled_from(["a", "b c"]), max_size=5))
def test_what_is_no_json_is_refused_with_its_path(beside: Any, wrong: Any, path: list[int | str]) -> None:
    value = wrong
    for step in reversed(path):
        value = {"other": beside, step: value} if isinstance(step, str) else [*[beside] * step, value]
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    with pytest.raises(ArgumentsError) as caught:
        check_json(value, "args[0]")
    assert str(caught.value).startswith(f"args[0]{shown}: expected ")


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(ArgumentsError, match="contains itself"):
        check_json(loop, "x")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"queue_name": ""}, "queue_name: expected the name"),
        ({"queue_name": ["a"]}, "queue_name: expected text, got list"),
        ({"kwargs": {1: 2}}, "kwargs: expected names of type str, got 1"),
        ({"args": [{"a": "b\0"}]}, r"args\[0\].a: expected text"),
        ({"queue_name": "a\0"}, "queue_name: expected text"),
        ({"priority": 2**31}, "priority: expected a whole number"),
        ({"priority": True}, "priority: expected a whole number"),
        ({"max_attempts": 0}, "max_attempts: expected a whole number from 1"),
        ({"timeout_seconds": 0.5}, "timeout_seconds: expected a whole number"),
        ({"concurrency_key": "k"}, "concurrency_limit: expected how many"),
        ({"lock_key": 7}, "lock_key: expected text, got int"),
        ({"delay_s": math.nan}, "delay_s: expected seconds"),
        ({"delay_s": True}, "delay_s: expected seconds"),
        ({"args": "ab"}, "args: expected a list or a tuple, got 'ab'"),
        ({"args": {"a": 1}}, "args: expected a list or a tuple"),
        ({"args": 7}, "args: expected a list or a tuple"),
        ({"kwargs": None}, "kwargs: expected a dict"),
        ({"backend_alias": None}, "backend_alias: expected text"),
        ({"code_ref": "a\0"}, "code_ref: expected text"),
        ({"expires_in_s": 1e12}, "expires_in_s: expected seconds"),
    ],
)
def test_numbers_and_names_are_held_to_their_columns(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentsError, match=f"app.task: {words}"):
        check_run(NewRun("app.task", **parts))


@pytest.mark.parametrize("path", ["", "task", "app:task", "app..task", "app.1", "app.task ", "app.<locals>.task"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ArgumentsError, match="task_path: expected the dotted name"):
        check_run(NewRun(path))
