"""Every SQL statement has a name, says what it means, and is used; and what is used exists."""

import ast
import re

from tests.architecture.source import PACKAGE, ROOT, Module, modules

FOLDER = ROOT / PACKAGE / "store" / "sql"
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def statements() -> dict[tuple[str, str], str]:
    """Return the text of every statement by (file, name)."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(FOLDER.glob("*.sql")):
        names_and_texts = _NAME.split(path.read_text())[1:]
        found |= {(path.stem, name): text for name, text in zip(names_and_texts[::2], names_and_texts[1::2], strict=True)}
    return found


def strings_of(module: Module) -> set[str]:
    return {node.value for node in ast.walk(module.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_statement_is_used() -> None:
    texts = [strings_of(module) for module in modules() if module.room == "store"]
    unused = {key for key in statements() if not any(set(key) <= strings for strings in texts)}
    assert unused == set()


def test_every_statement_says_what_it_means() -> None:
    silent = {key for key, text in statements().items() if not text.lstrip().startswith("-- ")}
    assert silent == set()


def test_every_statement_that_is_asked_for_exists() -> None:
    asked = {
        (table.value, name.value)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Call) and isinstance(name := node.slice, ast.Constant)
        if isinstance(node.value.func, ast.Name) and node.value.func.id == "load" and isinstance(table := node.value.args[0], ast.Constant)
    }
    assert asked
    assert asked - set(statements()) == set()
