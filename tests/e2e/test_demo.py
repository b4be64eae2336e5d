"""The demo as somebody runs it who has just cloned the repository: the first integration test of everything."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.cli.places import find_places
from tests.support.demo import Checkout, checkout, finish, finish_json
from tests.support.eventually import eventually
from tests.support.marked import children_of, state_of

# Enough for both queues to have work, few enough to be quick.
FILES = 60
KINDS = {"survived", "app_error", "bad_result", "security_violation", "timeout", "worker_crashed"}


@pytest.fixture
def here() -> Iterator[Checkout]:
    """A checkout for one test."""
    with checkout() as made:
        yield made


def assert_nothing_is_left(here: Checkout) -> None:
    assert here.processes() == {}
    assert here.folders == []


@pytest.mark.slow
def test_a_demo_measures_every_file_and_survives_every_mischief(here: Checkout) -> None:
    report = finish_json(here.start("--json", "--limit", str(FILES)))
    assert report["ok"] is True
    assert report["surprises"] == []
    assert report["totals"]["files"] == FILES
    assert set(report["misbehaved"]) == KINDS
    assert report["files_per_s"] > 0
    assert_nothing_is_left(here)


@pytest.mark.slow
def test_a_demo_tells_people_what_it_does_and_found(here: Checkout) -> None:
    code, out, err = finish(here.start("--limit", str(FILES)))
    assert code == 0, err or out
    for told in (f"{FILES} source files", "small ", "Everything is as expected", "worker_crashed", "files a second"):
        assert told in out
    assert err == ""
    assert "\x1b" not in out, "no colour and no cursor movement in a pipe"


@pytest.mark.slow
def test_a_deep_checkout_with_a_space_leaves_nothing_in_the_temporary_folder_either() -> None:
    with checkout(f"x y/{'d' * 100}/{'e' * 90}") as deep:
        assert finish_json(deep.start("--json", "--limit", "5", "--keep"))["surprises"] == []
        assert deep.processes() == {}
        control_socket = find_places(str(deep.folders[0] / "demo.yaml"), None, {}).control_socket
        listening = re.search(r'Unix socket "([^"]+)"', (deep.folders[0] / "daemon.log").read_text())
        assert listening is not None
        short = [control_socket.parent, Path(listening[1]).parent]
    assert [path.parent for path in short] == [Path("/tmp")] * 2
    assert not any(path.exists() for path in short)


@pytest.mark.slow
def test_two_demos_at_once_in_one_checkout_do_not_meet(here: Checkout) -> None:
    demos = [here.start("--json", "--limit", str(FILES)) for _ in range(2)]
    assert [finish_json(demo)["ok"] for demo in demos] == [True, True]
    assert_nothing_is_left(here)


@pytest.mark.slow
def test_what_is_to_be_kept_is_kept(here: Checkout) -> None:
    report = finish_json(here.start("--json", "--limit", "5", "--keep"))
    (folder,) = here.folders
    assert report["kept"] == str(folder)
    assert {"daemon.log", "demo.yaml", "logs", ".reproq"} <= {path.name for path in folder.iterdir()}
    assert here.processes() == {}


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_an_interrupted_demo_leaves_nothing_behind(here: Checkout, signum: signal.Signals) -> None:
    demo = here.start()
    _wait_for_work(demo)
    os.killpg(demo.pid, signum)
    code, _, err = finish(demo)
    assert code == 130
    assert "stopping the daemon" in err
    assert_nothing_is_left(here)


@pytest.mark.slow
def test_a_second_interruption_does_not_wait_for_running_tasks(here: Checkout) -> None:
    demo = here.start("--keep")
    _wait_for_work(demo)
    for signum in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):  # both arrive before it can act on one
        demo.send_signal(signum)
    assert finish(demo)[0] == 130
    assert "quick=true" in (here.folders[0] / "daemon.log").read_text()
    assert here.processes() == {}


@pytest.mark.slow
def test_a_demo_that_is_interrupted_before_the_daemon_is_up_leaves_nothing_behind(here: Checkout) -> None:
    demo = here.start()
    eventually(lambda: here.folders and (here.folders[0] / ".reproq").exists(), what="the daemon makes its folders")
    os.killpg(demo.pid, signal.SIGINT)
    assert finish(demo)[0] == 130
    assert_nothing_is_left(here)


@pytest.mark.slow
def test_the_daemon_of_a_demo_that_was_killed_goes_too(here: Checkout) -> None:
    demo = here.start()
    _wait_for_work(demo)
    demo.kill()
    demo.wait(10)
    eventually(lambda: not here.processes(), timeout=20, what="no process is left")


@pytest.mark.slow
def test_a_daemon_that_dies_is_reported_with_the_end_of_its_log(here: Checkout) -> None:
    demo = here.start()
    _wait_for_work(demo)
    (daemon,) = [pid for pid in children_of(demo.pid) if state_of(pid) != "Z"]
    os.kill(daemon, signal.SIGKILL)
    code, _, err = finish(demo)
    assert code == 1
    assert "exit code -9\n" in err
    assert "the end of the daemon's log:" in err
    assert_nothing_is_left(here)


def test_a_demo_has_its_own_configuration_and_database(here: Checkout) -> None:
    code, _, err = finish(here.start("--dsn", "postgresql://nobody@nowhere/x"))
    assert code == 2
    assert "--dsn: expected none" in err
    assert_nothing_is_left(here)


def test_an_installed_package_says_that_a_demo_needs_a_checkout(here: Checkout) -> None:
    shutil.rmtree(here.folder / "config")
    code, _, err = finish(here.start())
    assert code == 1
    assert "expected config/demo.yaml" in err
    assert "make demo" in err


def _wait_for_work(demo: "subprocess.Popen[str]") -> None:
    """Read the demo's progress until tasks have ended."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if "small " in line and "small 0/" not in line:
            return
    raise AssertionError(f"the demo ended before it had progress: {demo.communicate()}")
