"""What the small processes load before user code: the standard library, psutil, multiprocess and ourselves.

Every library in supervisor or nursery is memory in every process below, time in every fork, and a thread or a socket
that may be open at the wrong moment.
"""

import json
import subprocess
import sys

import pytest

from tests.architecture.source import PACKAGE, ROOT, every_import

# dill comes with multiprocess.
LEAN = frozenset({PACKAGE, "psutil", "multiprocess", "_multiprocess", "dill"})
LEAN_ROOMS = ("core", "process", "telemetry", "supervisor", "executor")
ENTRY_POINTS = {
    "supervisor": f"{PACKAGE}.supervisor.__main__",
    "nursery": f"{PACKAGE}.executor.__main__",
    "executor": f"{PACKAGE}.executor.executor",
    "guard": f"{PACKAGE}.process.guard",
    "launcher": f"{PACKAGE}.process.launch",
}


DRIVER = frozenset({"psycopg", "psycopg_binary", "typing_extensions", "cython_runtime"})
"""What the driver and its compiled half bring."""
HEAVY = frozenset(
    {"asyncio", "ssl", "_ssl", "logging", "subprocess", "concurrent", "argparse", "email", "random", "zipfile", "http", "xml"}
)
"""Modules of the standard library that take 0.1 to 6 MiB with what they import, in every process that has them."""

_LIST_MODULES = """
import sys
before = set(sys.modules)  # what the virtual environment itself brings by its .pth files
import importlib, json
importlib.import_module(sys.argv[1])
sys.stdout.write(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def loaded_by(module: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter loads for *module*."""
    done = subprocess.run([sys.executable, "-P", "-c", _LIST_MODULES, module], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("kind", ENTRY_POINTS)
def test_a_lean_process_loads_no_library(kind: str) -> None:
    foreign = {name for name in loaded_by(ENTRY_POINTS[kind]) - LEAN if name not in sys.stdlib_module_names}
    assert foreign == set()


@pytest.mark.parametrize("kind", ENTRY_POINTS)
def test_a_lean_process_loads_nothing_heavy_of_the_standard_library(kind: str) -> None:
    assert loaded_by(ENTRY_POINTS[kind]) & HEAVY == set()


def test_the_supervisor_does_not_load_a_calendar() -> None:
    assert "datetime" not in loaded_by(ENTRY_POINTS["supervisor"])


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="dataclasses look into inspect for every class")
def test_the_supervisor_does_not_load_what_only_reads_source_code() -> None:
    assert loaded_by(ENTRY_POINTS["supervisor"]) & {"inspect", "ast", "dis", "tokenize"} == set()


def test_a_nursery_does_not_load_the_types_of_values_that_nobody_has_made() -> None:
    assert loaded_by(ENTRY_POINTS["nursery"]) & {"decimal", "numbers", "uuid"} == set()


@pytest.mark.parametrize("room", ["pool", "keeper"])
def test_a_process_with_a_connection_loads_the_driver_and_no_other_library(room: str) -> None:
    found = loaded_by(f"{PACKAGE}.{room}.__main__") - LEAN
    assert "psycopg" in found
    assert found & {"ssl", "_ssl", "hashlib", "_hashlib"} == set()  # libpq has TLS and hashes of its own
    assert found & {"email", "zipfile", "shutil", "tempfile", "bz2", "lzma", "zlib", "locale", "tokenize"} == set()
    assert {
        name for name in found - DRIVER if name not in sys.stdlib_module_names and not name.startswith(("_sysconfigdata", "_cython"))
    } == set()


def test_the_listing_would_see_a_library() -> None:
    assert "yaml" in loaded_by("yaml")


def test_a_lean_room_does_not_load_one_later_either() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.name}"
        for module, found in every_import()
        if module.room in LEAN_ROOMS and not found.is_standard and found.top not in LEAN
    ]
    assert not wrong


def test_task_modules_load_no_driver_by_importing_the_client() -> None:
    foreign = {name for name in loaded_by(f"{PACKAGE}.client") - LEAN if name not in sys.stdlib_module_names}
    assert foreign == set()
