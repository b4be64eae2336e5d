"""Whom torture may kill: what the daemon names, what it can do without, and never a stranger."""

import random
import subprocess
import sys
from typing import Any

import pytest

from reproq_supervisor.cli.torture.chaos import Chaos, victims_of
from reproq_supervisor.cli.torture.workload import plan
from reproq_supervisor.process.descent import descends, kill_descendant

ACCOUNT = {"circuit": "closed", "recent_exits": 0, "allowed_exits": 5, "units": {}}


def child(name: str, role: str, pid: int, pool: str | None = None, **parts: Any) -> dict[str, Any]:
    return {"child": name, "role": role, "pool": pool, "pid": pid, "nursery_pid": None, "state": "ready", **parts}


def status(**account: Any) -> dict[str, Any]:
    return {
        "pid": 1,
        "children": [
            child("mail/0", "shard", 10, "mail", nursery_pid=11),
            child("mail/1", "shard", 20, "mail", state="booting"),
            child("keeper", "keeper", 30),
        ],
        "pools": {
            "mail": {"account": {**ACCOUNT, **account}, "snapshots": {"mail/0@1": {"executors": {"pids": [12, 13]}}, "mail/1@1": {}}}
        },
        "keeper": {"account": ACCOUNT},
    }


@pytest.mark.parametrize(("kind", "pids"), [("executor", [12, 13]), ("nursery", [11]), ("shard", [10]), ("keeper", [30])])
def test_what_is_ready_may_die(kind: str, pids: list[int]) -> None:
    assert list(victims_of(kind, status())) == pids


@pytest.mark.parametrize("account", [{"circuit": "quarantined"}, {"recent_exits": 4}, {"units": {"mail/0": {"failures": 3}}}])
def test_what_has_died_too_often_is_spared(account: dict[str, Any]) -> None:
    assert list(victims_of("shard", status(**account))) == []
    assert list(victims_of("executor", status(**account))) == [12, 13]


def test_a_child_of_a_child_descends_and_dies() -> None:
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); sys.exit(abs(p.wait()))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as middle:
        assert middle.stdout is not None
        pid = int(middle.stdout.readline())
        assert descends(pid, middle.pid)
        assert not descends(middle.pid, pid)
        assert not kill_descendant(middle.pid, pid), "it does not descend from there"
        assert kill_descendant(pid, middle.pid)
        assert middle.wait(60) == 9
    assert not kill_descendant(pid, middle.pid), "it is gone"


def test_a_daemon_that_does_not_answer_is_left_alone() -> None:
    chaos = Chaos(lambda: None, random.Random(1), database=True)
    chaos.turn()
    assert chaos.kills == []


def test_the_same_seed_makes_the_same_mixture() -> None:
    one, other = (plan(200, ["a", "b"], random.Random(7)) for _ in range(2))
    assert one == other
    assert {each.queue for each in one} == {"a", "b"}
    assert any(each.fails_once for each in one)
    assert {each.limit for each in one} == {0, 1, 3}
