"""The product's source, as the architecture tests read it: modules, their rooms and what they import, without running any."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "reproq_supervisor"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, wherever the statement stands: inside functions and type checking blocks too."""

    name: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_ours(self) -> bool:
        return self.top == PACKAGE

    @property
    def is_standard(self) -> bool:
        return self.top in sys.stdlib_module_names


@dataclass(frozen=True)
class Module:
    """A source file of the package."""

    name: str
    path: Path

    @property
    def room(self) -> str:
        """Folder under the package. Its own files are two doors: `__main__` to the cli, `__init__` to what task code may use."""
        parts = self.path.relative_to(ROOT / PACKAGE).parts
        if parts == ("__main__.py",):
            return "cli"
        if parts == ("__init__.py",):
            return "executor"
        return parts[0] if len(parts) > 1 else ""

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def tree(self) -> ast.Module:
        return _parse(self.path)

    def imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._resolve(node)
                yield from (Import(_deepest(base, alias.name), node.lineno) for alias in node.names)

    def _resolve(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])

    def at(self, line: int) -> str:
        """Return the place that a failure names."""
        return f"{self.path.relative_to(ROOT)}:{line}"


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _deepest(base: str, name: str) -> str:
    """`from base import name` imports a module when there is one of that name, otherwise something inside *base*."""
    place = ROOT.joinpath(*base.split(".")) / name
    return f"{base}.{name}" if place.is_dir() or place.with_suffix(".py").exists() else base


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the package, in order of names."""
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    assert len(found) > 10, f"{ROOT}: expected the package's source, found {len(found)} files"
    return tuple(found)


def every_node() -> Iterator[tuple[Module, ast.AST]]:
    """Yield every syntax node of the package with the module that it stands in."""
    for module in modules():
        for node in ast.walk(module.tree):
            yield module, node


def every_import() -> Iterator[tuple[Module, Import]]:
    """Yield every import of the package with the module that it stands in."""
    for module in modules():
        for found in module.imports():
            yield module, found


def room_of(name: str) -> str:
    """Return the room of the module or package *name* of ours; '' for the top package."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""
