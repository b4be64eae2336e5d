"""Sizes, names and words: the parts of the house style that a machine can hold."""

import ast
import re

from tests.architecture.source import PACKAGE, ROOT, every_node, modules

MAX_LINES = 300
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
# Only here does code say SQL.
STORE = "store"
_SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|CREATE\s+(TABLE|DATABASE|INDEX)|ALTER\s+TABLE)\s", re.DOTALL
)
_MARKS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def test_a_file_is_one_noun_or_one_decision() -> None:
    long = {module.at(1): lines for module in modules() if (lines := module.text.count("\n")) > MAX_LINES}
    assert not long, f"past {MAX_LINES} lines: which two things is it?"


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
        module.at(node.lineno)
        for module, node in every_node()
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not _is_marked(module.text.splitlines(), node.lineno)
    ]
    assert not wrong, "say `# boundary:` and why, or name the errors"


def test_nothing_is_left_for_later() -> None:
    assert not [module.at(1) for module in modules() if _MARKS.search(module.text)]


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


def _catches_all(handler: ast.ExceptHandler) -> bool:
    """Answer whether *handler* swallows anything; one that ends by raising it again only tidies up."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(each is None or (isinstance(each, ast.Name) and each.id in {"Exception", "BaseException"}) for each in caught)


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
