"""The Django package stands on the product, never the other way round, and keeps the same style."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import PACKAGE, ROOT, Module, room_of
from tests.architecture.test_places import MAX_LINES, NAMELESS

FOLDER = "reproq_django"
# What every part of it may use; whoever needs more says what.
ROOMS = {"client", "core", "store"}
MORE: dict[str, set[str]] = {
    "admin": {"settings"},
    "context": {"executor"},
    "execution": {"executor"},
    "executor": {"executor"},
    "management": {"cli", "settings"},
    "operating": {"", "cli", "settings"},
    # What a line of cron means.
    "recurring": {"settings"},
    "syncing": {"settings"},
}


def _modules() -> Iterator[Module]:
    for path in sorted((ROOT / FOLDER).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


def _part_of(path: Path) -> str:
    return path.relative_to(ROOT / FOLDER).parts[0].removesuffix(".py")


def test_it_uses_the_rooms_that_are_for_applications() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.name}"
        for module in _modules()
        for found in module.imports()
        if found.top == PACKAGE and room_of(found.name) not in ROOMS | MORE.get(_part_of(module.path), set())
    ]
    assert not wrong


def test_the_product_does_not_know_it() -> None:
    found = [path for path in (ROOT / PACKAGE).rglob("*.py") if any(name.startswith((FOLDER, "django")) for name in _imported(path))]
    assert not found


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_a_file_of_it_is_one_noun_or_one_decision() -> None:
    for module in _modules():
        assert module.text.count("\n") <= MAX_LINES or "migrations" in module.path.parts, module.at(1)
        assert not NAMELESS & {module.path.stem, module.path.parent.name}, module.at(1)
        first = (ast.get_docstring(module.tree) or "").partition("\n")[0].rstrip()
        assert first.endswith((".", ":", "?", "`.")), f"{module.at(1)}: expected a docstring that begins with a sentence"
