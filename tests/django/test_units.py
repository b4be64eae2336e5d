"""`manage.py reproq systemd`: hardened units for a project, without a secret in them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from django.test import override_settings

from tests.support.django_command import manage
from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder to work in."""
    folder = tmp_path / "my shop"
    folder.mkdir()
    enter_empty_surroundings(folder, monkeypatch)
    monkeypatch.setattr("sys.argv", [str(folder / "manage.py")])
    return folder


def test_a_worker_s_unit_starts_manage_py_and_is_hardened(postgres: Database, surroundings: Path) -> None:
    done = manage("systemd", "--concurrency", 4, "--queues", "mail,default", "--user", "root")
    assert done.code == 0, done
    text = (surroundings / "reproq-worker-my-shop.service").read_text()
    assert f'"{surroundings}/manage.py" reproq worker --queues=mail,default --concurrency=4' in text
    for line in ("Type=notify", "KillMode=mixed", "NoNewPrivileges=yes", "ProtectSystem=strict", "RuntimeDirectory=reproq-worker-my-shop"):
        assert line in text.splitlines(), line
    beat = (surroundings / "reproq-beat-my-shop.service").read_text()
    assert "reproq beat" in beat and "ProtectSystem=strict" in beat
    verify(surroundings, "reproq-worker-my-shop.service", "reproq-beat-my-shop.service")
    assert manage("systemd", "--user", "root").code == 1, "files are in the way"


def test_a_supervisor_that_fires_schedules_itself_needs_no_beat(postgres: Database, surroundings: Path) -> None:
    with override_settings(REPROQ={"pools": {"mail": {"queues": ["mail"]}}}):
        assert manage("systemd", "--user", "root").code == 0
    assert [path.name for path in surroundings.iterdir()] == ["reproq-worker-my-shop.service"]


def test_a_timer_may_fire_schedules(postgres: Database, surroundings: Path) -> None:
    assert manage("systemd", "--user", "root", "--schedule", "--schedule-on-calendar", "*:0/5").code == 0
    assert "OnCalendar=*:0/5" in (surroundings / "reproq-schedule-my-shop.timer").read_text()
    assert "Type=oneshot" in (surroundings / "reproq-schedule-my-shop.service").read_text()
    verify(surroundings, "reproq-schedule-my-shop.service", "reproq-schedule-my-shop.timer")


def test_a_unit_names_the_settings_it_was_written_with(postgres: Database, surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.production")
    assert manage("systemd", "--user", "root").code == 0
    text = (surroundings / "reproq-worker-my-shop.service").read_text()
    assert "reproq --settings=shop.production worker" in text
    assert "reproq --settings=shop.production beat" in (surroundings / "reproq-beat-my-shop.service").read_text()

    (surroundings / "environment").write_text("DJANGO_SETTINGS_MODULE=shop.other\n")
    assert manage("systemd", "--user", "root", "--env-file", "environment", "--force").code == 0
    assert "--settings" not in (surroundings / "reproq-worker-my-shop.service").read_text()


def test_no_secret_goes_into_a_unit(postgres: Database, surroundings: Path) -> None:
    done = manage("systemd", "--metrics-auth-token", "hush", "--user", "root")
    assert done.code == 1
    assert "METRICS_AUTH_TOKEN" in done.err and "hush" not in json.dumps([done.out, done.err])
    assert not list(surroundings.iterdir())


def verify(folder: Path, *names: str) -> None:
    """Let systemd read the units, where there is one."""
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "verify", *(str(folder / name) for name in names)], capture_output=True, text=True, timeout=60)
        complaints = [line for line in done.stderr.splitlines() if "reproq" in line and "not executable" not in line]
        assert not complaints, complaints
