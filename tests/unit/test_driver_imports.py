"""The driver without what it never uses."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from reproq_supervisor.process.driver_imports import installed_version
from tests.architecture.source import ROOT

_ASK = """
import sys
from reproq_supervisor.process.driver_imports import without_unused_imports
{before}
with without_unused_imports():
    import psycopg, psycopg_binary
    {within}
from importlib import metadata
assert metadata.__spec__.name == "importlib.metadata", metadata
print(psycopg.__version__, psycopg_binary.__version__)
"""


def _versions(before: str = "", within: str = "pass") -> list[str]:
    code = _ASK.format(before=before, within=within)
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


INSTALLED = [metadata.version("psycopg"), metadata.version("psycopg-binary")]


def test_the_driver_learns_its_version_without_the_modules_that_read_it() -> None:
    assert _versions(within="assert 'email' not in sys.modules") == INSTALLED


def test_where_no_folder_tells_the_version_the_module_itself_is_asked() -> None:
    blind = "from reproq_supervisor.process import driver_imports; driver_imports.installed_version = lambda name: None"
    assert _versions(before=blind) == INSTALLED


def test_a_version_is_read_from_the_first_folder_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("a/some_driver_binary-9.9.dist-info", "b/some_driver-1.2.3rc1+local.dist-info", "c/some_driver-1.2.2.dist-info"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("missing", "a", "b", "c")])
    assert installed_version("some-driver") == "1.2.3rc1+local"
    assert installed_version("other-driver") is None
