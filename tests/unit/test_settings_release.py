"""The name of a release changes when its source files do, and only then."""

import os
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.settings.release import release_of


@pytest.fixture
def app(tmp_path: Path) -> dict[str, Any]:
    package = tmp_path / "v1" / "shop"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inner" / "tasks.py").write_text("x = 1\n")
    (tmp_path / "current").symlink_to("v1")
    return {"path": [str(tmp_path / "current")], "preload": ["shop.inner.tasks"], "allowed_task_modules": ["shop."]}


def test_the_same_files_are_the_same_release(app: dict[str, Any]) -> None:
    assert release_of(app) == release_of(app)


def test_a_changed_file_is_another_release(app: dict[str, Any], tmp_path: Path) -> None:
    before = release_of(app)
    (tmp_path / "v1" / "shop" / "inner" / "tasks.py").write_text("x = 22\n")
    assert release_of(app) != before


def test_a_new_file_is_another_release(app: dict[str, Any], tmp_path: Path) -> None:
    before = release_of(app)
    (tmp_path / "v1" / "shop" / "new.py").touch()
    assert release_of(app) != before


def test_a_switched_link_is_another_release_even_with_equal_files(app: dict[str, Any], tmp_path: Path) -> None:
    before = release_of(app)
    copied = tmp_path / "v2" / "shop" / "inner"
    copied.mkdir(parents=True)
    for name in ("__init__.py", "inner/tasks.py"):
        old, new = tmp_path / "v1" / "shop" / name, tmp_path / "v2" / "shop" / name
        new.write_bytes(old.read_bytes())
        os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(tmp_path / "current")
    assert release_of(app) != before


@pytest.mark.parametrize("name", ["__pycache__/tasks.cpython-311.pyc", "notes.txt", ".git/hook.py", "node_modules/x.py"])
def test_what_is_no_code_does_not_count(app: dict[str, Any], tmp_path: Path, name: str) -> None:
    before = release_of(app)
    path = tmp_path / "v1" / "shop" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert release_of(app) == before


def test_a_missing_module_is_left_to_the_import_to_complain_about() -> None:
    assert release_of({"path": ["/nowhere"], "preload": ["nosuch.module"], "allowed_task_modules": ["*"]})
