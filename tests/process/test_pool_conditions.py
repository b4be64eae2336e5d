"""What a pool sets for its processes, seen from inside a task; and that a pool of another user dies as completely as any other."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.process.identity import Identity
from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import EXEC, RunningShard, running_shard
from tests.support.somebody import open_view, somebody_else, why_nobody_else

MIB = 1 << 20
KINDS: dict[str, dict[str, Any]] = {
    "reuse": {},
    "fork": {"isolation": "fork"},
    "exec": {"isolation": "exec", "exec": EXEC},
    "exec-file": {"isolation": "exec", "exec": {**EXEC, "payload": "file"}},
    "thread": {"mode": "thread", "slots": 2},
    "async": {"mode": "async", "slots": 2},
}


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


@pytest.fixture
def stranger() -> Identity:
    """Somebody else whom this process may become, and who can read this checkout."""
    if why_nobody_else():
        pytest.skip(str(why_nobody_else()))
    return somebody_else()


def refusal(database: Database, **pool: Any) -> str:
    """Return why a shard with these settings does not start."""
    with running_shard(database, ready=False, **pool) as shard:
        failed = shard.wait_said("failed")
        assert (failed["permanent"], shard.wait_exit()) == (True, 78)
        return str(failed["reason"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_task_finds_what_its_pool_was_given(database: Database, runs: Runs, kind: str) -> None:
    limits = {"address_space": 4096 * MIB, "data": 2048 * MIB, "open_files": 300, "processes": 5000, "core": 0}
    pool = {"nice": os.nice(0) + 3, "cpus": [max(os.sched_getaffinity(0))], "umask": 0o027, "env": {"HOME": "/given"}, "limits": limits}
    with running_shard(database, **pool, **KINDS[kind]):
        found = runs.end_of("tell_conditions").result
        assert (found["nice"], found["cpus"], found["umask"]) == (2 * os.nice(0) + 3, pool["cpus"], 0o027)
        assert {name: found["limits"][name] for name in limits} == {name: [limit, limit] for name, limit in limits.items()}
        assert found["variables"]["HOME"] == "/given"
        # What they restrict is the task, not what keeps it: a nursery needs more descriptors than a task may have.
        assert runs.end_of("tests.support.odd_tasks.open_many", 400).message.startswith("[Errno 24]")
        assert runs.end_of("echo").status == "SUCCESSFUL"


def test_memory_past_the_limit_is_an_error_of_the_task(database: Database, runs: Runs) -> None:
    with running_shard(database, limits={"address_space": 512 * MIB}):
        run = runs.end_of("hold", 1024, 0.0, max_attempts=1)
        assert (run.end, run.errors[-1]["exception_class"]) == (("FAILED", "app_error", 1), "MemoryError")
        assert runs.end_of("hold", 64, 0.0).status == "SUCCESSFUL"


def test_a_leak_is_recycled_before_it_meets_the_limit(database: Database, runs: Runs) -> None:
    recycle = {"tasks": 0, "rss": 64 * MIB, "age": 0.0, "jitter": 0.1, "at_once": 1}
    with running_shard(database, executors=2, limits={"address_space": 400 * MIB}, recycle=recycle) as shard:
        ended = runs.ended(runs.add("leak", 8, count=150, max_attempts=1), timeout=90.0)
        assert {run.end for run in ended} == {("SUCCESSFUL", None, 1)}
        shard.wait_snapshot(lambda s: s["recycled"]["rss"] >= 10, "the leaking were recycled")
        assert not shard.events("executor.exited")


@pytest.mark.parametrize("kind", ["fork", "exec"])
def test_processor_time_is_counted_for_each_task(database: Database, runs: Runs, kind: str) -> None:
    with running_shard(database, limits={"cpu_time": 1.0}, **KINDS[kind]):
        run = runs.end_of("burn", 60.0, max_attempts=1, timeout=90.0)
        assert (run.end, run.errors[-1]["signal"]) == (("FAILED", "worker_crashed", 1), "SIGXCPU")
        assert runs.end_of("burn", 0.1).status == "SUCCESSFUL"


def test_a_limit_that_leaves_no_room_is_refused_with_what_is_needed(database: Database) -> None:
    assert "limits.address_space: expected more than the application takes by itself" in refusal(
        database, limits={"address_space": 20 * MIB}
    )


def test_processors_that_may_not_be_used_are_refused(database: Database) -> None:
    assert "cpus: expected at least one processor that the daemon may use" in refusal(database, cpus=[8000])


# -- another user -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_application_is_imported_and_run_as_the_pools_user(
    database: Database, runs: Runs, stranger: Identity, tmp_path: Path, kind: str
) -> None:
    logs = tmp_path / "logs"
    with running_shard(database, user="nobody", view=open_view(), logs_dir=logs, nice=-3, limits={"core": 0}, **KINDS[kind]) as shard:
        found = runs.end_of("tell_conditions").result
        assert found["users"] == [stranger.uid] * 3
        assert found["groups"] == [[stranger.gid] * 3, sorted(set(os.getgrouplist("nobody", stranger.gid)))]
        assert found["variables"] == {"HOME": stranger.home, "USER": "nobody", "LOGNAME": "nobody"}
        assert found["nice"] == os.nice(0) - 3
        assert f"\nUid:\t{stranger.uid}\t" in Path(f"/proc/{shard.nursery_pid}/status").read_text()
        said = runs.end_of("say", "hello")
        assert "hello" in said.log.splitlines()
        assert runs.end_of("tests.support.odd_tasks.regain_rights").result == []


def test_stopping_cancelling_and_crashing_work_for_another_user(database: Database, runs: Runs, stranger: Identity) -> None:
    with running_shard(database, executors=1, user="nobody", view=open_view(), grace=0.3):
        assert runs.end_of("hang", timeout_seconds=1, max_attempts=1).end == ("FAILED", "timeout", 1)
        assert runs.end_of("hang_stubbornly", timeout_seconds=1, max_attempts=1).end == ("FAILED", "timeout", 1)
        assert runs.end_of("crash", max_attempts=1).end == ("FAILED", "worker_crashed", 1)
        assert runs.end_of("dereference_null", max_attempts=1).errors[-1]["signal"] == "SIGSEGV"
        grandchild = runs.end_of("leave_grandchild").result
        assert runs.end_of("crash", max_attempts=1).end == ("FAILED", "worker_crashed", 1)
        eventually(lambda: state_of(grandchild) == "", timeout=30.0, what="what the crashed executor left is gone")
        assert runs.end_of("echo").status == "SUCCESSFUL"


def test_recycling_by_memory_measures_another_users_executors(database: Database, runs: Runs, stranger: Identity) -> None:
    recycle = {"tasks": 0, "rss": 48 * MIB, "age": 0.0, "jitter": 0.0, "at_once": 1}
    with running_shard(database, user="nobody", view=open_view(), recycle=recycle) as shard:
        assert {run.end for run in runs.ended(runs.add("leak", 16, count=10))} == {("SUCCESSFUL", None, 1)}
        assert shard.wait_event("executor.recycled")["reason"] == "rss"


@pytest.fixture
def foreign(database: Database, runs: Runs, stranger: Identity) -> Iterator[RunningShard]:
    """A shard whose pool is somebody else's, with two busy executors and escaped grandchildren."""
    with running_shard(database, executors=2, user="nobody", view=open_view()) as shard:
        runs.add("tests.support.odd_tasks.leave_family", count=2)
        shard.wait_snapshot(lambda s: s["running"] == 2, "both run")
        # Shard, nursery, two executors, and of each at least two that it started.
        shard.wait_for(lambda: len(shard.processes()) >= 8, "the families are there")
        yield shard


def test_nothing_is_left_of_another_users_pool_when_its_supervisor_is_gone(foreign: RunningShard) -> None:
    foreign.close_lifeline()
    assert foreign.wait_exit() == 0
    foreign.wait_gone()


def test_nothing_is_left_of_another_users_pool_when_its_shard_is_killed(foreign: RunningShard) -> None:
    foreign.kill(signal.SIGKILL)
    assert foreign.wait_exit() == -signal.SIGKILL
    foreign.wait_gone()


def test_nothing_is_left_of_another_users_pool_when_its_nursery_is_killed(foreign: RunningShard) -> None:
    os.kill(foreign.nursery_pid, signal.SIGKILL)
    assert foreign.wait_exit() == 70
    foreign.wait_gone()
