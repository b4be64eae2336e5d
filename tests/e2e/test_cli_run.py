"""`run` before it becomes the supervisor: what it refuses, with which exit code, and that nothing is left then."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from reproq_supervisor.cli.daemon.record import read_record
from reproq_supervisor.cli.places import find_places
from tests.support.eventually import eventually
from tests.support.postgres import Database

CONFIG: dict[str, Any] = {"app": {"allowed_task_modules": ["workers.demo."]}}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a valid configuration for the embedded database, open to the user that this may run as."""
    with tempfile.TemporaryDirectory(prefix="reproq-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        (Path(name) / "supervisor.yaml").write_text(json.dumps(CONFIG))
        yield Path(name)


def program(*arguments: str) -> list[str]:
    """Return the command line: a process of its own, since `run` would replace this one."""
    return [sys.executable, "-P", "-m", "reproq_supervisor", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Return an environment that names neither configuration nor database."""
    unwanted = {"REPROQ_CONFIG", "DATABASE_URL", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"}
    return {name: value for name, value in os.environ.items() if name not in unwanted} | changes


def command(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in *folder* to its end."""
    argv, env = program(*arguments), environment(**environ)
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `run`, which is expected to refuse."""
    return command(folder, "run", *arguments, **environ)


def test_every_problem_of_the_configuration_is_told_and_no_folder_is_made(folder: Path) -> None:
    (folder / "supervisor.yaml").write_text("webb: 1\nlogs: 2\n")
    done = run(folder)
    assert done.returncode == 78
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        "supervisor.yaml:1:1: webb: expected a known key (did you mean web?)",
        "supervisor.yaml:2:7: logs: expected a mapping, got 2",
    ]
    assert os.listdir(folder) == ["supervisor.yaml"]


def test_a_database_without_our_schema_is_75_and_names_the_command(folder: Path, empty_database: Database) -> None:
    done = run(folder, "--dsn", empty_database.dsn)
    assert done.returncode == 75
    assert "reproq-supervisor migrate" in done.stderr
    assert empty_database.query("SELECT to_regclass('task_runs')") == [(None,)]


def test_a_database_with_a_newer_schema_is_refused(folder: Path, database: Database) -> None:
    database.query("INSERT INTO reproq_schema_migrations (version, name) VALUES (999, 'future')")
    done = run(folder, DATABASE_URL=database.dsn)
    assert done.returncode == 78
    assert "use the newer program" in done.stderr


def test_a_place_that_cannot_be_written_is_78_and_says_what_to_set(folder: Path) -> None:
    (folder / ".reproq").write_text("in the way")
    done = run(folder)
    assert done.returncode == 78
    assert "STATE_DIRECTORY" in done.stderr


def test_a_second_daemon_of_a_configuration_is_refused(folder: Path) -> None:
    (folder / ".reproq/run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / ".reproq/run/control.sock"))
        server.listen()
        done = run(folder, "--json")
    assert done.returncode == 1
    assert "stop it with: reproq-supervisor stop" in json.loads(done.stdout)["error"]


def test_two_starts_at_once_do_not_meet(folder: Path) -> None:
    (folder / ".reproq/run").mkdir(parents=True)
    with (folder / ".reproq/run/run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(folder)
    assert done.returncode == 1
    assert "found one under way" in done.stderr


def test_an_embedded_database_that_cannot_be_used_is_69(folder: Path) -> None:
    (folder / ".reproq/postgres").mkdir(parents=True)
    (folder / ".reproq/postgres/diary.txt").write_text("mine")
    done = run(folder)
    assert done.returncode == 69
    assert "name another folder" in done.stderr


@pytest.fixture
def deep_folder(folder: Path) -> Path:
    """A folder with a space whose path is too long for a socket."""
    deep = folder / "a space" / ("d" * 100) / ("e" * 60)
    deep.mkdir(parents=True)
    (folder / "supervisor.yaml").rename(deep / "supervisor.yaml")
    return deep


def test_a_failed_start_leaves_no_short_folder_behind(deep_folder: Path, empty_database: Database) -> None:
    short_dir = find_places(f"{deep_folder}/supervisor.yaml", None, {}).short_dir
    assert run(deep_folder, "--dsn", empty_database.dsn).returncode == 75
    assert short_dir is not None
    assert not short_dir.exists()


def test_a_daemon_in_a_deep_folder_is_found_by_commands_and_leaves_nothing_elsewhere(deep_folder: Path) -> None:
    daemon = subprocess.Popen(program("run"), cwd=deep_folder, env=environment(), stderr=subprocess.PIPE, start_new_session=True)
    try:
        eventually(lambda: command(deep_folder, "stats").returncode == 0, timeout=60, what="the daemon and its database answer")
        record = read_record(deep_folder / ".reproq/run/daemon.json")
        assert record is not None
        assert record.pid == daemon.pid
        elsewhere = [Path(record.control_socket).parent, *map(Path, parse_qs(urlsplit(record.dsn or "").query)["host"])]
        assert [path.exists() for path in elsewhere] == [True, True]
        assert command(deep_folder, "stop", "--quick").returncode == 0
        assert daemon.wait(10) == 0
        assert [path.exists() for path in elsewhere] == [False, False]
    finally:
        daemon.send_signal(signal.SIGQUIT)
        daemon.communicate(timeout=30)
