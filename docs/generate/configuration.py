"""The reference of the configuration, from the settings' own models: keys, types, defaults, what a reload does, and their docstrings."""

from collections.abc import Iterator
from typing import Any

import yaml

from reproq_supervisor.settings.changes import CLASSES, ChangeClass
from reproq_supervisor.settings.checks import advise
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.present import as_data

_NAMED = {
    "pools": "default",
    "queues": "default",
    "schedules": "nightly",
}  # mappings whose keys people choose, with one that the defaults have
_HEAD = """\
# Configuration

One YAML file. It needs only what differs from the defaults; `reproq-supervisor check` says everything that is wrong with it at once, with
line and suggestion, and `reproq-supervisor config show --origin` says where each value comes from. This page is made from the models that
read the file.

* **Durations**: `500ms`, `30s`, `1h30m`, `7d`; a bare number is seconds. **Sizes**: `512MiB`, `1GB`; a bare number is bytes.
  **Percentages**: `10%` or `0.1`.
* **Variables**: `${NAME}` in a value is an environment variable, `${NAME:-default}` has a default for unset and empty ones, `$${` is a
  literal `${`. A list may also be one text with commas, so that a variable can hold it.
* **Order of strength**: defaults, then the file, then flags such as `--dsn`. `DATABASE_URL` stands above the file's `database`.

What a [reload](operations.md#reload) does with a changed key:

| | |
|---|---|
| live | running processes are told |
| rolling | new processes are started beside the old ones, proved healthy, and take their place |
| restart | named, and left to the next start of the daemon |
"""


def configuration_page() -> str:
    """Return the page: one table a group of keys."""
    schema = Settings.model_json_schema()
    defaults = as_data(
        Settings.model_validate(
            {"queues": {"default": {}}, "schedules": {"nightly": {"cron": "30 2 * * *", "task": "myapp.tasks.report"}}}
        ),
        human=True,
    )
    idle = _without_effect()
    parts = [_HEAD]
    for path, node in _groups(schema, schema, ()):
        name = ".".join(path)
        parts.append(f"## {name}\n" if path else "## Top level\n")
        if path:
            parts.append(f"{node['description']}\n")
        parts.append("| key | type | default | reload | |\n|---|---|---|---|---|")
        for key, inner in node["properties"].items():
            resolved = _resolve(schema, inner)
            if not _is_group(schema, inner):
                parts.append(_row((*path, key), inner, resolved, defaults, idle))
        parts.append("")
    return "\n".join(parts)


def documented_keys() -> set[str]:
    """Return every key that the page has a row for."""
    schema = Settings.model_json_schema()
    return {
        ".".join((*path, key))
        for path, node in _groups(schema, schema, ())
        for key, inner in node["properties"].items()
        if not _is_group(schema, inner)
    }


def _groups(schema: dict[str, Any], node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the root and every mapping with keys of ours below it, with its path ("*" for names that people choose)."""
    yield path, node
    for key, inner in node["properties"].items():
        if _is_group(schema, inner):
            child = _resolve(schema, inner)
            named = child.get("additionalProperties")
            inside = _resolve(schema, named) if named else child
            text = inner.get("description") or inside["description"]
            yield from _groups(schema, {**inside, "description": text}, (*path, key, "*") if named else (*path, key))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node
    assert isinstance(found, dict)
    return found


def _is_group(schema: dict[str, Any], node: dict[str, Any]) -> bool:
    found = _resolve(schema, node)
    named = found.get("additionalProperties")
    return "properties" in (_resolve(schema, named) if isinstance(named, dict) else found)


def _row(path: tuple[str, ...], node: dict[str, Any], resolved: dict[str, Any], defaults: dict[str, Any], idle: set[str]) -> str:
    key = ".".join(path)
    text = node.get("description") or resolved.get("description", "")
    if any(key == each or key.startswith(f"{each}.") for each in idle):
        text += " *No effect yet.*"
    cells = (f"`{path[-1]}`", _type(resolved), f"`{_as_yaml(_default(path, defaults))}`", _class_of(key), text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(node: dict[str, Any]) -> str:
    """Say in words what the value may be."""
    match node:
        case {"enum": words}:
            return ", ".join(f"`{word}`" for word in words)
        case {"anyOf": [{"properties": {"min": _, "max": _}}, *_]}:
            return "number, or `{min, max}`"
        case {"anyOf": [{"properties": names}, form]}:
            return f"{_type(form)}, or `{{{', '.join(names)}}}`"
        case {"examples": ["30s"]}:
            return "duration"
        case {"examples": ["10%"]}:
            return "percentage"
        case {"examples": ["512MiB"]}:
            return "size"
        case {"examples": [example]}:
            return f"such as `{_as_yaml(example)}`"
        case {"anyOf": forms}:
            return " or ".join(dict.fromkeys(_type(form) for form in forms))
        case {"type": "integer"}:
            return "number" + _bounds(node)
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array"}:
            return "list"
        case {"type": "object", "additionalProperties": inner}:
            return f"`{{name: {'number' if inner['type'] == 'integer' else 'text'}}}`"
        case {"type": "null"}:
            return "`null`"
        case _:
            return "text"


def _bounds(node: dict[str, Any]) -> str:
    low, high = node.get("minimum", node.get("ge")), node.get("maximum", node.get("le"))
    if low is None:
        return ""
    return f", {low} or more" if high is None else f", {low} to {high}"


def _default(path: tuple[str, ...], defaults: dict[str, Any]) -> object:
    value: Any = defaults
    for depth, part in enumerate(path):
        value = value[_NAMED[path[depth - 1]] if part == "*" else part]
    return value


def _as_yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _class_of(key: str) -> str:
    """Return what a reload does with *key*: of its parts, where it has some."""
    found = {CLASSES[each] for each in CLASSES if each == key or each.startswith(f"{key}.")}
    assert found, f"{key}: expected a class in settings/changes.py"
    return ", ".join(each for each in ChangeClass if each in found)


def _without_effect() -> set[str]:
    """Return the keys of what this version accepts and does not do yet, as the program's own advice has them."""
    asked_for = Settings.model_validate(
        {
            "pools": {"default": {"drain_target": "1s", "recycle": {"tasks": 1, "rss": "1GiB", "age": "1h"}}},
            "keeper": {"beat": True, "retention": "30d"},
            "web": {"listen": "127.0.0.1:9090"},
        }
    )
    return {key.replace("pools.default", "pools.*") for key, text in advise(asked_for) if "no effect yet" in text}
