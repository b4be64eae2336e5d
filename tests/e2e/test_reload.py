"""Reload as one transaction: all of it or nothing, and what works is never taken down."""

import signal
import stat
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.supervisor.client import ControlClient
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.somebody import as_somebody_else, folder_of_somebody_else, why_no_file_can_be_refused

StartDaemon = Callable[..., Daemon]

BROKEN = {
    "broken YAML": "pools: {default: [",
    "an unknown key": "database: {dsn}\npools: {{default: {{queus: [default]}}}}\n",
    "a wrong type": "database: {dsn}\npools: {{default: {{queues: [default], executors: many}}}}\n",
    "an empty file": "",
}


def work(database: Database, count: int, *args: object, task: str = "echo") -> list[int]:
    with database.connect(autocommit=True) as connection:
        return list(enqueue(connection, [NewRun(f"workers.demo.tasks.{task}", args=list(args)) for _ in range(count)]))


def wait_done(database: Database, ids: list[int]) -> None:
    statement = "SELECT count(*) FROM task_runs WHERE result_id = ANY (%s) AND status = 'SUCCESSFUL'"
    eventually(lambda: database.query(statement, ids) == [(len(ids),)], timeout=60, what="the tasks are done")


@contextmanager
def open_to_everybody(socket_dir: Path) -> Iterator[None]:
    """Let a daemon of somebody else speak to the tests' server, whose socket is for its user alone."""
    places = [socket_dir, *socket_dir.glob(".s.PGSQL.*[0-9]")]
    modes = [stat.S_IMODE(place.stat().st_mode) for place in places]
    for place in places:
        place.chmod(0o777)
    try:
        yield
    finally:
        for place, mode in zip(places, modes, strict=True):
            place.chmod(mode)


def assert_same_processes(daemon: Daemon, before: dict[int, str]) -> None:
    """Nothing was started, ended or replaced; the process that read the file may still be on its way out."""
    eventually(lambda: daemon.processes() == before, timeout=10, what=f"the processes are the same as before: {before}")


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_changes_nothing_and_is_explained(what: str, start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    before = daemon.processes()
    daemon.config_path.write_text(BROKEN[what].replace("{dsn}", database.dsn).replace("{{", "{").replace("}}", "}"))
    refused = daemon.command("reload")
    assert refused.returncode == 78, refused
    assert "supervisor.yaml" in refused.stderr
    assert_same_processes(daemon, before)
    wait_done(database, work(database, 3))


def test_every_problem_of_a_file_is_told_at_once(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    daemon.config_path.write_text(
        textwrap.dedent(f"""\
            database: {database.dsn}
            shutdown_timeout: soon
            pools:
              default:
                queus: [default]
                executors: many
            """)
    )
    refused = daemon.command("reload")
    assert refused.returncode == 78
    for piece in ("shutdown_timeout", "queus", "queues", "executors", "yaml:2:", "yaml:5:", "yaml:6:"):
        assert piece in refused.stderr, (piece, refused.stderr)


def test_an_unreadable_file_changes_nothing(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    before = daemon.processes()
    daemon.config_path.unlink()
    daemon.config_path.mkdir()  # unreadable as a file for root, too
    refused = daemon.command("reload")
    assert refused.returncode in (1, 78), refused
    assert refused.stderr
    assert_same_processes(daemon, before)


@pytest.mark.skipif(why_no_file_can_be_refused() is not None, reason=str(why_no_file_can_be_refused()))
def test_a_file_that_the_daemon_may_no_longer_read_changes_nothing(start_daemon: StartDaemon, database: Database) -> None:
    with folder_of_somebody_else() as folder, open_to_everybody(Path(database.cluster.embedded.socket_dir)):
        places = {"STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder / "run")}
        daemon = start_daemon(demo_config(database.dsn), env=places, view=as_somebody_else())
        before = daemon.processes()
        daemon.config_path.chmod(0)
        refused = daemon.command("reload")
        assert refused.returncode == 78, refused
        assert f"{daemon.config_path}: expected a readable file: Permission denied" in refused.stderr
        assert_same_processes(daemon, before)
        daemon.config_path.chmod(0o644)
        assert daemon.command("reload").returncode == 0
        wait_done(database, work(database, 3))
        daemon.stop()


def test_a_change_of_size_touches_no_running_executor(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    busy = work(database, 2, 3.0, task="nap")
    before = daemon.processes()
    daemon.configure(demo_config(database.dsn, pool={"executors": 4}))
    changed = daemon.command("reload")
    assert changed.returncode == 0, changed
    eventually(lambda: len(daemon.pids("executor")) == 4, what="two executors more")
    assert set(before) <= set(daemon.processes())
    wait_done(database, busy)
    assert database.query("SELECT DISTINCT attempts FROM task_runs") == [(1,)]


def test_a_release_that_crashes_on_import_is_rolled_back_and_explained(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    before = daemon.processes()
    (tmp_path / "bad_release.py").write_text("raise RuntimeError('this release is broken')\n")
    config = demo_config(database.dsn)
    config["app"] = {"path": [str(tmp_path), str(CHECKOUT)], "preload": ["bad_release"], "allowed_task_modules": ["workers.demo."]}
    daemon.configure(config)
    refused = daemon.command("reload")
    assert refused.returncode == 1, refused
    assert "this release is broken" in refused.stderr
    eventually(lambda: set(daemon.processes()) == set(before), what="only the old processes are left")
    explained = daemon.command("explain", "default")
    assert "this release is broken" in explained.stdout
    wait_done(database, work(database, 3))


def test_an_unknown_module_is_refused(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    before = daemon.processes()
    config = demo_config(database.dsn)
    config["app"] = {"path": [str(CHECKOUT)], "preload": ["no_such_module_anywhere"], "allowed_task_modules": ["workers.demo."]}
    daemon.configure(config)
    refused = daemon.command("reload")
    assert refused.returncode in (1, 78)
    assert "no_such_module_anywhere" in refused.stderr
    eventually(lambda: set(daemon.processes()) == set(before), what="only the old processes are left")


def test_a_new_release_takes_over_without_losing_or_counting_anything(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    old = daemon.pids("shard")
    ids = work(database, 60, 0.2, task="nap")
    daemon.configure(demo_config(database.dsn, pool={"executors": 2, "env": {"RELEASE": "2"}}))
    changed = daemon.command("reload")
    assert changed.returncode == 0, changed
    eventually(lambda: daemon.pids("shard") and not set(daemon.pids("shard")) & set(old), timeout=30, what="a new shard, the old one gone")
    wait_done(database, ids)
    assert database.query("SELECT DISTINCT attempts FROM task_runs") == [(1,)]


def test_a_dry_run_says_what_would_change_and_changes_nothing(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    before = daemon.processes()
    daemon.configure(demo_config(database.dsn, pool={"executors": 3, "env": {"RELEASE": "2"}}))
    plan = {(change["key"], change["class"]) for change in daemon.answer("reload", "--dry-run")["plan"]}
    assert {"live", "rolling"} <= {kind for _, kind in plan}, plan
    assert any("executors" in key for key, kind in plan if kind == "live"), plan
    assert_same_processes(daemon, before)


def test_ten_reloads_at_once_coalesce_and_each_gets_an_answer(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    daemon.configure(demo_config(database.dsn, pool={"executors": 2, "env": {"RELEASE": "2"}}))
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: daemon.command("reload"), range(10)))
    assert {answer.returncode for answer in answers} == {0}, answers
    eventually(lambda: len(daemon.pids("shard")) == 1, timeout=30, what="one shard is left")
    wait_done(database, work(database, 3))


def test_a_hangup_reloads_and_is_noted(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 1}))
    daemon.configure(demo_config(database.dsn, pool={"executors": 3}))
    daemon.signal(signal.SIGHUP)
    daemon.wait_noted("RELOADING=1")
    daemon.wait_noted("READY=1")
    eventually(lambda: len(daemon.pids("executor")) == 3, what="three executors")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_reloads_leave_descriptors_and_processes_flat(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    control = ControlClient(str(daemon.folder / ".reproq/run/control.sock"))

    def reload(config: dict[str, Any]) -> None:
        daemon.configure(config)
        # Without a command in between: two hundred interpreters more would test nothing.
        answer = control.request({"command": "reload"}, timeout_s=120)
        assert answer["ok"], answer

    def descriptors() -> dict[str, int]:
        return {
            kind: sum(psutil.Process(pid).num_fds() for pid in daemon.pids(kind)) for kind in ("supervisor", "shard", "nursery", "keeper")
        }

    def settle() -> None:
        # A reload is answered when what it asked for is under way: the third executor may still be coming.
        expected = {"supervisor": 1, "keeper": 1, "shard": 1, "nursery": 1, "executor": 3}
        eventually(lambda: Counter(daemon.processes().values()) == expected, timeout=60, what=f"just {expected}")

    # Sizes are live; every twentieth reload is a new release.
    for turn in range(200):
        release = str(turn // 20)
        reload(demo_config(database.dsn, pool={"executors": 2 + turn % 2, "env": {"RELEASE": release}}))
        if turn == 19:
            settle()
            first = descriptors()
    settle()
    # Fewer, where the loader of a reload was just leaving at first.
    eventually(
        lambda: all(count <= first[kind] for kind, count in descriptors().items()), timeout=60, what=f"no more descriptors than {first}"
    )


def test_a_supervisor_killed_in_the_middle_of_a_reload_leaves_nothing(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    (tmp_path / "slow_release.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'importing')!r}).touch()\ntime.sleep(600)\n"
    )
    config = demo_config(database.dsn)
    config["app"] = {"path": [str(tmp_path), str(CHECKOUT)], "preload": ["slow_release"], "allowed_task_modules": ["workers.demo."]}
    daemon.configure(config)
    daemon.signal(signal.SIGHUP)
    eventually((tmp_path / "importing").exists, timeout=30, what="the new release is being imported")
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(timeout=20)
