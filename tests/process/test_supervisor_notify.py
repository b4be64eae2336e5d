"""What the service manager hears."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.supervised import NotifySocket, Supervised, fake

Make = Callable[..., Supervised]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    sock = NotifySocket(tmp_path, abstract=request.param == "abstract")
    yield sock
    sock.close()


def keys(manager: NotifySocket) -> list[str]:
    """Return the words that matter, in their order."""
    return [key for note in manager.read() for key in note if key in ("READY", "RELOADING", "STOPPING")]


def test_ready_reloading_ready_stopping(supervised: Make, manager: NotifySocket) -> None:
    daemon = supervised(env={"NOTIFY_SOCKET": manager.address}).start()
    assert keys(manager) == ["READY"]
    daemon.write_config({"mail": fake()})
    daemon.ask("reload")
    daemon.write_problems("broken")
    daemon.ask("reload")
    daemon.signal(signal.SIGTERM)
    daemon.wait_exit()
    assert keys(manager) == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert all("MONOTONIC_USEC" in note for note in manager.notes if "RELOADING" in note), "in the same datagram"
    refused = next(note for note in manager.notes if "refused" in note.get("STATUS", ""))
    assert refused["READY"] == "1"


def test_the_stop_timeout_is_extended_while_draining(supervised: Make, manager: NotifySocket) -> None:
    daemon = supervised({"mail": fake({"stays": True})}, env={"NOTIFY_SOCKET": manager.address}, shutdown_timeout=8.0).start()
    daemon.signal(signal.SIGTERM)
    eventually(lambda: sum("EXTEND_TIMEOUT_USEC" in note for note in manager.read()) >= 2, what="it is renewed")
    daemon.signal(signal.SIGQUIT)
    assert daemon.wait_exit() == 0


def test_the_watchdog_is_fed_only_when_it_watches_us(supervised: Make, manager: NotifySocket) -> None:
    daemon = supervised(env={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000"}).start()
    eventually(lambda: sum("WATCHDOG" in note for note in manager.read()) >= 3, what="it is fed")
    daemon.close()
    manager.notes.clear()
    other = supervised(env={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}).start()
    eventually(lambda: "READY" in keys(manager), what="it runs")
    other.close()
    assert not any("WATCHDOG" in note for note in manager.read())


def test_children_cannot_speak_for_us(supervised: Make, manager: NotifySocket) -> None:
    ours: dict[str, Any] = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    daemon = supervised(env=ours).start()
    for pid in daemon.pids().values():
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert not [name for name in ours if f"{name}=".encode() in environ]
