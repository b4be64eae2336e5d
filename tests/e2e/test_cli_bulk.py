"""Deeds for many tasks: chosen by filters, and killed in the middle."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import triage as store
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish

FAILED = """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, failed_at)
            SELECT '{"task_path": "a.b"}', n::text, 'a.b', 'FAILED', now() FROM generate_series(1, 500) n"""
STUCK = """CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
           CREATE TRIGGER stuck BEFORE UPDATE ON task_runs FOR EACH ROW WHEN (OLD.result_id = 300) EXECUTE FUNCTION stuck()"""
STUCK_PID = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


def counts(database: Database) -> dict[str, int]:
    return dict(database.query("SELECT status, count(*) FROM task_runs GROUP BY 1"))


def test_a_retry_that_is_killed_in_the_middle_is_continued_by_the_next(database: Database) -> None:
    database.query(FAILED)
    database.query(STUCK)
    command = [sys.executable, "-m", "reproq_supervisor", "triage", "retry", "--all", "--yes", "--dsn", database.dsn]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: database.query(STUCK_PID) != [], timeout=120, what="the second batch is under way")
        ((pid,),) = database.query(STUCK_PID)
        process.kill()
    database.query("SELECT pg_terminate_backend(%s)", pid)
    eventually(lambda: not database.query(STUCK_PID), timeout=60, what="its transaction is rolled back")
    assert counts(database) == {"READY": 200, "FAILED": 300}
    database.query("DROP TRIGGER stuck ON task_runs")
    done = run_program("triage", "retry", "--all", "--yes", "--dsn", database.dsn)
    assert (done.code, done.out) == (0, "300 retried\n")
    assert counts(database) == {"READY": 500}
    assert database.query("SELECT * FROM reproq_check_invariant(0)") == []


def test_where_nobody_can_be_asked_all_must_be_meant(database: Database) -> None:
    enqueue(database)
    before = counts(database)
    done = run_program("cancel", "--all", "--dsn", database.dsn)
    assert done.code == 2
    assert "expected --yes, since nobody can be asked" in done.err
    assert counts(database) == before


def test_a_script_that_retries_all_is_not_asked(database: Database) -> None:
    database.query(FAILED)
    done = run_program("triage", "retry", "--all", "--dsn", database.dsn)
    assert (done.code, done.out) == (0, "500 retried\n")


def test_an_interruption_says_what_was_done_and_how_to_go_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.query(FAILED)
    interrupt_before(monkeypatch, "retry", 3)
    done = run_program("triage", "retry", "--all", "--yes", "--dsn", database.dsn)
    assert (done.code, done.out) == (130, "")
    assert "interrupted while retrying: 400 of 500 tasks were done, and stay so; the same command goes on with the others" in done.err
    assert counts(database) == {"READY": 400, "FAILED": 100}
    assert run_program("triage", "retry", "--all", "--yes", "--dsn", database.dsn).out == "100 retried\n"


def test_what_is_enqueued_anew_is_not_to_be_enqueued_twice(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.query(FAILED)
    interrupt_before(monkeypatch, "replay", 2)
    done = run_program("replay", *range(1, 251), "--dsn", database.dsn, "--json")
    assert done.json["code"] == 130
    assert done.json["error"].endswith("200 of 250 tasks were done, and stay so; name only the others, which come after these, to go on")


def interrupt_before(monkeypatch: pytest.MonkeyPatch, deed: str, nth: int) -> None:
    """Press Ctrl-C before the *nth* batch."""
    act, calls = getattr(store, deed), count(1)

    def acting(connection: Connection[Any], batch: Sequence[RunId]) -> Any:
        if next(calls) == nth:
            raise KeyboardInterrupt
        return act(connection, batch)

    monkeypatch.setattr(store, deed, acting)


def test_cancel_by_a_filter_cancels_what_matches(database: Database) -> None:
    (ended,) = enqueue(database)
    finish(database, ended)
    waiting = enqueue(database, "--count", 3, "--queue", "bulk")
    (running,) = enqueue(database)
    database.query("UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = 7 WHERE result_id = %s", running)
    dsn = ("--dsn", database.dsn)
    dry = run_program("cancel", "--all", "--dry-run", "--json", *dsn).json
    assert dry["ids"] == [*waiting, running]
    assert run_program("cancel", "--task", "demo.*", "--status", "READY", "--queue", "bulk", *dsn).out == "3 cancelled\n"
    assert run_program("cancel", "--all", "--yes", *dsn).out == "1 are running; asked to stop\n"
    assert run_program("cancel", "--queue", "nobodys", *dsn).out == "no tasks to cancel\n"
    assert run_program("cancel", "--until", "1h", *dsn).out == "no tasks to cancel\n"


def test_cancel_in_the_older_words(database: Database) -> None:
    (run,) = enqueue(database)
    assert run_program("cancel", "--id", run, "--dsn", database.dsn).out == f"{run} cancelled\n"


def test_cancel_wants_to_know_which(database: Database) -> None:
    (run,) = enqueue(database)
    assert "got none" in run_program("cancel", "--dsn", database.dsn).err
    assert "got both" in run_program("cancel", run, "--all", "--dsn", database.dsn).err
