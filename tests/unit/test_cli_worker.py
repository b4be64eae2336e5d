"""`worker` on the command line: Go's syntax for flags, its exit codes, and folders of its own."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.cli import places
from reproq_supervisor.cli.daemon.record import DaemonRecord, find_record
from reproq_supervisor.cli.daemon.start import Launch
from reproq_supervisor.cli.places import WORKER_PREFIX, private_worker_folders
from reproq_supervisor.cli.worker import command, folders
from reproq_supervisor.cli.worker.folders import make_folder
from tests.support.program import enter_empty_surroundings, run_program

VARIABLES = ("WORKER_ID", "QUEUE_NAMES", "ALLOWED_TASK_MODULES", "LOW_MEMORY_MODE", "DJANGO_SETTINGS_MODULE", "METRICS_ADDR")


@pytest.fixture
def parent() -> Iterator[Path]:
    """Where workers make their folders: the path of a socket must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(places, "worker_parent", lambda: parent)
    monkeypatch.setattr(folders, "worker_parent", lambda: parent)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What would have been started."""
    found: list[Launch] = []
    monkeypatch.setattr(command, "start", found.append)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("--concurrency", "3", "--queues", "a,b", "--dsn", "postgres://db/x"),
        ("-concurrency", "3", "-queues", "a,b", "-dsn", "postgres://db/x"),
        ("--concurrency=3", "-queues=a,b", "-dsn=postgres://db/x", "-logs-dir="),
    ],
)
def test_one_dash_or_two_with_or_without_an_equals_sign(launches: list[Launch], arguments: tuple[str, ...]) -> None:
    assert run_program("worker", *arguments).code == 0
    (launch,) = launches
    pool = launch.settings.pools["worker"]
    assert (pool.executors.max, list(pool.queues), launch.settings.database) == (3, ["a", "b"], "postgres://db/x")


@pytest.mark.parametrize("named", [("-c", "x.yaml"), ("-config", "x.yaml"), ("--config=x.yaml",)])
def test_a_file_is_named(launches: list[Launch], tmp_path: Path, named: tuple[str, ...]) -> None:
    Path("x.yaml").write_text("dsn: postgres://db/x\nworker: {worker_id: w}\n")
    assert run_program("worker", *named).code == 0
    (launch,) = launches
    assert (launch.config_path, launch.origin["worker_id"]) == (f"{tmp_path}/x.yaml", "w")
    assert launch.origin["contract"] == {"path": f"{tmp_path}/x.yaml", "flags": {}}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-h",), 0, "--concurrency N"),
        (("--help",), 0, "--concurrency N"),
        (("-nope", "1"), 2, "flag provided but not defined: -nope"),
        (("--concurrency", "x"), 2, 'invalid value "x" for flag -concurrency: parse error'),
        (("--metrics-auth-window", "5"), 2, 'invalid value "5" for flag -metrics-auth-window: parse error'),
        (("--concurrency",), 2, "flag needs an argument: -concurrency"),
        (("default",), 2, "expected flags only, got 'default'"),
        ((), 1, "expected the URL of a database"),
        (("--dsn", "embedded"), 1, "an embedded one comes with: reproq-supervisor run"),
        (("--dsn", "postgres://db/x", "--concurrency", "-1"), 1, "--concurrency: expected at least 1"),
        (("--dsn", "postgres://db/x", "--payload-mode", "fax"), 1, "--payload-mode: expected one of stdin, file, inline"),
        (("--dsn", "postgres://db/x", "--config", "none.yaml"), 1, "expected a file, found none"),
    ],
)
def test_exit_codes_are_those_of_the_contract(launches: list[Launch], arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run_program("worker", *arguments)
    assert (done.code, launches) == (code, [])
    assert words in done.out + done.err


def test_what_is_not_there_yet_is_accepted_and_told_in_one_line(launches: list[Launch]) -> None:
    done = run_program("worker", "--dsn", "postgres://db/x", "--metrics-port", 9090, "--metrics-auth-token", "hush")
    assert (done.code, len(launches)) == (0, 1)
    (line,) = done.err.splitlines()
    assert "--metrics-port, --metrics-auth-token: accepted" in line
    assert "hush" not in line


def test_low_memory_is_for_every_process(launches: list[Launch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOW_MEMORY_MODE", "1")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    try:
        run_program("worker", "--dsn", "postgres://db/x")
        assert (os.environ["MALLOC_TRIM_THRESHOLD_"], os.environ["MALLOC_ARENA_MAX"]) == ("131072", "1"), "what is set stays"
    finally:
        os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    assert not launches[0].settings.store.listen


# Folders


def record(folder: Path, pid: int, control_socket: str, config: str | None = None) -> None:
    DaemonRecord(pid, config, control_socket, "postgres://db/x").write(folder / "daemon.json")


def test_a_deep_folder_for_temporary_files_is_too_long_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "d" * 80)
    assert places.worker_parent() == Path("/tmp")


def test_workers_of_one_place_do_not_meet(tmp_path: Path) -> None:
    (one, ones), (other, _) = make_folder({}), make_folder({})
    assert one.control_socket != other.control_socket
    assert one.runtime_dir.stat().st_mode & 0o777 == 0o700
    assert ones == (str(one.runtime_dir),), "it goes with the worker"
    given, goes = make_folder({"RUNTIME_DIRECTORY": f"{tmp_path}/run"})
    assert (given.control_socket, goes) == (tmp_path / "run/control.sock", ())


def test_commands_find_a_worker_by_its_file(tmp_path: Path) -> None:
    mine, _ = make_folder({})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(mine.control_socket))
        server.listen()
        record(mine.runtime_dir, 4711, str(mine.control_socket), f"{tmp_path}/reproq.yaml")
        found = find_record("reproq.yaml", {})
        assert found is not None
        assert (found.pid, found.answers) == (4711, True)
        assert find_record("other.yaml", {}) is None
        assert find_record("reproq.yaml", {}, workers=False) is None, "it keeps no daemon from starting"


def test_what_a_killed_worker_left_is_removed_and_nothing_else(parent: Path) -> None:
    dead, living, starting = (make_folder({})[0].runtime_dir for _ in range(3))
    record(dead, _pid_of_nobody(), str(dead / "control.sock"))
    record(living, os.getpid(), str(living / "control.sock"))
    strangers = parent / f"{WORKER_PREFIX}x"
    strangers.mkdir(mode=0o777)
    strangers.chmod(0o777)
    record(strangers, _pid_of_nobody(), "/nowhere")
    assert strangers not in private_worker_folders(), "anybody may write there"
    make_folder({})
    assert [each.exists() for each in (dead, living, starting, strangers)] == [False, True, True, True]


def _pid_of_nobody() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())  # one more than the largest


def test_the_program_is_also_called_reproq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/reproq"])
    assert "Usage: reproq worker" in run_program("worker", "-h").out


def test_a_flag_that_fails_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
    def fail(launch: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(command, "start", fail)
    assert run_program("worker", "--dsn", "postgres://db/x").code == 1
    assert list(parent.glob(f"{WORKER_PREFIX}*")) == []
