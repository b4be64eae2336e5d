"""What lets in who should stay out is said aloud."""

from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.cli.setup.safety import examine_safety
from reproq_supervisor.settings.model import Settings

SAFE: dict[str, Any] = {"app": {"allowed_task_modules": ["app."]}}


def said(settings: dict[str, Any], source: Path | None = None, dsn: str | None = None) -> list[tuple[str, str]]:
    words = examine_safety(Settings.model_validate({**SAFE, **settings}), source, dsn)
    return [(level, check) for level, check, _, remedy in words if remedy]


def test_nothing_is_said_of_what_is_safe(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o700)
    assert said({"logs_dir": str(tmp_path / "logs")}, dsn="postgresql://app@localhost/app") == []
    assert said({"logs_dir": str(tmp_path / "made" / "later")}) == []


@pytest.mark.parametrize("modules", [["*"], ["app.", "*"], []])
def test_any_function_and_no_function_are_warnings(modules: list[str]) -> None:
    assert said({"app": {"allowed_task_modules": modules}}) == [("warning", "tasks")]


def test_a_folder_of_logs_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    folder.chmod(0o750)
    assert said({"logs_dir": str(folder)}) == [("warning", "logs_dir")]


def test_a_folder_of_logs_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    assert said({"logs_dir": str(tmp_path / "logs")}) == [("error", "logs_dir")]
    assert said({"logs_dir": str(tmp_path / "logs" / "below")}) == [("error", "logs_dir")]


def test_a_folder_of_logs_that_cannot_be_written_to_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert said({"logs_dir": str(tmp_path)}) == [("error", "logs_dir")]
    assert said({"logs_dir": str(tmp_path / "missing")}) == [("error", "logs_dir")]


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("database: postgresql://app:hunter2@db/app", 0o644, [("warning", "secrets")]),
        ('database: "postgresql://app:hunter2@db/app"', 0o640, [("warning", "secrets")]),
        ("database: postgresql://app:hunter2@db/app", 0o600, []),
        ("database: postgresql://app@db/app", 0o644, []),
        ("database: postgresql://app:${PASSWORD}@db/app", 0o644, []),
    ],
)
def test_a_password_in_a_file_that_others_can_read_is_a_warning(
    tmp_path: Path, text: str, mode: int, expected: list[tuple[str, str]]
) -> None:
    file = tmp_path / "supervisor.yaml"
    file.write_text(text)
    file.chmod(mode)
    assert said({}, source=file) == expected


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://app@db.example/app", [("warning", "connection")]),
        ("postgresql://app@db.example/app?sslmode=prefer", [("warning", "connection")]),
        ("postgresql://app@db.example/app?sslmode=verify-full", []),
        ("postgresql://app@%2Frun%2Fpostgresql:5432/app", []),
        ("postgresql://app@127.0.0.1/app", []),
        ("postgresql://app@/app?host=/run/postgresql", []),
        ("postgresql:///app", []),
        ("postgresql://app@%2Frun%2Fpostgresql/app", []),
        ("postgresql://app@one,two/app", [("warning", "connection")]),
        ("postgresql://app@[::1]:5432/app", []),
    ],
)
def test_an_unencrypted_connection_to_another_machine_is_a_warning(dsn: str, expected: list[tuple[str, str]]) -> None:
    assert said({}, dsn=dsn) == expected


def test_listening_beyond_this_machine_needs_a_token_and_networks() -> None:
    assert said({"web": {"listen": "0.0.0.0:9090"}}) == [("warning", "web")]
    assert said({"web": {"listen": "127.0.0.1:9090"}}) == []
    assert said({"web": {"listen": "0.0.0.0:9090", "auth_token": "t", "allow_cidrs": ["10.0.0.0/8"]}}) == []
