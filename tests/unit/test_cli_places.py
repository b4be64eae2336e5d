"""Where a daemon keeps its files, and how commands find it again."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reproq_supervisor.cli.daemon.record import DaemonRecord, find_control_socket, find_record, is_answering, read_record
from reproq_supervisor.cli.options import Options
from reproq_supervisor.cli.output import Output
from reproq_supervisor.cli.places import PlacesError, find_places, make_places, require_private


def test_files_are_beside_the_configuration_whatever_the_working_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = find_places("etc/supervisor.yaml", None, {})
    assert places.data_dir == tmp_path / "etc/.reproq/postgres"
    assert places.control_socket == tmp_path / "etc/.reproq/run/control.sock"
    assert find_places(None, None, {}).state_dir == tmp_path / ".reproq"


def test_systemd_names_the_folders(tmp_path: Path) -> None:
    places = find_places("/etc/x.yaml", None, {"STATE_DIRECTORY": f"{tmp_path}/state:/other", "RUNTIME_DIRECTORY": f"{tmp_path}/run"})
    assert (places.state_dir, places.runtime_dir) == (tmp_path / "state", tmp_path / "run")


def test_a_named_socket_is_relative_to_the_file(tmp_path: Path) -> None:
    assert find_places(f"{tmp_path}/x.yaml", "s.sock", {}).control_socket == tmp_path / "s.sock"
    assert find_places(f"{tmp_path}/x.yaml", "/run/s.sock", {}).control_socket == Path("/run/s.sock")


def test_a_path_too_long_for_a_socket_leads_to_the_same_short_folder_every_time(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    places = find_places(f"{deep}/x.yaml", None, {})
    assert places == find_places(f"{deep}/x.yaml", None, {})
    assert places.short_dir == places.control_socket.parent
    assert len(os.fsencode(places.control_socket)) <= 107
    assert places.control_socket != find_places(f"{deep}/f/x.yaml", None, {}).control_socket
    try:
        make_places(places, passable=False)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(places.control_socket))
        places.control_socket.unlink()
    finally:
        places.short_dir.rmdir()


def test_folders_are_closed_to_others(tmp_path: Path) -> None:
    places = find_places(f"{tmp_path}/x.yaml", None, {})
    make_places(places, passable=False)
    assert [path.stat().st_mode & 0o777 for path in (places.state_dir, places.runtime_dir)] == [0o700, 0o700]


def test_folders_can_be_passed_through_when_the_database_runs_as_another_user(tmp_path: Path) -> None:
    places = find_places(f"{tmp_path}/x.yaml", None, {})
    make_places(places, passable=True)
    assert places.state_dir.stat().st_mode & 0o777 == 0o711


def test_what_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / ".reproq").mkdir(mode=0o750)
    make_places(find_places(f"{tmp_path}/x.yaml", None, {}), passable=False)
    assert (tmp_path / ".reproq").stat().st_mode & 0o777 == 0o750


def test_a_folder_that_cannot_be_made_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / ".reproq").write_text("a file in the way")
    with pytest.raises(PlacesError, match="set STATE_DIRECTORY and RUNTIME_DIRECTORY"):
        make_places(find_places(f"{tmp_path}/x.yaml", None, {}), passable=False)


def test_a_named_socket_that_is_too_long_is_refused(tmp_path: Path) -> None:
    places = find_places(f"{tmp_path}/x.yaml", "s" * 108, {})
    with pytest.raises(PlacesError, match="at most 107 bytes"):
        make_places(places, passable=False)


def test_a_folder_that_others_can_write_to_or_a_link_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(PlacesError, match="closed to others"):
            require_private(tmp_path / name)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    """Path of a socket that somebody listens on."""
    with socket.socket(socket.AF_UNIX) as server:
        path = str(tmp_path / "live.sock")
        server.bind(path)
        server.listen()
        yield path


def _record(tmp_path: Path, control_socket: str, config_path: str | None) -> DaemonRecord:
    record = DaemonRecord(4711, config_path, control_socket, None)
    (tmp_path / ".reproq/run").mkdir(parents=True, exist_ok=True)
    record.write(tmp_path / ".reproq/run/daemon.json")
    return record


def test_the_record_of_another_configuration_is_not_ours(tmp_path: Path) -> None:
    record = _record(tmp_path, "/s", f"{tmp_path}/a.yaml")
    assert find_record(f"{tmp_path}/a.yaml", {}) == record
    assert find_record(f"{tmp_path}/b.yaml", {}) is None


def test_a_living_daemon_is_found_before_a_dead_one(tmp_path: Path, listening: str) -> None:
    config = f"{tmp_path}/a.yaml"
    _record(tmp_path, listening, config)
    (tmp_path / "run").mkdir()
    DaemonRecord(4712, config, f"{tmp_path}/dead.sock", None).write(tmp_path / "run/daemon.json")
    found = find_record(config, {"RUNTIME_DIRECTORY": f"{tmp_path}/run"})
    assert found is not None
    assert found.pid == 4711


def test_a_daemon_that_accepts_nothing_is_there_all_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as server, ExitStack() as clients:
        server.bind(path)
        server.listen(0)
        for _ in range(2):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(path)
        assert is_answering(path)
    assert not is_answering(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 1, "who": 2}', "\x00"])
def test_a_broken_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "daemon.json").write_text(text)
    assert read_record(tmp_path / "daemon.json") is None


def test_what_the_daemon_wrote_down_counts_more_than_the_edited_file(tmp_path: Path, listening: str) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("{control: {socket: elsewhere.sock}}")
    _record(tmp_path, listening, str(config))
    assert find_control_socket(Options(str(config), None, Output()), {}) == listening


def test_without_a_living_daemon_the_file_says_where_it_would_be(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("{control: {socket: elsewhere.sock}}")
    options = Options(str(config), None, Output())
    _record(tmp_path, f"{tmp_path}/dead.sock", str(config))
    assert find_control_socket(options, {}) == f"{tmp_path}/elsewhere.sock"
    config.write_text("{")
    assert find_control_socket(options, {}) == f"{tmp_path}/.reproq/run/control.sock"
