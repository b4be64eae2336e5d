"""`config show` and `init`."""

import json
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.cli.main import main
from reproq_supervisor.settings.load import load


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with an environment that names nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("REPROQ_CONFIG", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> int:
    """Run the program in this process; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return the JSON answer of a command that must succeed."""
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_show_prints_a_file_with_every_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "supervisor.yaml").write_text("shutdown_timeout: 45\n")
    assert run("config", "show") == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    assert load("again.yaml", environ={}).settings == load("supervisor.yaml", environ={}).settings


def test_show_gives_programs_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "config", "show")["pools"]["default"]["timeout"] == 900.0


def test_show_masks_the_password_of_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    shown = answer(capsys, "config", "show", "--dsn", "postgresql://u:hunter2@h/x", "--origin")
    assert {"key": "database", "value": "postgresql://u:***@h/x", "origin": "flag"} in shown


def test_show_origin_is_one_line_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("logs: {level: debug}\n")
    assert run("config", "show", "--origin", "-c", "c.yaml") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["key", "value", "origin"]
    assert ["logs.level", "debug", "c.yaml:1"] in lines
    assert ["logs_dir", "null", "default"] in lines


def test_show_of_a_wrong_file_tells_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("logz: 1\n")
    assert run("config", "show", "-c", "c.yaml") == 78
    assert "did you mean logs?" in capsys.readouterr().err


def test_config_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config") == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage:")
    assert "error:" not in said


def test_init_writes_a_file_that_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "init", "--tasks", "shop.tasks") == {"ok": True, "path": "supervisor.yaml"}
    assert answer(capsys, "check")["ok"] is True
    assert "preload: [shop.tasks]" in (tmp_path / "supervisor.yaml").read_text()
    assert (tmp_path / "supervisor.yaml").stat().st_mode & 0o777 == 0o644


def test_init_replaces_a_file_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("mine")
    assert run("init", "-c", "c.yaml") == 1
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run("init", "-c", "c.yaml", "--force") == 0
    assert path.read_text() != "mine"


def test_init_leaves_nothing_but_its_file(tmp_path: Path) -> None:
    assert run("init", "-c", "c.yaml") == 0
    assert run("init", "-c", "c.yaml") == 1
    assert run("init", "-c", "no/such/c.yaml") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_init_makes_the_folder_of_its_file(tmp_path: Path) -> None:
    assert run("init", "-c", "config/supervisor.yaml") == 0
    assert (tmp_path / "config" / "supervisor.yaml").is_file()


def test_init_wants_the_name_of_a_module() -> None:
    assert run("init", "--tasks", "no module") == 2
