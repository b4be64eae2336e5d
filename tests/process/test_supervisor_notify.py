"""What the service manager hears."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.supervisor.notify import Notifier
from tests.support.eventually import eventually
from tests.support.supervised import NotifySocket, Supervised, fake

Make = Callable[..., Supervised]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    sock = NotifySocket(tmp_path, abstract=request.param == "abstract")
    yield sock
    sock.close()


def life(manager: NotifySocket) -> list[dict[str, str]]:
    """Return the datagrams that tell a change: others repeat themselves, for patience or the watchdog, as often as they must."""
    return [note for note in manager.read() if not note.keys() & {"EXTEND_TIMEOUT_USEC", "WATCHDOG"}]


def test_every_datagram_of_a_life(supervised: Make, manager: NotifySocket) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon = supervised(env=env).start()
    eventually(lambda: life(manager), what="it says that it is ready")
    daemon.write_config({"mail": fake(queues={"default": 2})})
    assert daemon.ask("reload")["ok"]
    daemon.write_problems("broken")
    assert not daemon.ask("reload")["ok"]
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0

    ready, reloading, reloaded, again, refused, stopping = life(manager)
    assert ready == {"READY": "1", "MAINPID": str(daemon.pid), "STATUS": "running"}
    assert (reloading.pop("RELOADING"), again.pop("RELOADING")) == ("1", "1")
    at = [int(note.pop("MONOTONIC_USEC")) for note in (reloading, again)]
    assert before < at[0] < at[1] < time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, "in the same datagram, of the manager's clock"
    assert (reloading, again) == ({"STATUS": "reload"}, {"STATUS": "reload"})
    assert reloaded == {"READY": "1", "STATUS": f"running, generation {reloaded['STATUS'].rpartition(' ')[2]}"}
    assert refused == {"READY": "1", "STATUS": "running; the last reload was refused: configuration:3: pools.mail: broken"}
    assert stopping == {"STOPPING": "1", "STATUS": "stopping: received TERM"}
    repeated = [note for note in manager.notes if note.keys() & {"EXTEND_TIMEOUT_USEC", "WATCHDOG"}]
    assert all(note.keys() <= {"EXTEND_TIMEOUT_USEC", "STATUS"} or note == {"WATCHDOG": "1"} for note in repeated)
    assert set(manager.senders) == {daemon.pid}


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
    manager.read()  # what it said last
    manager.notes.clear()
    other = supervised(env={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}).start()
    eventually(lambda: life(manager), what="it runs")
    other.close()
    assert not any("WATCHDOG" in note for note in manager.read())


def test_children_cannot_speak_for_us(supervised: Make, manager: NotifySocket) -> None:
    ours: dict[str, Any] = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    daemon = supervised(env=ours).start()
    for pid in daemon.pids().values():
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert not [name for name in ours if f"{name}=".encode() in environ]


@pytest.mark.parametrize(
    ("environ", "period_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 7.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4711"}, 7.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4712"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_four_times_in_its_interval(environ: dict[str, str], period_s: float | None) -> None:
    assert Notifier(environ, 4711).watchdog_s == period_s


@pytest.mark.parametrize("address", ["/no/such/socket", "@reproq-no-such-socket", "vsock:2:1", "", "relative"])
def test_a_manager_that_is_not_there_hurts_nobody(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, 4711)
    notifier.tell((("READY", "1"),))
    assert notifier.watchdog_s is None
    notifier.close()
