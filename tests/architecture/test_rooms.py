"""Imports go down only, neighbours never meet, and the core is pure (docs/architecture.md)."""

import ast

import pytest

from tests.architecture.source import PACKAGE, ROOT, Module, every_import, modules, room_of

FLOORS = (
    {"core"},
    {"settings"},
    {"store", "process", "telemetry"},
    {"supervisor", "pool", "executor", "keeper", "web"},
    {"cli"},
    {"client"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Everything else of the standard library could do I/O, read a clock or draw a number.
PURE = {
    *("abc", "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq"),
    *("itertools", "json", "math", "operator", "re", "statistics", "string", "struct", "types", "typing"),
}
IMPURE_CALLS = {"now", "utcnow", "today", "open", "input", "print", "getenv"}

# Where a library may be known. Whoever else needs what it does asks that room.
HOMES = {
    "psycopg": {"store"},
    "psycopg_pool": {"store"},
    "yaml": {"settings"},
    "pydantic": {"settings"},
    "pydantic_core": {"settings"},
    "click": {"cli"},
    "rich": {"cli"},
    "croniter": {"keeper", "settings"},
    "psutil": {"process"},
    "multiprocess": {"process", "executor"},
    "starlette": {"web"},
    "uvicorn": {"web"},
}


def may_import(importer: str, imported: str) -> bool:
    """Answer whether a module of room *importer* may import one of room *imported*; '' is the package itself."""
    if importer == imported or imported == "":
        return True
    if importer == "":
        return False
    return FLOOR_OF[imported] < FLOOR_OF[importer]


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("cli", "supervisor", True),
        ("supervisor", "core", True),
        ("store", "process", False),
        ("pool", "executor", False),
        ("core", "settings", False),
        ("settings", "cli", False),
        ("client", "cli", True),
        ("executor", "client", False),
        ("", "cli", False),
    ],
)
def test_the_rule_says_what_the_architecture_says(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_every_folder_is_a_known_room() -> None:
    folders = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOOR_OF)


def test_imports_go_down_only() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.name}"
        for module, found in every_import()
        if found.is_ours and not may_import(module.room, room_of(found.name))
    ]
    assert not wrong


def test_the_core_imports_only_what_is_pure() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.name}"
        for module, found in every_import()
        if module.room == "core" and not found.is_ours and found.top not in PURE
    ]
    assert not wrong


def test_the_core_reads_no_clock_and_opens_nothing() -> None:
    wrong = [
        f"{module.at(line)} calls {name}()"
        for module in modules()
        if module.room == "core"
        for name, line in _calls(module)
        if name in IMPURE_CALLS
    ]
    assert not wrong, "`now` and `jitter` are arguments"


def test_a_library_is_known_in_its_home_only() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.name}"
        for module, found in every_import()
        if not found.is_ours and not found.is_standard and module.room not in HOMES.get(found.top, set())
    ]
    assert not wrong, f"homes: {HOMES}"


def test_only_the_nursery_forks_and_what_starts_the_program_of_one_task() -> None:
    may = {f"{PACKAGE}.executor.nursery", f"{PACKAGE}.process.bound"}
    wrong = [
        module.at(line) for module in modules() for name, line in _calls(module) if name in {"fork", "forkpty"} and module.name not in may
    ]
    wrong += [
        f"{module.at(found.line)} imports {found.name}"
        for module, found in every_import()
        if found.top in {"multiprocess", "multiprocessing"} and found.name != "multiprocess.connection"
    ]
    assert not wrong, "a fork copies threads' locks and open connections: start a fresh interpreter by process.spawn"


def _calls(module: Module) -> list[tuple[str, int]]:
    """Return the last name of everything that *module* calls."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    found.append((name, node.lineno))
    return found
