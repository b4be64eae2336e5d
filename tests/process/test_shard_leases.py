"""Leases: renewed while they can be, and never outlived by what runs under them."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.core.policy.lease import nursery_margin_s
from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Database
from tests.support.runs import ODD, Runs
from tests.support.shard import running_shard

SHORT = {"lease": 1.5, "heartbeat": 0.15, "grace": 0.5}


def ticks(path: Path) -> dict[int, list[float]]:
    """Return the boot times at which `tick` showed signs of life, by pid."""
    found: dict[int, list[float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        pid, at = line.split()
        found.setdefault(int(pid), []).append(float(at))
    return found


def wait_ticking(path: Path, processes: int = 1) -> list[int]:
    """Wait until so many processes have run the task; return their pids in order."""
    return eventually(lambda: len(found := list(ticks(path))) >= processes and found, what=f"{processes} executions") or []


def test_a_task_longer_than_its_lease_is_renewed(database: Database, tmp_path: Path) -> None:
    runs, path = Runs(database), tmp_path / "ticks"
    with running_shard(database, **SHORT):
        ids = runs.add(f"{ODD}tick", str(path), 4)

        def ended() -> bool:
            assert runs.reclaim() == 0
            return not runs.lane()

        eventually(ended, what="it ends")
        assert [run.end for run in runs.look(ids)] == [("SUCCESSFUL", None, 1)]
        assert len(ticks(path)) == 1


def test_work_that_waits_in_the_shard_is_renewed(database: Database, tmp_path: Path) -> None:
    runs, path = Runs(database), tmp_path / "ticks"
    with running_shard(database, **SHORT) as shard:
        runs.ended(runs.add(f"{ODD}tick", str(path), 0, count=60))
        runs.add(f"{ODD}tick", str(path), 4, priority=1)
        waiting = runs.add(f"{ODD}tick", str(path), 0, count=5)
        shard.wait_snapshot(lambda s: s["held"] == 6, "it holds all of them")
        shard.wait_snapshot(lambda s: s["held"] == 0, "all have ended")
        assert runs.reclaim() == 0
        assert {run.end for run in runs.look(waiting)} == {("SUCCESSFUL", None, 1)}


def test_what_runs_while_the_database_is_frozen_is_killed_before_its_lease_ends_and_released(
    own_database: Database, tmp_path: Path
) -> None:
    runs, path = Runs(own_database), tmp_path / "ticks"
    with running_shard(own_database, **SHORT) as shard:
        ids = runs.add(f"{ODD}tick", str(path), 60)
        (first,) = wait_ticking(path)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        own_database.cluster.freeze()
        eventually(lambda: state_of(first) in ("", "Z"), timeout=SHORT["lease"], what="the execution is killed")
        own_database.cluster.thaw()
        # Nobody reclaimed it, so the release counts: the second execution is the first attempt.
        wait_ticking(path, 2)
        eventually(lambda: [run.status for run in runs.look(ids)] == ["RUNNING"], what="its record shows the second")
        assert [(run.attempts, run.errors) for run in runs.look(ids)] == [(1, [])]


@pytest.mark.parametrize("seconds_left", ["fresh", "old"])
def test_an_execution_under_a_frozen_shard_is_dead_before_another_shard_claims_its_run(
    database: Database, tmp_path: Path, seconds_left: str
) -> None:
    runs, path, go = Runs(database), tmp_path / "ticks", tmp_path / "go"
    with running_shard(database, log=tmp_path / "first.log", **SHORT) as first, running_shard(database, **SHORT) as second:
        second.say("pause")
        second.wait_snapshot(lambda s: "paused" in s["why"], "the second one is paused")
        ids = runs.add(f"{ODD}tick", str(path), 60, str(go))
        (pid,) = wait_ticking(path)
        if seconds_left == "old":
            eventually(lambda: ticks(path)[pid][-1] - ticks(path)[pid][0] > 1.2, what="the lease was renewed")
        first.kill(signal.SIGSTOP)
        second.say("resume")
        eventually(lambda: runs.reclaim() == 1, interval=0.005, what="the lease expires")
        wait_ticking(path, 2)
        eventually(lambda: state_of(pid) in ("", "Z"), timeout=30, what="the nursery kills it, be it late")
        first.kill(signal.SIGCONT)
        late_s = first.wait_event("executor.overdue")["late_s"]
        go.touch()
        run = runs.ended(ids)[0]
        assert run.end == ("SUCCESSFUL", "lease_expiry", 2)
        old, new = ticks(path).values()
        # Where the machine wakes the nursery later than its margin, nobody can keep the promise; it says itself how late it was.
        assert max(old) < min(new) or late_s > nursery_margin_s(SHORT["lease"]), f"killed {late_s} s late"
        first.wait_snapshot(lambda s: s["held"] == 0, "the first shard has let go of it")
        assert runs.end_of("echo").status == "SUCCESSFUL"


def test_a_shard_that_was_frozen_beyond_its_leases_starts_nothing_under_them(database: Database, tmp_path: Path) -> None:
    runs, path = Runs(database), tmp_path / "ticks"
    with running_shard(database, **SHORT) as shard:
        runs.ended(runs.add(f"{ODD}tick", str(path), 0, count=120))
        (pid,) = ticks(path)
        long = runs.add(f"{ODD}tick", str(path), 1.0, priority=1)
        behind = runs.add(f"{ODD}tick", str(path), 0, count=30)
        shard.wait_snapshot(lambda s: s["held"] == 31, "it holds all of them")
        shard.kill(signal.SIGSTOP)
        eventually(lambda: runs.reclaim() > 0 and not runs.lane().get("running"), interval=0.1, what="all leases expire")
        runs.cancel(behind)
        before = len(ticks(path)[pid])
        shard.kill(signal.SIGCONT)
        shard.wait_snapshot(lambda s: s["held"] == 0, "it has let go of all of them")
        assert len(ticks(path)[pid]) == before
        assert {run.status for run in runs.look(behind)} == {"CANCELLED"}
        assert {run.status for run in runs.ended(long)} == {"SUCCESSFUL"}


def test_a_result_that_comes_after_the_lease_was_given_away_is_dropped(database: Database, tmp_path: Path) -> None:
    runs, path = Runs(database), tmp_path / "ticks"
    with running_shard(database, executors=1) as shard:
        runs.add(f"{ODD}tick", str(path), 60)
        wait_ticking(path)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        assert runs.release(shard.start_message["worker_id"]) == 1  # as if it were thought dead
        # The shard learns of it when it shows or renews the run, stops it, and claims it anew.
        wait_ticking(path, 2)
        first, second = ticks(path)
        assert state_of(first) in ("", "Z")
        assert state_of(second) not in ("", "Z")
        shard.wait_snapshot(lambda s: s["lost_total"] >= 1, "the loss is counted")


@pytest.mark.parametrize("freeze", [False, True])
def test_a_shard_whose_supervisor_is_gone_does_not_wait_for_the_database(own_database: Database, *, freeze: bool) -> None:
    runs = Runs(own_database)
    with running_shard(own_database, executors=2) as shard:
        runs.add("nap", 60, count=2)
        shard.wait_snapshot(lambda s: s["running"] == 2, "they run")
        hurt: Callable[[], None] = own_database.cluster.freeze if freeze else own_database.cluster.kill
        hurt()
        shard.wait_snapshots(6)  # by then it has asked the database something
        shard.close_lifeline()
        shard.wait_gone(timeout=2.5)
        own_database.cluster.thaw()
