"""The guard of the embedded PostgreSQL: tells whether it is alive, ends it as it is told, and leaves nothing of it."""

import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.process.embedded import Embedded, prepare
from reproq_supervisor.process.guard import guard_argv
from reproq_supervisor.process.probe import SOCKET_NAME
from reproq_supervisor.process.spawn import SpawnedChild, spawn_child
from tests.support.eventually import eventually
from tests.support.living import living
from tests.support.postgres import chosen_bin_dir

pytestmark = pytest.mark.postgres
HANG_S = 30.0


class Guarded:
    """A guard and its server, and all that the guard says."""

    def __init__(self, embedded: Embedded, log_fd: int | None = None) -> None:
        argv = guard_argv(embedded.argv, user=embedded.user, socket_path=f"{embedded.socket_dir}/{SOCKET_NAME}")
        self.child: SpawnedChild = spawn_child(argv, os.environ, stderr=log_fd)
        self.child.channel.setblocking(False)
        self._reader = FrameReader()
        self.messages: list[dict[str, Any]] = []
        self.wait_said("ready")
        self.server = psutil.Process(int(Path(embedded.data_dir, "postmaster.pid").read_text().split()[0]))

    def read(self) -> list[dict[str, Any]]:
        while (
            self.child.channel.fileno() >= 0
            and select.select([self.child.channel], [], [], 0)[0]
            and (data := self.child.channel.recv(65536))
        ):
            self.messages += self._reader.feed_messages(data)
        return self.messages

    def wait_said(self, kind: str, times: int = 1) -> None:
        eventually(lambda: self.said(kind) >= times, timeout=HANG_S, what=f"{times} {kind}")

    def said(self, kind: str) -> int:
        return [message["type"] for message in self.read()].count(kind)

    def processes(self) -> list[psutil.Process]:
        """Return every process of the server."""
        return [self.server, *self.server.children(recursive=True)]

    def signal(self, signum: signal.Signals) -> None:
        signal.pidfd_send_signal(self.child.pidfd, signum)

    def wait_exit(self) -> int:
        """Return its exit code, negative for a signal."""
        assert select.select([self.child.pidfd], [], [], HANG_S)[0], "the guard is still there"
        self.read()
        ended = os.waitid(os.P_PIDFD, self.child.pidfd, os.WEXITED)
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def close(self) -> None:
        """End it, if it has not ended, and see that it is reaped: a dead server's pid in its lock file keeps the next one from starting."""
        self.child.channel.close()
        with suppress(ProcessLookupError, ChildProcessError):
            self.wait_exit()
        os.close(self.child.pidfd)


def wait_gone(processes: list[psutil.Process]) -> None:
    eventually(lambda: not living(processes), timeout=HANG_S, what="nothing of the server is left")


Start = Callable[..., Guarded]


@pytest.fixture(scope="module")
def embedded() -> Iterator[Embedded]:
    folder = Path(tempfile.mkdtemp(prefix="reproq-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield prepare(folder / "data", runtime_dir=folder, bin_dir=chosen_bin_dir(), durable=False)
    shutil.rmtree(folder)


@pytest.fixture
def start(embedded: Embedded) -> Iterator[Start]:
    started: list[Guarded] = []
    everything: list[psutil.Process] = []

    def start_one(log_fd: int | None = None) -> Guarded:
        guarded = Guarded(embedded, log_fd)
        started.append(guarded)
        everything.extend(guarded.processes())
        return guarded

    yield start_one
    for guarded in started:
        guarded.close()
    assert not living(everything)


def test_it_beats_while_the_server_answers(start: Start) -> None:
    guarded = start()
    guarded.wait_said("beat", 2)
    assert [message["type"] for message in guarded.messages[:2]] == ["hello", "ready"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGQUIT, 0)])
def test_it_passes_on_how_the_server_is_to_end(start: Start, signum: signal.Signals, code: int) -> None:
    guarded = start()
    processes = guarded.processes()
    guarded.signal(signum)
    # On a busy machine the kill may cut an immediate shutdown short.
    assert guarded.wait_exit() in ((code,) if signum is not signal.SIGQUIT else (code, 70))
    wait_gone(processes)


def test_a_server_that_was_killed_is_told_and_nothing_of_it_is_left(start: Start) -> None:
    guarded = start()
    processes = guarded.processes()
    guarded.server.kill()
    assert guarded.wait_exit() == 70
    assert guarded.messages[-1] == {"type": "failed", "reason": "the server was killed by signal 9", "permanent": False}
    wait_gone(processes)


@pytest.mark.parametrize("which", ["server", "child"])
def test_it_does_not_beat_for_a_frozen_server_nor_for_one_with_a_frozen_child(start: Start, which: str) -> None:
    guarded = start()
    (guarded.server if which == "server" else guarded.server.children()[0]).suspend()
    eventually(lambda: guarded.said("event"), timeout=HANG_S, what="the trouble is told")
    event = next(message["event"] for message in guarded.messages if message["type"] == "event")
    assert event["name"] == "postgres.not_answering"
    beats = guarded.said("beat")
    processes = guarded.processes()
    guarded.signal(signal.SIGQUIT)
    assert guarded.wait_exit() == 70
    assert guarded.said("beat") == beats
    report = next(m["event"] for m in guarded.messages if m["type"] == "event" and m["event"]["name"] == "postgres.processes")
    assert " T " in report["error"]
    wait_gone(processes)


@pytest.mark.parametrize("frozen", ["nobody", "server", "children", "everything"])
def test_nothing_is_left_when_the_supervisor_is_gone_whoever_is_frozen(start: Start, frozen: str) -> None:
    guarded = start()
    processes = guarded.processes()
    if frozen in ("server", "everything"):
        guarded.server.suspend()
    if frozen in ("children", "everything"):
        for child in guarded.server.children():
            child.suspend()
    guarded.child.channel.close()
    began = time.monotonic()
    assert guarded.wait_exit() in (0, 70)
    wait_gone(processes)
    # On an idle machine half a second; two seconds are the promise, the rest is for the machine.
    assert time.monotonic() - began < 15.0


def test_a_thawed_server_is_taken_back(start: Start) -> None:
    guarded = start()
    guarded.server.suspend()
    eventually(lambda: guarded.said("event"), timeout=HANG_S, what="the trouble is told")
    guarded.server.resume()
    guarded.wait_said("beat", guarded.said("beat") + 1)


@contextmanager
def logging_to(path: Path) -> Iterator[int]:
    """Let this process, the guard's parent, log to *path* for the block."""
    fd, before = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC), os.dup(2)
    os.dup2(fd, 2)
    try:
        yield fd
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(fd)


def can_connect(embedded: Embedded) -> bool:
    try:
        psycopg.connect(embedded.dsn, dbname="postgres").close()
    except psycopg.OperationalError:  # a server that is still recovering answers, and refuses
        return False
    return True


def test_what_the_server_writes_follows_a_log_that_was_moved(start: Start, embedded: Embedded, tmp_path: Path) -> None:
    def complain(words: str) -> None:
        with psycopg.connect(embedded.dsn, dbname="postgres") as connection, suppress(psycopg.errors.RaiseException):
            connection.execute(f"DO $$ BEGIN RAISE EXCEPTION '{words}'; END $$")

    first, second = tmp_path / "log.1", tmp_path / "log"
    with logging_to(first) as fd:
        guarded = start(fd)
        eventually(lambda: can_connect(embedded), what="it accepts connections")
        complain("before the move")
        eventually(lambda: "before the move" in first.read_text(), what="it is in the log")
    with logging_to(second):
        guarded.child.channel.send(encode_message({"type": "reopen"}))
        eventually(lambda: Path(f"/proc/{guarded.child.pid}/fd/2").readlink() == second, what="the guard has followed")
        complain("after the move")
        eventually(lambda: "after the move" in second.read_text(), what="it is in the new log")
    assert "after the move" not in first.read_text()
    guarded.signal(signal.SIGINT)
    assert guarded.wait_exit() == 0
    assert "database system is shut down" in second.read_text(), "its last words"


def test_a_server_whose_guard_was_killed_needs_no_log(start: Start, tmp_path: Path) -> None:
    with logging_to(tmp_path / "log") as fd:
        guarded = start(fd)
    processes = guarded.processes()
    guarded.signal(signal.SIGKILL)
    wait_gone(processes)
