"""The reader that the other checks stand on: a check that sees nothing would pass for ever."""

from pathlib import Path

from tests.architecture.source import PACKAGE, ROOT, Module, modules

_PLANTED = """
import os.path
from reproq_supervisor.core import frames
from . import spawn
from .. import settings
from ..core.runs import Claimed

def later():
    import yaml
"""


def test_imports_are_seen_wherever_they_stand_and_however_they_are_written(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(_PLANTED)
    found = {each.name for each in Module(f"{PACKAGE}.process.planted", planted).imports()}
    assert found == {
        "os.path",
        f"{PACKAGE}.core.frames",
        f"{PACKAGE}.process.spawn",
        f"{PACKAGE}.settings",
        f"{PACKAGE}.core.runs",
        "yaml",
    }


def test_every_file_of_the_package_is_read() -> None:
    files = list((ROOT / PACKAGE).rglob("*.py"))
    assert len(modules()) == len(files)
    assert {module.room for module in modules()} >= {"cli", "core", "process"}
