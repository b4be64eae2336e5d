"""A mark proves that a worker is dead exactly when nothing is alive any more that got it from its shard."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reproq_supervisor.core.supervision.facts import WorkersFoundDead
from reproq_supervisor.process.worker_mark import MOST_LOOKED_AT, find_dead, forget, leave_mark
from reproq_supervisor.supervisor.marks import Marks
from tests.support.eventually import eventually

# A shard: leaves its mark, and starts one that inherits it, as a nursery or an executor does.
_SHARD = """
import os, signal, sys
from reproq_supervisor.process.worker_mark import leave_mark
fd = leave_mark(sys.argv[1], sys.argv[2])
if (child := os.fork()) == 0:
    signal.pause()
print(child, flush=True)
signal.pause()
"""


@contextmanager
def a_shard(folder: Path, worker_id: str) -> Iterator[tuple[int, int]]:
    """Run one; give its pid and that of its heir."""
    shard = subprocess.Popen([sys.executable, "-P", "-c", _SHARD, str(folder), worker_id], stdout=subprocess.PIPE)
    assert shard.stdout is not None
    heir = int(shard.stdout.readline())
    try:
        yield shard.pid, heir
    finally:
        for pid in (heir, shard.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shard.wait()
        shard.stdout.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_worker_is_dead_when_its_shard_and_every_heir_of_it_are(tmp_path: Path) -> None:
    with a_shard(tmp_path, "host-1-aa") as (shard, heir):
        assert find_dead(tmp_path, "host-") == []
        kill(shard)
        os.waitid(os.P_PID, shard, os.WEXITED | os.WNOWAIT)
        assert find_dead(tmp_path, "host-") == [], "its nursery is still ending"
        kill(heir)
        eventually(lambda: find_dead(tmp_path, "host-") == ["host-1-aa"], what="the last heir is gone")


def test_a_frozen_worker_is_not_dead(tmp_path: Path) -> None:
    with a_shard(tmp_path, "host-1-aa") as (shard, heir):
        for pid in (shard, heir):
            os.kill(pid, signal.SIGSTOP)
        assert find_dead(tmp_path, "host-") == []


def test_two_daemons_in_one_place_do_not_bury_each_other(tmp_path: Path) -> None:
    with a_shard(tmp_path, "host-1-aa") as (first, first_heir), a_shard(tmp_path, "host-2-bb"):
        kill(first)
        kill(first_heir)
        eventually(lambda: find_dead(tmp_path, "host-") == ["host-1-aa"], what="one of the two is dead")


def test_a_worker_of_another_host_is_never_judged(tmp_path: Path) -> None:
    os.close(leave_mark(tmp_path, "other-1-aa"))
    assert find_dead(tmp_path, "host-") == []


def test_a_mark_that_is_being_made_is_none_and_an_abandoned_one_is_removed(tmp_path: Path) -> None:
    young, old = tmp_path / ".new-host-1-aa", tmp_path / ".new-host-2-bb"
    for path in (young, old):
        path.touch()
    os.utime(old, (0, 0))
    assert find_dead(tmp_path, "") == []
    assert (young.exists(), old.exists()) == (True, False)


def test_what_is_no_folder_has_no_dead(tmp_path: Path) -> None:
    assert find_dead(tmp_path / "nosuch", "host-") == []


def test_a_look_is_short_however_many_marks_there_are(tmp_path: Path) -> None:
    names = sorted(f"host-{number}" for number in range(MOST_LOOKED_AT + 50))
    for name in names:
        (tmp_path / name).touch()
    first = find_dead(tmp_path, "host-")
    assert first == names[:MOST_LOOKED_AT]
    assert find_dead(tmp_path, "host-", known=set(first)) == names[MOST_LOOKED_AT:]
    forget(tmp_path / "nosuch", "host-1-aa")


def test_each_dead_worker_is_told_once_until_it_is_forgotten(tmp_path: Path) -> None:
    prefix = f"{os.uname().nodename}-"
    os.close(leave_mark(tmp_path, f"{prefix}1-aa"))
    marks = Marks(str(tmp_path))
    assert marks.look(0.0) == [WorkersFoundDead((f"{prefix}1-aa",))]
    assert marks.look(100.0) == []
    marks.forget([f"{prefix}1-aa"])
    assert list(tmp_path.iterdir()) == []
    assert marks.look(200.0) == []


def test_a_name_that_leads_elsewhere_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "precious").touch()
    forget(tmp_path / "workers", "../precious")
    assert (tmp_path / "precious").exists()
