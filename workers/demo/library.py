"""Real input that every machine with Python has: the source files of its standard library."""

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

# What others installed into the same folder is no part of the library.
_FOREIGN = {"site-packages", "dist-packages", "__pycache__"}
# Where statements hold further statements: definitions are found by these alone, eight times as fast as by walking every expression.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Measure(TypedDict):
    """What `measure` finds in a file. *parsed* is false for test data that is no Python of this version; it has no definitions then."""

    sha256: str
    bytes: int
    lines: int
    functions: int
    classes: int
    parsed: bool


def root() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources() -> list[str]:
    """Return the names of all source files, relative to `root`, sorted."""
    found = (path.relative_to(root()) for path in root().rglob("*.py") if path.is_file())
    return sorted(str(path) for path in found if not _FOREIGN & set(path.parts))


def measure(name: str) -> Measure:
    """Digest and measure the source file *name* of the standard library."""
    data = (root() / name).read_bytes()
    tree = _parse(data)
    definitions = list(_definitions(tree)) if tree else []
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "lines": len(data.splitlines()),
        "functions": sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in definitions),
        "classes": sum(isinstance(each, ast.ClassDef) for each in definitions),
        "parsed": tree is not None,
    }


def _parse(data: bytes) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files for tests are full of what a compiler warns about
        try:
            return ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _definitions(tree: ast.AST) -> Iterator[ast.AST]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        for block in _BLOCKS:
            inner = getattr(node, block, ())
            if isinstance(inner, list):  # the body of a lambda or of an expression is a node
                waiting += inner
