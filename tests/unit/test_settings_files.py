"""The files beside the code: the JSON Schema, the reference, the demo's and the starter's configuration."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reproq_supervisor.settings.changes import CLASSES
from reproq_supervisor.settings.document import Document, parse_document
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.settings.schema import SCHEMA_PATH, build_schema, keys_at, leaf_paths
from reproq_supervisor.settings.starter import starter_text

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "config" / "supervisor.yaml"
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


def accepts(data: Any) -> bool:
    """Answer whether the shipped schema accepts *data*."""
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text())).is_valid(data)


def test_the_shipped_schema_is_the_one_of_the_models() -> None:
    again = "python -m reproq_supervisor.settings.schema writes it"
    assert json.loads(SCHEMA_PATH.read_text(encoding="utf-8")) == build_schema(), again


def test_the_shipped_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_PATH.read_text()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_of_the_project_is_valid(path: Path) -> None:
    load(str(path), environ={})
    assert accepts(yaml.safe_load(path.read_text()))


def test_the_reference_says_the_defaults() -> None:
    example = {"schedules": {"nightly": {"cron": "30 2 * * *", "task": "myapp.tasks.report"}}}
    defaults = resolve(load(None, overrides=example, environ={}).settings, {})
    assert resolve(load(str(REFERENCE), environ={}).settings, {}) == defaults


def test_the_reference_names_every_key() -> None:
    document = parse_document(REFERENCE.read_text(), {})
    missing = [path for path in leaf_paths() if path[-1] != "*" and not _names(document, path)]
    assert missing == []


def test_the_reference_says_how_each_key_changes() -> None:
    """The word in brackets on a key's line, or on the comment above the section that the key is in."""
    lines = REFERENCE.read_text().splitlines()
    document = parse_document(REFERENCE.read_text(), {})
    for pattern, how in CLASSES.items():
        # What people name themselves is told at the mapping that holds it.
        named = "nightly" if pattern.startswith("schedules.") else "default"
        path = tuple(named if part == "*" else part for part in pattern.removesuffix(".*").split("."))
        if pattern == "pools.*":
            continue
        words = [word for length in range(len(path), 0, -1) for word in [_word_at(document, path[:length], lines)] if word]
        assert words, pattern
        assert words[0] == how, pattern


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"pools": {"a": {"queues": ["x"], "executors": 3}}},
        {"pools": {"a": {"queues": {"x": 2}, "executors": "${N:-4}", "timeout": 5, "recycle": {"rss": "1.5 GB"}}}},
        {"pools": {"a": {"shards": "${SHARDS}", "mode": "${MODE}"}}, "store": {"listen": "${LISTEN:-true}"}},
        {"shutdown_timeout": "1h 30m", "logs_dir": None, "web": {"allow_cidrs": "${NETS}"}},
    ],
)
def test_the_schema_accepts_what_people_write(data: Any) -> None:
    assert accepts(data)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"webb": {}},
        {"pools": {}},
        {"pools": {"a": {"excutors": 3}}},
        {"pools": {"a": {"executors": 0}}},
        {"pools": {"a": {"mode": "fast"}}},
        {"pools": {"a": {"recycle": {"rss": "3 apples"}}}},
        {"shutdown_timeout": -1},
        {"store": {"listen": "maybe"}},
    ],
)
def test_the_schema_refuses_mistakes(data: Any) -> None:
    assert not accepts(data)


def test_every_key_is_described_in_the_schema() -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    groups = {"": schema, **schema["$defs"]}
    missing = [
        f"{name}.{key}"
        for name, group in groups.items()
        for key, value in group.get("properties", {}).items()
        if not (value.get("description") or groups[value["$ref"].rsplit("/", 1)[-1]].get("description"))
    ]
    assert missing == []


def test_the_keys_of_a_mapping_are_known_by_its_path() -> None:
    assert keys_at(("pools", "any", "executors")) == {"min", "max"}
    assert keys_at(("pools",)) == frozenset()
    assert "priority_aging" in keys_at(("queues", "any"))
    assert keys_at(("nothing", "here")) == frozenset()


def test_the_starter_is_valid_for_any_module(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(starter_text("shop.orders"))
    settings = load(str(tmp_path / "c.yaml"), environ={}).settings
    assert settings.app.preload == ["shop.orders"]
    assert settings.app.allowed_task_modules == ["shop.orders."]


def _names(document: Document, pattern: tuple[str, ...]) -> bool:
    return any(
        len(path) == len(pattern) and all(want in ("*", part) for part, want in zip(path, pattern, strict=True)) for path in document.values
    )


def _word_at(document: Document, path: tuple[str, ...], lines: list[str]) -> str | None:
    """Return the bracketed word on the line of the key at *path*, or in the comment block above a top key."""
    place = document.keys.get(path)
    if place is None:
        return None
    near = [lines[place.line - 1]]
    for line in reversed(lines[: place.line - 1] if len(path) == 1 else []):
        if not line.startswith("#"):
            break
        near.append(line)
    words = [word for word in ("live", "rolling", "restart") for line in near if f"# [{word}]" in line]
    return words[0] if words else None
