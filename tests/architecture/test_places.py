"""Sizes, names and words: the parts of the house style that a machine can hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.architecture.source import PACKAGE, ROOT, every_node, modules

MAX_LINES = 300
MAX_FUNCTION_LINES = 60
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
# Only here does code say SQL.
STORE = "store"
_SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|CREATE\s+(TABLE|DATABASE|INDEX)|ALTER\s+TABLE)\s", re.DOTALL
)
# Written so that it does not find itself.
_MARKS = re.compile(r"\b(TO[D]O|FIX[M]E|X{3}|HAC[K])\b")
# Beside the product's own: what else runs outside the tests.
_PROGRAMS = ("reproq_django", "workers", "benchmarks", ".ci")
_EVERYTHING = {"Exception", "BaseException"}


def test_a_file_is_one_noun_or_one_decision() -> None:
    long = {module.at(1): lines for module in modules() if (lines := module.text.count("\n")) > MAX_LINES}
    assert not long, f"past {MAX_LINES} lines: which two things is it?"


def test_a_function_fits_on_a_screen() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno}": lines
        for path, node in _every_node_that_runs()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long, f"past {MAX_FUNCTION_LINES} lines: what is a step of it called?"


def test_a_name_says_something() -> None:
    assert not [module.at(1) for module in modules() if NAMELESS & {module.path.stem, module.path.parent.name}]


def test_a_file_begins_with_what_it_is_for() -> None:
    wrong = [
        module.at(1)
        for module in modules()
        if not (ast.get_docstring(module.tree) or "").partition("\n")[0].rstrip().endswith((".", ":", "?"))
    ]
    assert not wrong, "expected a docstring that begins with a sentence"


def test_only_the_store_speaks_sql() -> None:
    wrong = [
        module.at(node.lineno)
        for module, node in every_node()
        if module.room != STORE and isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.search(node.value)
    ]
    assert not wrong


def test_sql_is_never_formatted() -> None:
    wrong = [
        module.at(node.lineno)
        for module, node in every_node()
        if isinstance(node, ast.JoinedStr)
        and _SQL.search("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
    ]
    assert not wrong, "use parameters, or psycopg.sql for names"


def test_a_catch_all_stands_at_a_marked_boundary() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in _every_node_that_runs()
        if _catches_all(node) and not _is_marked(path.read_text().splitlines(), node.lineno)
    ]
    assert not wrong, "say `# boundary:` and why, or name the errors; what only tidies up needs `finally` or an ExitStack"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("try: f()\nexcept: pass", True),
        ("try: f()\nexcept Exception: pass", True),
        ("try: f()\nexcept (OSError, BaseException) as error: raise", True),
        ("try: f()\nexcept builtins.Exception: pass", True),
        ("with contextlib.suppress(Exception): f()", True),
        ("with suppress(OSError, BaseException): f()", True),
        ("try: f()\nexcept (OSError, ValueError): pass", False),
        ("with suppress(OSError): f()", False),
        ("raise Exception(1)", False),
    ],
)
def test_a_catch_all_is_seen_however_it_is_written(source: str, *, found: bool) -> None:
    assert any(_catches_all(node) for node in ast.walk(ast.parse(source))) is found


def test_a_test_that_sleeps_says_why() -> None:
    """Simulated work needs no more than that; whoever waits for something waits for it (`tests.support.eventually`)."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if _sleeps(node) and "  # " not in path.read_text().splitlines()[node.lineno - 1]
    ]
    assert not wrong


def test_nothing_is_left_for_later() -> None:
    folders = (PACKAGE, "tests", *_PROGRAMS)
    assert not [path for folder in folders for path in (ROOT / folder).rglob("*.py") if _MARKS.search(path.read_text())]


def test_the_environment_is_not_read_at_import() -> None:
    wrong = [
        module.at(node.lineno)
        for module in modules()
        if module.path.name != "__main__.py"
        for node in _at_import(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    assert not wrong, "read the environment in a function"


def test_every_statement_file_is_shipped() -> None:
    listed = (ROOT / "setup.cfg").read_text()
    missing = {
        str(path.relative_to(ROOT / PACKAGE))
        for path in (ROOT / PACKAGE).rglob("*")
        if path.suffix in {".sql", ".yaml", ".json"} and f"{path.parent.relative_to(ROOT / PACKAGE)}/*{path.suffix}" not in listed
    }
    assert missing == set(), "setup.cfg [options.package_data] does not name these"


def _every_node_that_runs() -> Iterator[tuple[Path, ast.AST]]:
    """Yield every syntax node of the package and of the programs beside it, with its file."""
    yield from ((module.path, node) for module, node in every_node())
    for folder in _PROGRAMS:
        for path in (ROOT / folder).rglob("*.py"):
            yield from ((path, node) for node in ast.walk(ast.parse(path.read_text())))


def _catches_all(node: ast.AST) -> bool:
    """Answer whether *node* is a handler or a `suppress` of any error."""
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=ast.Tuple(elts=caught)):
            return any(_is_everything(each) for each in caught)
        case ast.ExceptHandler(type=ast.expr() as caught):
            return _is_everything(caught)
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=caught):
            return any(_is_everything(each) for each in caught)
        case _:
            return False


def _sleeps(node: ast.AST) -> TypeGuard[ast.Call]:
    """Answer whether *node* is a call of `sleep`; sleeping for nothing only lets others go first."""
    if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) != "sleep":
        return False
    return not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)


def _is_everything(caught: ast.expr) -> bool:
    return (caught.id if isinstance(caught, ast.Name) else getattr(caught, "attr", "")) in _EVERYTHING


def _is_marked(lines: list[str], line: int) -> bool:
    return any("# boundary:" in lines[number - 1] for number in (line - 1, line, line + 1) if 0 < number <= len(lines))


def _at_import(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes that run when the module is imported."""
    found: set[ast.AST] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        found.add(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found
