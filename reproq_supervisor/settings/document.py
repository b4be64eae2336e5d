"""A YAML text as plain data, with the place of every key and value.

Scalars follow YAML 1.2: only `true` and `false` are booleans and keys are always texts, so that a queue may be called `on` or `1:30`.
Anchors and aliases work; merge keys, tags and second documents do not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from reproq_supervisor.settings.interpolation import InterpolationError, interpolate
from reproq_supervisor.settings.problems import Problem

Path = tuple[str | int, ...]

MAX_VALUES = 20_000

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp", "value"))
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the file; both counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """What a file says.

    Attributes:
      data: the top mapping; what had a problem is left out.
      keys, values: where each key and each value stands.
      mappings: which of the values are mappings.
      variables: the environment variables that filled in a text.
      problems: each with the path of what was left out because of it.
    """

    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    mappings: set[Path] = field(default_factory=set)
    variables: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    problems: list[tuple[Path, Problem]] = field(default_factory=list)


def parse_document(text: str, environ: Mapping[str, str]) -> Document:
    """Read *text* and fill in its `${VAR}` references. Never raises: what is wrong is in `problems`."""
    document = Document()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(root, MappingNode):
            document.data = _Reader(document, environ).read(root, ())
            return document
        problem = _not_a_mapping(root)
    except yaml.YAMLError as error:
        problem = _syntax_problem(text, error)
    except RecursionError:
        problem = Problem("", "expected settings, got a text nested too deeply")
    except _TooManyValuesError as error:
        message = f"expected at most {MAX_VALUES} values, got more (an alias counts every time)"
        problem = Problem("", message, *_position(error.node))
    return Document(problems=[((), problem)])


def dotted(path: Path) -> str:
    """Return the path as people write it: `pools.mail.queues`, `app.preload[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_LEFT_OUT = object()  # the value of something that has a problem of its own already


class _TooManyValuesError(Exception):
    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node


class _Reader:
    """Turns nodes into data, noting places and problems in the document."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._open: list[Node] = []  # containers around the current node: an alias to one of them has no end
        self._values = 0

    def read(self, node: Node, path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooManyValuesError(node)
        self._document.values[path] = Place(*_position(node))
        if any(node is outer for outer in self._open):
            self._complain(path, node, "expected a value, got an alias to something that contains it")
            return _LEFT_OUT
        match node:
            case ScalarNode():
                return self._read_scalar(node, path)
            case SequenceNode():
                self._open.append(node)
                items = [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
                self._open.pop()
                return [item for item in items if item is not _LEFT_OUT]
            case MappingNode():
                self._open.append(node)
                mapping = self._read_mapping(node, path)
                self._open.pop()
                return mapping
            case _:
                raise AssertionError(f"no such YAML node: {node!r}")

    def _read_mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        self._document.mappings.add(path)
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._complain(path, key_node, f"expected a text as key, got {_kind(key_node)}")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key == "<<" and key_node.style is None:
                self._complain(inner, key_node, "expected a key, got a merge key", "write the keys out")
            elif inner in self._document.keys:
                first = self._document.keys[inner]
                self._complain(inner, key_node, f"expected each key once, got it again: first on line {first.line}")
            else:
                self._document.keys[inner] = Place(*_position(key_node))
                value = self.read(value_node, inner)
                if value is not _LEFT_OUT:
                    mapping[key] = value
        return mapping

    def _read_scalar(self, node: ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if node.tag not in _PLAIN_TAGS:
            self._complain(path, node, f"expected a plain value, got the tag {node.tag}", "tags are not used here")
            return _LEFT_OUT
        if node.style is None and (plain := _resolve_plain(text)) is not text:
            return plain
        try:
            filled = interpolate(text, self._environ)
        except InterpolationError as error:
            self._complain(path, node, str(error), error.hint)
            return _LEFT_OUT
        if filled.variables:
            self._document.variables[path] = filled.variables
        return filled.text

    def _complain(self, path: Path, node: Node, message: str, hint: str | None = None) -> None:
        problem = Problem(dotted(path), message, *_position(node), hint=hint)
        self._document.problems.append((path, problem))


def _resolve_plain(text: str) -> Any:
    """Return what an unquoted scalar means; the very object *text* when it is a text."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _kind(node: Node) -> str:
    return {ScalarNode: "a single value", SequenceNode: "a list", MappingNode: "a mapping"}[type(node)]


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _not_a_mapping(root: Node | None) -> Problem:
    if root is None:
        hint = "write {} for all defaults; reproq-supervisor init writes a file to start from"
        return Problem("", "expected a mapping of settings, got an empty file", 1, 1, hint)
    return Problem("", f"expected a mapping of settings, got {_kind(root)}", *_position(root))


def _syntax_problem(text: str, error: yaml.YAMLError) -> Problem:
    """Word a parser's complaint; its own multi-line message quotes the file, which may hold secrets."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        return Problem("", f"expected text, got the character #x{error.character:04x}", line, column)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = f"{error.problem} ({error.context})" if error.context else error.problem
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return Problem("", f"expected YAML: {message}", *place)
    return Problem("", f"expected YAML: {type(error).__name__}")
