"""Which database a command means: what it is told, then what the running daemon uses, then the file."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.cli.daemon.control import ask
from reproq_supervisor.cli.daemon.record import DaemonRecord, NoDaemonError, how_to_start
from reproq_supervisor.cli.database import find_dsn
from reproq_supervisor.cli.options import Options
from reproq_supervisor.cli.output import Output
from reproq_supervisor.settings.problems import ConfigError
from tests.support.program import enter_empty_surroundings

DAEMONS = "postgresql://app:secret@daemons/x"
FILES = "postgresql://files/x"


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)
    (tmp_path / "supervisor.yaml").write_text(f"database: {FILES}\n")


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield path


def record(tmp_path: Path, control_socket: str, dsn: str = DAEMONS, *, embedded: bool = False) -> Path:
    path = tmp_path / ".reproq/run/daemon.json"
    path.parent.mkdir(parents=True)
    DaemonRecord(os.getpid(), f"{tmp_path}/supervisor.yaml", control_socket, dsn, embedded).write(path)
    return path


def options(dsn: str | None = None) -> Options:
    return Options("supervisor.yaml", dsn, Output())


def credential(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "dsn").write_text(text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))


def test_a_daemon_that_was_started_with_another_database_is_asked_for_it(tmp_path: Path, listening: str) -> None:
    record(tmp_path, listening)
    assert find_dsn(options()) == DAEMONS


def test_the_record_of_a_dead_daemon_decides_nothing(tmp_path: Path) -> None:
    record(tmp_path, f"{tmp_path}/gone.sock")
    assert find_dsn(options()) == FILES


def test_what_is_said_for_the_command_is_stronger_than_the_daemon(tmp_path: Path, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, listening)
    credential(tmp_path, "postgresql://credential/x\n", monkeypatch)
    assert find_dsn(options()) == "postgresql://credential/x"
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/x")
    assert find_dsn(options()) == "postgresql://environment/x"
    assert find_dsn(options("postgresql://flag/x")) == "postgresql://flag/x"


def test_embedded_means_a_daemon_that_runs_one(tmp_path: Path, listening: str) -> None:
    path = record(tmp_path, listening)
    with pytest.raises(NoDaemonError, match="reproq-supervisor run"):
        find_dsn(options("embedded"))
    DaemonRecord(os.getpid(), f"{tmp_path}/supervisor.yaml", listening, "postgresql:///own", embedded=True).write(path)
    assert find_dsn(options("embedded")) == "postgresql:///own"


def test_a_daemon_that_ends_in_the_middle_of_a_request_is_not_called_hung(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    record(tmp_path, path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def leave() -> None:
            while True:
                connection = server.accept()[0]
                with connection:
                    if connection.recv(4096):
                        return

        thread = threading.Thread(target=leave)
        thread.start()
        with pytest.raises(NoDaemonError, match="it ended while it was at this"):
            ask(options(), "reload", timeout_s=None)
        thread.join()


def test_only_its_user_may_read_a_record(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = record(tmp_path, "/s")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_credential_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "dsn").mkdir()
    with pytest.raises(ConfigError, match="expected a file, got a folder"):
        find_dsn(options())


def test_a_credential_that_may_be_there_is_no_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "file"))  # as unreadable for root as for others
    with pytest.raises(ConfigError, match="expected a readable file"):
        find_dsn(options())


def test_the_file_of_a_worker_names_a_database_too(tmp_path: Path) -> None:
    (tmp_path / "reproq.yaml").write_text("dsn: postgres://top/x\nworker: {dsn: 'postgres://worker/x?pool_max_conns=2'}\n")
    assert find_dsn(Options("reproq.yaml", None, Output())) == "postgres://worker/x"
    (tmp_path / "worker.toml").write_text("[worker]\nconcurrency = 3\n")
    with pytest.raises(ConfigError, match="dsn: expected the URL of a database"):
        find_dsn(Options("worker.toml", None, Output()))


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (None, "reproq-supervisor run -c supervisor.yaml"),
        ("app.yaml", "reproq-supervisor run -c app.yaml"),
        ("reproq.yaml", "reproq-supervisor worker -c reproq.yaml"),
        ("/etc/app.toml", "reproq-supervisor worker -c /etc/app.toml"),
    ],
)
def test_whoever_finds_no_daemon_is_told_how_to_start_it(config: str | None, command: str) -> None:
    assert how_to_start(Options(config, None, Output())) == command
