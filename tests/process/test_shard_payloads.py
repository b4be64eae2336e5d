"""Payloads near their limit, many of them: through hand-out, take-back, results and dismissal."""

from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.runs import ODD, Runs
from tests.support.shard import running_shard

LARGE = "x" * 1_000_000  # past the buffers of a socket, below the limit
MIB = 1 << 20


def peak_memory(pid: int) -> int:
    """Return the most memory that *pid* ever had."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


def test_large_payloads_and_results_pass_through(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=2):
        ids = runs.add_copies(f"{ODD}give_back", LARGE, count=30)
        assert {(run.end, run.result == LARGE) for run in runs.ended(ids)} == {(("SUCCESSFUL", None, 1), True)}


def test_large_payloads_after_many_small_ones_are_handed_out_in_frames_that_an_executor_takes(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        runs.ended(runs.add(f"{ODD}length", "", count=300))
        before = shard.wait_executors(1)
        ids = runs.add_copies(f"{ODD}length", LARGE, count=70)
        assert {(run.end, run.result) for run in runs.ended(ids)} == {(("SUCCESSFUL", None, 1), len(LARGE))}
        assert shard.wait_executors(1) == before


def test_waiting_behind_a_long_task_costs_no_memory(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        runs.ended(runs.add(f"{ODD}length_after", "", 0, count=100))
        (long,) = runs.add(f"{ODD}length_after", "", 3, priority=1)
        ids = runs.add_copies(f"{ODD}length_after", LARGE, 0, count=20)
        shard.wait_snapshot(lambda s: s["held"] >= 10, "it holds the large ones")
        before = peak_memory(shard.pid)
        assert runs.ended([long])[0].status == "SUCCESSFUL"
        assert peak_memory(shard.pid) - before < 60 * MIB
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}


def test_a_payload_over_the_limit_fails_at_once_and_hurts_nobody(database: Database, runs: Runs) -> None:
    with running_shard(database, executors=1) as shard:
        before = shard.wait_executors(1)
        (too_large,) = runs.add(f"{ODD}length", "x" * (9 * MIB), max_attempts=5)
        ids = runs.add("echo", count=10)
        run = runs.ended([too_large])[0]
        assert run.end == ("FAILED", "invalid_spec", 0)  # it was never begun
        assert "at most 1048576 bytes" in run.message
        assert {run.status for run in runs.ended(ids)} == {"SUCCESSFUL"}
        assert shard.wait_executors(1) == before


@pytest.mark.parametrize("depth", [400, 5000])
def test_a_payload_nested_deep_runs_or_fails_with_its_reason(database: Database, runs: Runs, depth: int) -> None:
    spec = f'{{"task_path": "workers.demo.tasks.add", "args": [1, 2], "wide": "{"x" * 900_000}", "deep": {"[" * depth}{"]" * depth}}}'
    ids = runs.add_spec(spec)
    with running_shard(database, executors=1):
        end = runs.ended(ids)[0].end
    # How deep JSON may be nested depends on the version of Python.
    assert end == ("SUCCESSFUL", None, 1) or (depth > 400 and end == ("FAILED", "invalid_spec", 1))


def test_a_drain_while_large_work_is_on_its_way_counts_no_attempt(database: Database, runs: Runs) -> None:
    ids = runs.add_copies(f"{ODD}length_after", LARGE, 0.05, count=40)
    for _ in range(4):
        with running_shard(database, executors=2) as shard:
            shard.wait_snapshot(lambda s: s["progress"] > 0 or not runs.lane(), "work is under way")
            shard.say("drain", timeout=5)
            assert shard.wait_exit() == 0
    with running_shard(database, executors=2):
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}


def test_shrinking_while_large_work_is_on_its_way_counts_no_attempt(database: Database, runs: Runs) -> None:
    ids = runs.add_copies(f"{ODD}length_after", LARGE, 0.01, count=80)
    with running_shard(database, executors=4) as shard:
        for size in [1, 4] * 10:
            shard.adjust(executors=size)
            shard.wait_snapshot(lambda s, size=size: s["executors"]["wanted"] == size, "the new size is known")
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}
