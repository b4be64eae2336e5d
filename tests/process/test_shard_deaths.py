"""Kill and freeze every piece of a shard in the middle of its work: every run ends once, and only a crashed one counts an attempt."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.core.runs import RunId
from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Database
from tests.support.runs import ODD, Run, Runs
from tests.support.shard import running_shard

BACKLOG = 200


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def add_backlog(runs: Runs, record: Path) -> list[RunId]:
    """Enqueue tasks of 20 ms that tell when they begin and end."""
    return runs.add("record_interval", str(record), "run", 0.02, count=BACKLOG)


def started(record: Path) -> int:
    return record.read_text().count(" start ") if record.exists() else 0


def wait_started(record: Path, count: int) -> None:
    eventually(lambda: started(record) >= count, what=f"{count} runs start")


def attempts_of(runs: list[Run]) -> Counter[int]:
    assert {run.status for run in runs} == {"SUCCESSFUL"}
    return Counter(run.attempts for run in runs)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_killed_idle_executor_is_replaced(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        killed = shard.wait_executors(2)[0]
        kill(killed)
        shard.wait_event("executor.exited")
        assert killed not in shard.wait_executors(2)
        assert runs.end_of("echo").end == ("SUCCESSFUL", None, 1)


def test_a_frozen_idle_executor_is_replaced(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        freeze(shard.wait_executors(1)[0])
        shard.wait_event("executor.exited")
        assert runs.end_of("echo").end == ("SUCCESSFUL", None, 1)


@pytest.mark.parametrize("hurt", [kill, freeze])
def test_only_the_run_of_a_lost_executor_counts_an_attempt(
    database: Database, runs: Runs, tmp_path: Path, hurt: Callable[[int], None]
) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=2) as shard:
        ids = add_backlog(runs, record)
        wait_started(record, 50)
        hurt(shard.executors[0])
        ended = runs.ended(ids)
        attempts = attempts_of(ended)
        assert attempts[1] >= BACKLOG - 1
        assert {error["kind"] for run in ended for error in run.errors} <= {"worker_crashed"}
        assert started(record) <= BACKLOG + attempts[2]


def test_two_executors_killed_at_once_cost_two_attempts_at_most(database: Database, runs: Runs, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=3) as shard:
        ids = add_backlog(runs, record)
        wait_started(record, 50)
        for pid in shard.executors[:2]:
            kill(pid)
        assert attempts_of(runs.ended(ids))[1] >= BACKLOG - 2
        shard.wait_executors(3)


def test_work_in_the_hands_of_a_killed_executor_that_had_not_started_it_counts_nothing(
    database: Database, runs: Runs, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=1) as shard:
        runs.ended(runs.add("record_interval", str(record), "warm", 0, count=50))
        (long,) = runs.add("record_interval", str(record), "long", 60, max_attempts=1, priority=1)
        behind = runs.add("record_interval", str(record), "behind", 0, count=50)
        eventually(lambda: "long start" in record.read_text(), what="the long one starts")
        shard.kill(signal.SIGSTOP)  # it cannot take back what it handed out
        kill(shard.executors[0])
        shard.kill(signal.SIGCONT)
        assert [run.end for run in runs.ended([long])] == [("FAILED", "worker_crashed", 1)]
        assert attempts_of(runs.ended(behind)) == {1: 50}
        assert record.read_text().count("behind start") == 50


@pytest.mark.parametrize("hurt", [kill, freeze])
def test_a_lost_nursery_costs_no_attempt_and_the_shard_leaves_everything_released(
    database: Database, runs: Runs, tmp_path: Path, hurt: Callable[[int], None]
) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=2, log=tmp_path / "shard.log") as shard:
        ids = add_backlog(runs, record)
        wait_started(record, 20)
        hurt(shard.nursery_pid)
        assert shard.wait_exit() == 70
        assert "nursery" in shard.wait_said("failed")["reason"]
        shard.wait_gone()
        assert set(runs.lane()) <= {"ready"}
        assert "Traceback" not in shard.log
    with running_shard(database, executors=2):
        assert attempts_of(runs.ended(ids)) == {1: BACKLOG}


def test_a_nursery_that_is_told_to_end_takes_its_executors_along(database: Database, runs: Runs, tmp_path: Path) -> None:
    with running_shard(database, executors=2, log=tmp_path / "shard.log") as shard:
        (run,) = runs.add("nap", 60)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        os.kill(shard.nursery_pid, signal.SIGTERM)
        assert shard.wait_exit() == 70
        shard.wait_gone()
        assert [(r.lane, r.errors) for r in runs.look([run])] == [("ready", [])]
        assert "Traceback" not in shard.log


@pytest.mark.parametrize("signum", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_run_that_ends_its_nursery_again_and_again_fails_and_what_ran_beside_it_does_not(
    database: Database, runs: Runs, tmp_path: Path, signum: signal.Signals
) -> None:
    record, go = tmp_path / "began", tmp_path / "go"
    (beside,) = runs.add(f"{ODD}tick", str(tmp_path / "ticks"), 3600, str(go), max_attempts=1, priority=5)
    killer: list[RunId] = []
    for deaths in range(1, 6):
        with running_shard(database, executors=2) as shard:
            if not killer:
                shard.wait_snapshot(lambda s: s["running"] == 1, "the other one runs")
                killer += runs.add(f"{ODD}kill_parent", str(record), int(signum), max_attempts=1)
            assert shard.wait_exit(60) == 70
            assert record.read_text().count("began") == deaths
        # The first four are uncounted, and the fourth parts it from what was claimed with it.
        if deaths < 5:
            (row,) = runs.look(killer)
            assert (row.lane, row.end) == ("parked" if deaths == 4 else "ready", ("READY", None, 0))
        database.query("UPDATE task_lane SET state = 'ready', park_reason = NULL WHERE result_id = ANY (%s) AND state = 'parked'", killer)
    assert [run.end for run in runs.look(killer)] == [("FAILED", "worker_crashed", 1)]
    assert "nursery" in runs.look(killer)[0].message
    go.touch()
    with running_shard(database, executors=2):
        assert [run.end for run in runs.ended([beside])] == [("SUCCESSFUL", None, 1)]


def test_a_nursery_that_is_told_to_reap_what_it_has_not_yet_seen_dead_does_so(database: Database, runs: Runs, tmp_path: Path) -> None:
    with running_shard(database, executors=4, log=tmp_path / "shard.log") as shard:
        runs.add("nap", 60, count=4)
        shard.wait_snapshot(lambda s: s["running"] == 4, "all run")
        executors, nursery = shard.executors, shard.nursery_pid
        freeze(nursery)
        shard.wait_snapshots(3)  # a ping waits in its channel, which it will therefore read first
        shard.close_lifeline()
        eventually(lambda: all(state_of(pid) == "Z" for pid in executors), what="the shard has killed its executors")
        os.kill(nursery, signal.SIGCONT)
        assert shard.wait_exit() == 0
        shard.wait_gone()
        assert "Traceback" not in shard.log


def test_a_shard_that_was_frozen_for_a_while_goes_on_as_if_nothing_had_been(database: Database, runs: Runs, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=2) as shard:
        pieces = [shard.nursery_pid, *shard.wait_executors(2)]
        ids = add_backlog(runs, record)
        for count in (20, 60, 100):
            wait_started(record, count)
            shard.kill(signal.SIGSTOP)
            shard.let_run(1.5)
            shard.kill(signal.SIGCONT)
        assert attempts_of(runs.ended(ids)) == {1: BACKLOG}
        assert [shard.nursery_pid, *shard.wait_executors(2)] == pieces


def test_a_killed_shard_takes_everything_along_and_its_runs_go_on_elsewhere_uncounted(
    database: Database, runs: Runs, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    with running_shard(database, executors=2) as shard:
        ids = add_backlog(runs, record)
        wait_started(record, 50)
        shard.kill()
        shard.wait_gone(timeout=2)
        assert runs.release(shard.start_message["worker_id"]) > 0
    with running_shard(database, executors=2):
        assert attempts_of(runs.ended(ids)) == {1: BACKLOG}


def test_shard_and_nursery_killed_at_once_leave_no_executor_alive(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        runs.add(f"{ODD}leave_family")
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        pieces = {shard.pid, shard.nursery_pid, *shard.executors}
        freeze(shard.nursery_pid)
        shard.kill()
        kill(shard.nursery_pid)
        eventually(lambda: not set(shard.processes()) & pieces, what="shard, nursery and executors are gone")
        shard.kill_strays()  # what the executors had started falls to the supervisor


def test_a_frozen_nursery_does_not_hold_up_a_shard_whose_supervisor_is_gone(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2) as shard:
        ids = runs.add("nap", 60)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        freeze(shard.nursery_pid)
        shard.close_lifeline()
        shard.wait_gone(timeout=2)
        assert [run.lane for run in runs.look(ids)] == ["ready"]


def test_the_whole_family_of_a_killed_executor_is_gone(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        own = {shard.pid, shard.nursery_pid}
        executor = shard.wait_executors(1)[0]
        run = runs.add(f"{ODD}leave_family", max_attempts=1)
        # Two in a session of their own; the one that was double-forked is adopted, and killed, at once or with the rest.
        family = eventually(lambda: len(left := set(shard.processes()) - own - {executor}) >= 2 and left, what="the family is there")
        assert isinstance(family, set)
        kill(executor)
        assert runs.ended(run)[0].end == ("FAILED", "worker_crashed", 1)
        eventually(lambda: not family & set(shard.processes()), what="the family is gone")


def test_a_task_that_freezes_its_own_executor_is_a_crash(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1):
        run = runs.end_of(f"{ODD}stop_itself", max_attempts=1)
        assert run.end == ("FAILED", "worker_crashed", 1)


def test_a_run_under_suspicion_starts_when_it_is_shown_and_others_pass_it(database: Database, runs: Runs) -> None:
    ids = runs.add("echo", count=40)
    database.query("UPDATE task_lane SET deaths = 5 WHERE result_id = ANY (%s)", ids[::2])
    with running_shard(database, executors=2):
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
