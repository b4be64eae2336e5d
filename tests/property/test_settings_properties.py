"""Properties of the configuration over many inputs."""

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reproq_supervisor.settings.changes import classify, fingerprint
from reproq_supervisor.settings.interpolation import escape, interpolate
from reproq_supervisor.settings.load import answer, load
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.present import as_yaml
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.settings.schema import keys_at, leaf_paths
from reproq_supervisor.settings.units import (
    format_duration,
    format_fraction,
    format_size,
    parse_duration,
    parse_fraction,
    parse_size,
)

ALL_KEYS = sorted({part for path in leaf_paths() for part in path} - {"*"})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10_000),
    st.floats(allow_nan=False),
    st.sampled_from(["30s", "512MiB", "10%", "embedded", "process", "${A}", "${A:-1}", "${", "postgresql://u:p@h/x", "a, b", "*", ""]),
    st.text(max_size=8),
)
# Trees with real keys in possible and impossible places.
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ALL_KEYS) | st.text(max_size=5), inner, max_size=4)
)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=1, max_size=20)


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid entry of `pools`."""
    largest = draw(st.integers(1, 50))
    lease = draw(st.floats(10, 1e5))
    return {
        "queues": draw(st.dictionaries(NAMES, st.integers(1, 1000), min_size=1, max_size=4)),
        "shards": draw(st.integers(1, min(largest, 64))),
        "executors": {"min": draw(st.integers(1, largest)), "max": largest},
        "timeout": draw(st.floats(0.1, 1e6)),
        "lease": lease,
        "grace": draw(st.floats(0, lease / 2)),
        "heartbeat": draw(st.floats(0.1, lease / 10)),
        "recycle": {"rss": draw(st.integers(0, 2**45)), "jitter": draw(st.floats(0, 1)), "age": draw(st.floats(0, 1e7))},
        "env": draw(st.dictionaries(st.from_regex(r"[A-JL-NP-Z_]{1,9}", fullmatch=True), NAMES, max_size=3)),
    }


SETTINGS = st.builds(
    lambda pools, timeout, level: {"pools": pools, "shutdown_timeout": timeout, "logs": {"level": level}},
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True), pools(), min_size=1, max_size=3),
    st.floats(1, 1e6),
    st.sampled_from(["debug", "info"]),
)


# A busy machine is slow at files; the time limit of the whole test stays.
unhurried = settings(deadline=None)


def answer_to(text: str) -> dict[str, Any]:
    """Return what the loader answers to a file with *text*; a problem is an answer, an exception fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        reply = answer({"type": "start", "config_path": str(path), "environ": {"A": "7"}, "runtime": {}})
    assert json.loads(json.dumps(reply)) == reply
    return reply


def load_data(data: dict[str, Any]) -> Settings:
    """Return the settings of a file that holds *data*."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_text(yaml.safe_dump(escape(data), allow_unicode=True), encoding="utf-8")
        return load(str(path), environ={}).settings


@unhurried
@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"%@,# \n\t?$<", max_size=60))
def test_any_text_is_settings_or_problems_with_places_in_the_text(text: str) -> None:
    reply = answer_to(text)
    for problem in reply.get("problems", []):
        assert problem["message"]
        assert problem["line"] is None or 1 <= problem["line"] <= len(text) + 1
        assert problem["column"] is None or 1 <= problem["column"] <= len(text.encode("utf-8", "surrogatepass")) + 1


@unhurried
@given(st.dictionaries(st.sampled_from(sorted(keys_at(()))) | st.text(max_size=5), TREES, max_size=6))
@example({"[key]": None, "pools": {"[key]": {"[key]": 1}}})
def test_any_tree_of_values_is_settings_or_problems(tree: dict[str, Any]) -> None:
    reply = answer_to(yaml.safe_dump(tree, allow_unicode=True))
    assert ("settings" in reply) != ("problems" in reply)
    assert all(problem["message"] for problem in reply.get("problems", []))


@unhurried
@given(SETTINGS)
@example({"pools": {"a": {"queues": {"${": 1, "$${A}": 2}, "env": {"A": "${A}"}}}})
def test_what_is_shown_is_a_file_that_says_the_same(data: dict[str, Any]) -> None:
    shown = load_data(data)
    with TemporaryDirectory() as folder:
        path = Path(folder, "again.yaml")
        path.write_text(as_yaml(shown), encoding="utf-8")
        assert load(str(path), environ={}).settings == shown


@unhurried
@given(SETTINGS, SETTINGS)
def test_configurations_share_a_fingerprint_exactly_when_nothing_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    old, new = (resolve(load_data(data), {}) for data in (one, other))
    assert classify(old, copy.deepcopy(old)) == []
    assert (fingerprint(old) == fingerprint(new)) == (classify(old, new) == [])
    there, back = classify(old, new), classify(new, old)
    assert {(change.key, change.how) for change in there} == {(change.key, change.how) for change in back}


@given(st.floats(0, 3650 * 86400.0))
def test_durations_read_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**60))
def test_sizes_read_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.floats(0, 1))
def test_fractions_read_back_exactly(fraction: float) -> None:
    assert parse_fraction(format_fraction(fraction)) == fraction


@given(st.text())
def test_an_escaped_text_stands_for_itself(text: str) -> None:
    assert interpolate(escape(text), {}).text == text


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=4).filter(lambda text: "***" not in text))
def test_no_password_gets_through_the_mask(password: str) -> None:
    shown = mask_text(f"postgresql://me:{password}@host/x")
    assert shown.startswith("postgresql://me:***@")
    assert mask_text(shown) == shown
