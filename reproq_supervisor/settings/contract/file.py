"""reproq.yaml or reproq.toml: found where the older worker finds it, read as texts by dotted key."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reproq_supervisor.settings.contract.words import WORDS
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.source import read_source

USUAL_FILES = ("reproq.yaml", "reproq.yml", "reproq.toml", ".reproq.yaml", ".reproq.yml", ".reproq.toml")
_SECTIONS = ("worker", "metrics", "beat")
_BEATS_KEYS = frozenset({"beat.dsn", "beat.interval"})
_KNOWN = frozenset(key for word in WORDS for key in word.keys) | _BEATS_KEYS
_NULLS = ("", "~", "null")


class ContractError(ConfigError):
    """The older worker's settings cannot be used; it ends with 1 for that."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class WorkerFile:
    """What a file says: a text by dotted key, empty ones left out. *unknown* keys mean nothing to a worker."""

    path: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def find_file(named: str | None) -> str | None:
    """Return the named file, else the first usual one of the working directory, else None."""
    return named or next((name for name in USUAL_FILES if Path(name).is_file()), None)


def read_file(path: str | None) -> WorkerFile:
    """Return what the file says; nothing without one.

    Raises:
      ContractError: it cannot be read, is of another format, or a value has the wrong shape.
    """
    if path is None:
        return WorkerFile()
    texts, problems = {}, []
    for key, value in _flatten(path, _parse(path)):
        if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
            value = ",".join(map(str, value))
        if isinstance(value, dict | list):
            problems.append(Problem(key, "expected a text, a number or a list of texts"))
        elif (text := _as_text(value)) not in _NULLS:
            texts[key] = text
    if problems:
        raise ContractError(path, tuple(problems))
    return WorkerFile(path, {key: text for key, text in texts.items() if key in _KNOWN}, tuple(key for key in texts if key not in _KNOWN))


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value).strip()


def _flatten(path: str, data: object) -> list[tuple[str, Any]]:
    if data is None or data == "":
        return []
    if not isinstance(data, dict):
        raise ContractError(path, (Problem("", "expected a mapping of settings"),))
    found: list[tuple[str, Any]] = []
    for name, value in data.items():
        if name in _SECTIONS and isinstance(value, dict):
            found += [(f"{name}.{inner}", each) for inner, each in value.items()]
        elif name not in _SECTIONS:
            found.append((str(name), "" if isinstance(value, dict | list) else value))
        elif value not in _NULLS and value is not None:
            raise ContractError(path, (Problem(name, "expected a mapping"),))
    return found


def _parse(path: str) -> object:
    try:
        source = read_source(path)
    except ConfigError as error:
        raise ContractError(path, error.problems) from error
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".yaml", ".yml"):
            return yaml.load(source, yaml.BaseLoader)  # noqa: S506 - it makes nothing but texts, lists and mappings
        if suffix == ".toml":
            return tomllib.loads(source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise ContractError(path, (Problem("", f"expected YAML: {error.problem}", *place),)) from error
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContractError(path, (Problem("", f"expected {suffix[1:].upper()}: {error}"),)) from error
    raise ContractError(path, (Problem("", f"expected a file .yaml, .yml or .toml, got {suffix or 'no suffix'}"),))
