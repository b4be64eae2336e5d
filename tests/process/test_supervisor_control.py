"""The control socket: who may use it, what it bears, and what it answers."""

import json
import os
import random
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from reproq_supervisor.core.frames import encode, encode_message
from reproq_supervisor.supervisor.address import Address, AddressError
from reproq_supervisor.supervisor.client import ControlClient, DaemonUnavailable
from tests.support.eventually import eventually
from tests.support.supervised import Supervised, fake

Make = Callable[..., Supervised]


def socket_of(daemon: Supervised) -> str:
    return str(daemon.settings["runtime"]["control_socket"])


def connect(daemon: Supervised) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(socket_of(daemon))
    return sock


def test_status_tells_every_child_and_pool(supervised: Make) -> None:
    daemon = supervised({"mail": fake(shards=2)}).start()
    status = daemon.status()
    assert status["pid"] == daemon.pid
    assert status["state"] == "running"
    assert {(c["child"], c["state"]) for c in status["children"]} == {("keeper", "ready"), ("mail/0", "ready"), ("mail/1", "ready")}
    assert (status["pools"]["mail"]["shards"], status["pools"]["mail"]["ready"]) == (2, 2)
    assert status["keeper"]["ready"] is True


def test_the_socket_is_ours_alone_from_its_first_moment(supervised: Make) -> None:
    daemon = supervised().start()
    assert stat.S_IMODE(Path(socket_of(daemon)).stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_even_where_the_file_lets_him_in(supervised: Make) -> None:
    daemon = supervised().start()
    daemon.folder.chmod(0o755)
    Path(socket_of(daemon)).chmod(0o666)
    os.seteuid(65534)
    try:
        client = connect(daemon)
    finally:
        os.seteuid(0)
    with client:
        answer = json.loads(client.recv(65536)[4:])
    assert answer["ok"] is False
    assert "expected root or user 0, got user 65534" in answer["error"]


def test_a_second_daemon_on_the_same_socket_refuses_and_harms_nothing(supervised: Make) -> None:
    first = supervised().start()
    second = supervised()
    second.settings["runtime"]["control_socket"] = socket_of(first)
    second.start(until=None)
    assert second.wait_exit() == 1
    assert "another daemon has it" in second.log
    assert first.status()["state"] == "running"


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    address = Address(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address.close()
    assert not path.exists()


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(AddressError, match="is no socket"):
        Address(str(path))
    assert path.read_text() == "precious"


def test_a_path_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(AddressError, match="at most 107 bytes"):
        Address("/tmp/" + "x" * 110)


def test_a_client_without_a_daemon_says_so(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnavailable, match="No such file"):
        ControlClient(str(tmp_path / "nobody")).request({"command": "status"})


@pytest.mark.parametrize("seed", range(3))
def test_rubbish_neither_harms_nor_stops_the_daemon(supervised: Make, seed: int) -> None:
    daemon = supervised().start()
    rng = random.Random(seed)
    deep = b"[" * 30_000
    rubbish = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!i", -1),
        struct.pack("!i", 2**31 - 1) + b"x" * 1000,
        encode(b"x" * 100_000),
        encode(b"not json"),
        encode(b"[1, 2]"),
        encode(deep),
        encode(b'"\\ud800"'),
        encode_message({}),
        encode_message({"command": ["status"]}),
        encode_message({"command": "__class__"}),
        encode_message({"command": "scale", "pool": "mail", "executors": "many"}),
        encode_message({"command": "scale", "pool": "mail", "executors": 10**30}),
        encode_message({"command": "scale", "pool": {"a": 1}, "executors": 1, "for_s": float("inf")}),
        encode_message({"command": "explain", "pool": "../../etc"}),
        *(rng.randbytes(rng.randint(1, 3000)) for _ in range(20)),
    ]
    for data in rng.sample(rubbish, len(rubbish)):
        with connect(daemon) as sock:
            try:
                sock.sendall(data)
                if rng.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(65536)
            except (BrokenPipeError, ConnectionResetError):
                continue
    assert daemon.status()["state"] == "running"
    assert len(daemon.pids()) == 2


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"command": "nosuch"}, "expected one that the daemon knows"),
        ({"command": "explain", "pool": "nosuch"}, "expected one of mail"),
        ({"command": "scale", "pool": "mail", "executors": -1}, "expected a number from 1"),
        ({"command": "scale", "pool": "mail", "executors": True}, "expected a number from 1"),
        ({"command": "scale", "pool": "mail", "executors": 2, "for_s": -5}, "expected seconds above 0"),
    ],
)
def test_a_request_that_cannot_be_done_is_answered_with_what_was_expected(
    supervised: Make, request_: dict[str, object], expected: str
) -> None:
    daemon = supervised().start()
    answer = daemon.client.request(request_)
    assert answer["ok"] is False
    assert answer["code"] == 2
    assert expected in answer["error"]


def test_many_silent_and_slow_clients_block_nobody(supervised: Make) -> None:
    daemon = supervised().start()
    silent = [connect(daemon) for _ in range(30)]
    halves = [connect(daemon) for _ in range(15)]
    for sock in halves:
        sock.sendall(encode_message({"command": "status"})[:7])
    slow = [connect(daemon) for _ in range(10)]
    for sock in slow:
        sock.sendall(encode_message({"command": "events", "follow": True}))
    assert daemon.status()["state"] == "running"
    for sock in [*silent, *halves, *slow]:
        sock.close()


def test_one_client_too_many_is_told_so_and_later_served(supervised: Make) -> None:
    daemon = supervised().start()
    held = [connect(daemon) for _ in range(64)]
    refusal = eventually(lambda: next((a for a in [daemon.ask("status")] if not a["ok"]), None), what="a refusal")
    assert refusal is not None
    assert "at most 64 clients" in refusal["error"]
    assert refusal["code"] == 75
    for sock in held:
        sock.close()
    eventually(lambda: daemon.ask("status")["ok"], what="an answer")


def test_events_begin_with_the_past_and_follow(supervised: Make) -> None:
    daemon = supervised().start()
    past = [event["name"] for event in daemon.client.stream({"command": "events", "follow": False})]
    assert "supervisor.started" in past
    assert past.count("process.became_ready") == 2
    following = daemon.client.stream({"command": "events", "follow": True})
    for _ in past:
        next(following)
    daemon.ask("drain", pool="mail")
    event = next(following)
    assert (event["name"], event["pool"]) == ("pool.paused", "mail")
    following.close()


def test_scaling_reaches_the_shards_and_ends_with_its_time(supervised: Make) -> None:
    daemon = supervised().start()
    shard = daemon.pids()["mail/0"]
    daemon.ask("scale", pool="mail", executors=7, for_s=0.5)
    assert daemon.status()["pools"]["mail"]["override"]["executors"] == 7
    eventually(lambda: _sizes(daemon, shard) == [2, 7, 2], what="the size goes there and back")
    assert daemon.status()["pools"]["mail"]["override"] is None


def test_a_drained_pool_is_paused_until_it_is_resumed_and_a_new_shard_knows(supervised: Make) -> None:
    daemon = supervised().start()
    first = daemon.pids()["mail/0"]
    daemon.ask("drain", pool="mail")
    eventually(lambda: "pause" in _kinds(daemon, first), what="the pause")
    os.kill(first, 9)
    second = eventually(lambda: {k: v for k, v in daemon.pids().items() if k == "mail/0" and v != first}, what="a new shard")["mail/0"]
    eventually(lambda: "pause" in _kinds(daemon, second), what="the pause of the new one")
    daemon.ask("resume", pool="mail")
    eventually(lambda: "resume" in _kinds(daemon, second), what="the end of the pause")


def test_a_dump_of_the_state_is_written_on_usr2(supervised: Make) -> None:
    daemon = supervised().start()
    shard = daemon.pids()["mail/0"]
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: '"children": [' in daemon.log and "in dump_lines" in daemon.log, what="state and stack")
    eventually(lambda: "dump" in _kinds(daemon, shard), what="the shard is asked, too")


def test_a_log_that_was_moved_away_is_opened_again_on_usr1(supervised: Make) -> None:
    daemon = supervised().start()
    daemon.log_path.rename(daemon.log_path.with_name("log.1"))
    daemon.signal(signal.SIGUSR1)
    eventually(daemon.log_path.exists, what="a new log")
    daemon.ask("drain", pool="mail")
    eventually(lambda: "pool.paused" in daemon.log, what="lines go there")
    eventually(lambda: "reopen" in _kinds(daemon, daemon.pids()["mail/0"]), what="the shard is told, too")


def _kinds(daemon: Supervised, pid: int) -> list[str]:
    return [message["type"] for message in daemon.heard("mail/0", pid)]


def _sizes(daemon: Supervised, pid: int) -> list[int]:
    return [m["pool_settings"]["executors"]["max"] for m in daemon.heard("mail/0", pid) if m["type"] in ("start", "adjust")]


def test_without_a_descriptor_left_it_takes_no_connection_and_does_not_spin(supervised: Make) -> None:
    daemon = supervised().start()
    process = psutil.Process(daemon.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    # Descriptors are counted by their numbers: the lowest free one must be past the limit.
    process.rlimit(psutil.RLIMIT_NOFILE, (min(set(range(limits[0])) - _descriptors(daemon.pid)), limits[1]))
    with connect(daemon) as client:
        client.sendall(encode_message({"command": "status"}))
        began, spent = time.monotonic(), sum(process.cpu_times()[:2])
        eventually(lambda: time.monotonic() - began > 2.5, timeout=60, what="some time has passed in which it could have spun")
        assert sum(process.cpu_times()[:2]) - spent < 1.0
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        client.settimeout(60)
        assert client.recv(65536), "it takes the connection when it can"


def _descriptors(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
