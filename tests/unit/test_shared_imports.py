"""Which applications' nurseries load an event loop: those whose modules define coroutines, however they are wrapped."""

import subprocess
import sys
import types
import uuid
from collections.abc import Iterator

import pytest

from reproq_supervisor.executor.shared_imports import are_imported, defines_coroutines

PLAIN = "def send(): pass"
COROUTINE = "async def send(): pass"
DECORATED = """
class Task:
    __slots__ = ("func",)
    def __init__(self, func): self.func = func
    def __getattr__(self, name): raise SystemExit("code of the application ran")

@Task
async def send(): pass
"""
METHOD = """
class Mailer:
    async def run(self): pass
"""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    # A package of its own: functions of earlier tests are seen until they are collected.
    name = f"app_{uuid.uuid4().hex}.tasks"
    module = types.ModuleType(name)
    sys.modules[name] = module
    yield module
    del sys.modules[name]


def _package(module: types.ModuleType) -> str:
    return module.__name__.partition(".")[0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [(PLAIN, False), (COROUTINE, True), (DECORATED, True), (METHOD, True)],
    ids=["plain", "coroutine", "decorated", "method"],
)
def test_a_coroutine_is_seen_however_it_is_wrapped(module: types.ModuleType, source: str, expected: bool) -> None:
    exec(source, module.__dict__)
    assert defines_coroutines([f"{_package(module)}."]) is expected


@pytest.mark.parametrize("allowed", ["{package}.", "{package}.tasks", "{package}.tasks.send", "{package}.tas"])
def test_a_prefix_may_name_a_package_a_module_or_a_task(module: types.ModuleType, allowed: str) -> None:
    exec(COROUTINE, module.__dict__)
    assert defines_coroutines(["other.", allowed.format(package=_package(module))])


def test_what_is_not_allowed_to_run_does_not_count(module: types.ModuleType) -> None:
    exec(COROUTINE, module.__dict__)
    assert not defines_coroutines(["shared_imports_other."])
    assert not defines_coroutines([])


def test_task_modules_that_are_not_imported_are_not_known(module: types.ModuleType) -> None:
    assert are_imported([f"{_package(module)}."])
    assert not are_imported(["shared_imports_other."])


def test_where_everything_is_allowed_our_own_coroutines_and_the_standard_librarys_do_not_count() -> None:
    code = (
        "import asyncio, reproq_supervisor.executor.attempt\n"
        "from reproq_supervisor.executor.shared_imports import defines_coroutines\n"
        "exit(defines_coroutines(['*']))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], timeout=60, check=False).returncode == 0
