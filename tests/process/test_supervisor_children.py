"""The real loop with small real children: deaths, hangs, orphans, signals, and the end."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.marked import children_of
from tests.support.supervised import Supervised, fake

Make = Callable[..., Supervised]

LEAVES_WITH_ITS_PARENT = """
import os, time
parent, end = os.getppid(), time.monotonic() + 60
while os.getppid() == parent and time.monotonic() < end: time.sleep(0.02)
time.sleep(0.3)
"""
LEAVES_A_STRANGER = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    open(sys.argv[0], "w").write(str(os.getpid()))
    signal.pause()
"""


def kill_and_wait_for_another(daemon: Supervised, name: str) -> None:
    before = daemon.pids()[name]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: daemon.pids().get(name, before) != before, what=f"a new {name}")


def test_keeper_and_shards_start_and_stop_in_order(supervised: Make) -> None:
    daemon = supervised({"mail": fake(shards=2), "bulk": fake()}).start()
    assert sorted(daemon.pids()) == ["bulk/0", "keeper", "mail/0", "mail/1"]
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    ends = [line.split("child=")[1].split()[0] for line in daemon.log.splitlines() if "name=process.exited" in line]
    assert ends[-1] == "keeper"
    assert sorted(ends[:-1]) == ["bulk/0", "mail/0", "mail/1"]


def test_a_killed_shard_is_replaced_and_its_leases_are_released(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.children("shard")[0]
    keeper = daemon.pids()["keeper"]
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: daemon.pids().get("mail/0", before["pid"]) != before["pid"], what="a new shard")
    released = eventually(lambda: [m for m in daemon.heard("keeper", keeper) if m["type"] == "release_dead"], what="a release")
    assert released == [{"type": "release_dead", "worker_ids": [before["worker_id"]]}]
    eventually(lambda: daemon.status()["dead_workers"] == 0, what="the keeper's answer")


def test_leases_wait_for_the_nursery_but_the_new_shard_does_not(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"nursery": LEAVES_WITH_ITS_PARENT})}).start()
    before = daemon.children("shard")[0]
    nursery = before["nursery_pid"]
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: daemon.children(state="lingering"), what="the dead shard waits for its nursery")
    eventually(lambda: not Path(f"/proc/{nursery}").exists(), what="the nursery is reaped")
    events = _events(daemon)
    eventually(lambda: "workers.released" in _events(daemon), what="the release")
    assert "orphan.killed" not in events, "a nursery leaves by itself"


def test_a_nursery_that_does_not_leave_is_killed(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"nursery": "import signal; signal.pause()"})}).start()
    before = daemon.children("shard")[0]
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: "workers.released" in _events(daemon), what="the release", timeout=15)
    assert not Path(f"/proc/{before['nursery_pid']}").exists()


def test_a_stranger_left_by_a_dead_child_is_killed_and_named(supervised: Make, tmp_path: Path) -> None:
    told = tmp_path / "stranger"
    script = LEAVES_A_STRANGER.replace("sys.argv[0]", repr(str(told)))
    daemon = supervised({"mail": fake({"nursery": script})}).start()
    stranger = int(eventually(lambda: told.read_text() if told.exists() else "", what="the stranger"))
    os.kill(daemon.pids()["mail/0"], signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{stranger}").exists(), what="the stranger is reaped")
    assert f"name=orphan.killed pid={stranger} command=python" in daemon.log


@pytest.mark.parametrize("code", [0, 1, 3, 4, 69, 70, 75, 78, 255])
def test_what_an_orphan_exits_with_means_nothing(supervised: Make, code: int) -> None:
    orphan = f"import os, time\nparent = os.getppid()\nwhile os.getppid() == parent: time.sleep(0.01)\nos._exit({code})"
    daemon = supervised({"mail": fake({"nursery": orphan}), "bulk": fake()}).start()
    bulk = daemon.pids()["bulk/0"]
    before = daemon.pids()["mail/0"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: daemon.pids().get("mail/0", before) != before, what="a new shard")
    assert daemon.pids()["bulk/0"] == bulk
    assert daemon.status()["pools"]["bulk"]["account"]["recent_exits"] == 0


def test_a_frozen_shard_is_killed_after_its_stacks_were_asked_for_and_replaced(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.pids()["mail/0"]
    os.kill(before, signal.SIGSTOP)
    eventually(lambda: daemon.pids().get("mail/0", before) != before, what="a new shard")
    assert "gave no sign of life for 0.9 s" in daemon.log


def test_a_silent_shard_leaves_its_stack_in_the_log(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"silent": True})}).start(until=None)
    eventually(lambda: "gave no sign of life" in daemon.log, what="the verdict")
    eventually(lambda: "in live" in daemon.log, what="its Python stack")


def test_a_shard_that_never_becomes_ready_is_replaced(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"boots": False}, boot_timeout=0.5)}).start(until=None)
    eventually(lambda: "was not ready within 0.5 s" in daemon.log, what="the verdict")
    eventually(lambda: daemon.status()["pools"]["mail"]["account"]["units"]["mail/0"]["starts"] >= 2, what="the next try")


def test_a_pool_that_keeps_crashing_is_quarantined_and_the_others_go_on(supervised: Make) -> None:
    bad = fake({"exits": 70, "fails": "no such module"}, quarantine={"exits": 2, "window": 60.0})
    daemon = supervised({"mail": bad, "bulk": fake()}).start()
    eventually(lambda: daemon.status()["pools"]["mail"]["account"]["circuit"] == "quarantined", what="quarantine", timeout=20)
    lines = daemon.ask("explain", pool="mail")["lines"]
    assert "abnormal exits: more than 2 within 60 s" in lines[0]
    assert "no such module" in lines[0]
    assert daemon.status()["pools"]["bulk"]["account"]["circuit"] == "closed"
    assert "bulk/0" in daemon.pids()


def test_a_permanent_failure_is_not_tried_again(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"exits": 78, "fails": "no module named nosuch", "permanent": True})}).start()
    status = daemon.status()["pools"]["mail"]["account"]
    assert status["circuit"] == "refused"
    assert status["units"]["mail/0"]["starts"] == 1
    assert "no module named nosuch" in daemon.ask("explain", pool="mail")["lines"][0]


def test_an_end_that_nobody_asked_for_but_was_clean_is_free(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.pids()["mail/0"]
    os.kill(before, signal.SIGTERM)
    eventually(lambda: daemon.pids().get("mail/0", before) != before, what="a new shard")


@pytest.mark.parametrize("turn", range(5))
def test_a_term_in_the_first_moment_is_not_lost(supervised: Make, turn: int) -> None:
    daemon = supervised().start(until=None)
    eventually(Path(daemon.settings["runtime"]["control_socket"]).exists, what="the socket", interval=0.001)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0


def test_a_second_interrupt_is_quick(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"stays": True})}, shutdown_timeout=600.0).start()
    shard = daemon.pids()["mail/0"]
    daemon.signal(signal.SIGINT)
    eventually(lambda: any(m["type"] == "drain" for m in daemon.heard("mail/0", shard)), what="the first asks it to drain")
    assert daemon.status()["stopping"]["quick"] is False
    daemon.signal(signal.SIGINT)
    assert daemon.wait_exit() == 0
    assert [m["type"] for m in daemon.heard("mail/0", shard)] == ["start", "drain", "quit"]


def test_quit_is_quick_at_once(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"stays": True})}, shutdown_timeout=600.0).start()
    shard = daemon.pids()["mail/0"]
    daemon.signal(signal.SIGQUIT)
    assert daemon.wait_exit() == 0
    told = [m["type"] for m in daemon.heard("mail/0", shard)]
    assert "quit" in told
    assert "drain" not in told


def test_a_shard_that_does_not_leave_is_killed_within_the_shutdown_timeout(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"stays": True})}, shutdown_timeout=4.0).start()
    daemon.ask("stop")
    assert daemon.wait_exit(20) == 0
    assert "did not leave in time after being asked to" in daemon.log


def test_a_supervisor_that_was_frozen_kills_nobody(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.pids()
    daemon.signal(signal.SIGSTOP)
    os.kill(before["mail/0"], signal.SIGSTOP)
    # Longer than the liveness deadline, which is what must not be held against anybody.
    frozen_mono = time.monotonic()
    eventually(lambda: time.monotonic() > frozen_mono + 2.5, what="time goes by")
    os.kill(before["mail/0"], signal.SIGCONT)
    daemon.signal(signal.SIGCONT)
    eventually(lambda: "supervisor.overslept" in _events(daemon), what="it notices")
    assert daemon.pids() == before
    assert "process.condemned" not in _events(daemon)


def test_nothing_outlives_a_supervisor_that_was_killed(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"nursery": LEAVES_WITH_ITS_PARENT}, shards=2)}).start()
    daemon.status()
    daemon.signal(signal.SIGKILL)
    assert daemon.wait_exit() == -signal.SIGKILL
    daemon.close()


def _events(daemon: Supervised) -> set[str]:
    return {word.removeprefix("name=") for line in daemon.log.splitlines() for word in line.split() if word.startswith("name=")}


def test_a_storm_of_signals_is_borne_and_every_kind_is_seen(supervised: Make) -> None:
    pools = {"mail": fake(shards=3, heartbeat=10.0)}
    daemon = supervised(pools).start()
    daemon.write_config(pools)
    storm = [signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD]
    for turn in range(3000):
        daemon.signal(storm[turn % 3])
        if turn % 1000 == 500:
            kill_and_wait_for_another(daemon, "mail/0")
    eventually(lambda: daemon.status()["last_reload"], what="a reload came of it")
    assert daemon.status()["state"] in ("running", "reloading")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0


def test_hundreds_of_orphans_leave_no_zombie(supervised: Make) -> None:
    many = "import os, signal\nfor _ in range(300):\n    if os.fork() == 0:\n        os._exit(0) if os.fork() else signal.pause()"
    daemon = supervised({"mail": fake({"nursery": many}, heartbeat=10.0)}).start()
    descriptors = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    before = daemon.pids()["mail/0"]
    eventually(lambda: len(children_of(daemon.pid)) > 300, what="they are all there: the fake shard is no subreaper")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: daemon.pids().get("mail/0", before) != before, what="a new shard")
    eventually(lambda: "workers.released" in _events(daemon), what="the death is complete", timeout=20)
    assert "process.condemned" not in _events(daemon)
    eventually(lambda: set(children_of(daemon.pid)) == set(daemon.pids().values()), what="no child but ours, dead or alive")
    eventually(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) == descriptors, what="as many descriptors as before")


def test_a_title_says_what_the_supervisor_does(supervised: Make) -> None:
    daemon = supervised().start()
    title = Path(f"/proc/{daemon.pid}/cmdline")
    eventually(lambda: title.read_bytes().startswith(b"reproq: supervisor (running, 2 children)"), what="the title")
