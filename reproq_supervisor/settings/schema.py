"""The JSON Schema of the configuration file, for editors and for questions about which keys there are.

`python -m reproq_supervisor.settings.schema` writes `schema.json` beside this module; a test proves that it is up to date.
"""

import json
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from reproq_supervisor.settings.document import Path
from reproq_supervisor.settings.model import Settings

SCHEMA_PATH = FilePath(__file__).with_name("schema.json")

_REFERENCE = {"type": "string", "pattern": r"\$\{"}


@cache
def build_schema() -> dict[str, Any]:
    """Return the schema: as generated from the models, with `${VAR}` allowed wherever a value is."""
    schema = Settings.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_allow_references(schema)}


def keys_at(path: Path) -> frozenset[str]:
    """Return the keys that the mapping at *path* may have; none when it names its own, or is no mapping."""
    node = build_schema()
    for part in path:
        node = _mapping_form(node)
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return frozenset(_mapping_form(node).get("properties", ()))


def leaf_paths() -> frozenset[tuple[str, ...]]:
    """Return the path of every single setting, with "*" for names that people choose."""
    return frozenset(_leaves(build_schema(), ()))


def _leaves(node: dict[str, Any], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    node = _mapping_form(node)
    inner = dict(node.get("properties", {}))
    if isinstance(node.get("additionalProperties"), dict):
        inner["*"] = node["additionalProperties"]
    return [leaf for key, child in inner.items() for leaf in _leaves(child, (*path, key))] or [path]


def _mapping_form(node: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and choose the mapping among several forms of a value."""
    if "$ref" in node:
        return _mapping_form(build_schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    forms = [_mapping_form(form) for form in node.get("anyOf", ())]
    return next((form for form in forms if form.get("type") == "object"), node)


def _allow_references(node: Any) -> Any:
    match node:
        case {"type": "integer" | "number" | "boolean" | "array"} | {"enum": _} | {"pattern": _}:
            inner = {key: _allow_references(value) for key, value in node.items()}
            kept = {key: inner.pop(key) for key in ("default", "description", "title", "examples") if key in inner}
            return {"anyOf": [inner, _REFERENCE], **kept}
        case dict():
            return {key: value if key in ("default", "examples") else _allow_references(value) for key, value in node.items()}
        case list():
            return [_allow_references(item) for item in node]
        case _:
            return node


def main() -> None:
    """Write the schema beside this module."""
    SCHEMA_PATH.write_text(json.dumps(build_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
