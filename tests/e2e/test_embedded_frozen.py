"""The embedded database frozen, whole or in part: it is replaced and work goes on; with the supervisor killed nothing of it stays."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.living import living

StartDaemon = Callable[..., Daemon]

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


def start_embedded(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(demo_config("embedded"))


def server_of(daemon: Daemon) -> psutil.Process:
    return psutil.Process(int((daemon.folder / ".reproq/postgres/postmaster.pid").read_text().split()[0]))


def everything_of(server: psutil.Process) -> list[psutil.Process]:
    """Return the server with its children, which overwrite the environment that marks the processes of a test."""
    return [server, *server.children(recursive=True)]


def another_server(daemon: Daemon, than: psutil.Process) -> bool:
    try:
        return server_of(daemon) != than
    except (psutil.NoSuchProcess, IndexError):
        return False


@pytest.mark.parametrize("which", ["server", "checkpointer"])
def test_a_frozen_server_is_found_out_and_replaced(which: str, start_daemon: StartDaemon) -> None:
    daemon = start_embedded(start_daemon)
    server, supervisor = server_of(daemon), daemon.pid
    everything = everything_of(server)
    (server if which == "server" else next(child for child in everything if "checkpointer" in " ".join(child.cmdline()))).suspend()
    eventually(lambda: another_server(daemon, server), timeout=120, what="another server runs")
    assert not living(everything)
    # It recovers first, and refuses connections meanwhile.
    eventually(lambda: daemon.command("stats").returncode == 0, timeout=120, interval=0.5, what="it takes connections")
    task = daemon.answer("enqueue", "workers.demo.tasks.add", "--args", "[2, 3]")
    assert daemon.answer("result", str(task["ids"][0]), "--wait", "120s")["result"] == 5
    assert daemon.pids("supervisor") == [supervisor]
    assert "postgres.not_answering" in daemon.log
    assert "gave no sign of life" in daemon.log


@pytest.mark.parametrize("frozen", ["server", "server and guard"])
def test_nothing_is_alive_after_the_supervisor_was_killed_while_its_database_was_frozen(frozen: str, start_daemon: StartDaemon) -> None:
    daemon = start_embedded(start_daemon)
    everything = [*everything_of(server_of(daemon)), *(map(psutil.Process, daemon.pids("guard") if "guard" in frozen else []))]
    for process in everything:
        process.suspend()
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait_exit()
    # Two seconds are the promise; the rest is for the machine.
    daemon.wait_gone(timeout=20)
    eventually(lambda: not living(everything), timeout=20, what="no process of the server is left")
