"""`triage`: what failed, why, and the way back."""

from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.program import Done, enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


def triage(database: Database, *arguments: object) -> Done:
    return run_program("triage", *arguments, "--dsn", database.dsn)


def failed(database: Database, count: int = 1, *arguments: object, kind: str = "app_error") -> list[int]:
    runs = enqueue(database, "--count", count, *arguments)
    for run in runs:
        finish(database, run, outcome="fail_finally", value={"kind": kind, "message": f"it broke\n{kind}"})
    return runs


def test_the_list_says_what_failed_and_where_it_goes_on(database: Database) -> None:
    first, second, third = failed(database, 3)
    done = triage(database, "list", "--limit", 2)
    header, *rows, more = done.out.splitlines()
    assert header.split() == ["id", "queue", "task", "attempts", "failed", "at", "kind", "last", "error"]
    assert [int(row.split()[0]) for row in rows] == [third, second]
    assert "1/3" in rows[0]
    assert rows[0].endswith("it broke app_error")
    assert more.startswith("there may be more: --before ")
    rest = triage(database, "list", "--limit", 2, "--before", more.split()[-1], "--json").json
    assert ([task["result_id"] for task in rest["tasks"]], rest["before"]) == ([first], None)


def test_nothing_failed(database: Database) -> None:
    assert triage(database, "list").out == "no failed tasks\n"
    assert triage(database, "retry", "--all").out == "no tasks to retry\n"


def test_the_list_takes_filters(database: Database) -> None:
    failed(database)
    (late,) = failed(database, 1, "--queue", "mail", kind="timeout")
    for given in (("--queue", "mail"), ("--kind", "timeout"), ("--queue", "mail", "--since", "1h", "--task", "demo.*.add")):
        assert [task["result_id"] for task in triage(database, "list", *given, "--json").json["tasks"]] == [late]
    assert triage(database, "list", "--until", "1h").out == "no failed tasks\n"


@pytest.mark.parametrize(
    "given", [("--kind", "bad"), ("--since", "yesterday"), ("--status", "READY"), ("--before", "x"), ("--before", "infinity/x")]
)
def test_a_filter_that_makes_no_sense_is_refused(database: Database, given: tuple[str, ...]) -> None:
    assert triage(database, "list", *given).code == 2


def test_inspect_tells_everything(database: Database) -> None:
    (run,) = failed(database, 1, "--lock-key", "till:1")
    done = triage(database, "inspect", run)
    assert done.code == 0
    assert f"{run} demo.tasks.add" in done.out
    for words in (
        "status          FAILED",
        "attempts        1 of 3",
        "lock key        till:1",
        '"task_path": "demo.tasks.add"',
        "attempt 1: app_error",
    ):
        assert words in done.out
    told = triage(database, "inspect", "--id", run, "--json").json
    assert (told["status"], told["lock_key"], told["workflow"], told["spec"]["args"]) == ("FAILED", "till:1", None, [])
    assert told["errors"][0]["kind"] == "app_error"


def test_inspect_says_who_holds_the_key(database: Database) -> None:
    holder, waiter = enqueue(database, "--lock-key", "till:1", "--count", 2)
    database.query("UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = 7 WHERE result_id = %s", holder)
    assert f"held by task {holder}, in w" in triage(database, "inspect", waiter).out


def test_inspect_wants_a_task_that_is_there(database: Database) -> None:
    assert triage(database, "inspect", 4711).code == 1
    assert triage(database, "inspect").code == 2


def test_retry_by_id_says_what_became_of_each(database: Database) -> None:
    (run,) = failed(database)
    done = triage(database, "retry", run, "--id", 4711)
    assert done.code == 1
    assert done.out == f"{run} retried\n4711 unknown: expected a task with this id, found none\n"
    assert run_program("result", run, "--dsn", database.dsn, "--json").json["status"] == "READY"


def test_retry_by_a_filter_retries_what_matches(database: Database) -> None:
    failed(database)
    late = failed(database, 2, "--queue", "mail")
    dry = triage(database, "retry", "--queue", "mail", "--dry-run", "--json").json
    assert (dry["ids"], dry["dry_run"]) == (late, True)
    done = triage(database, "retry", "--queue", "mail")
    assert (done.code, done.out) == (0, "2 retried\n")
    assert len(triage(database, "list", "--json").json["tasks"]) == 1


def test_retry_all_goes_by_batches_and_counts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_supervisor.cli.operations.bulk.BATCH", 2)
    failed(database, 5)
    assert triage(database, "retry", "--all", "--yes", "--limit", 3).out == "3 retried\n"
    done = triage(database, "retry", "--all", "--yes", "--json")
    assert (done.code, done.json["counts"]) == (0, {"retried": 2})


def test_retry_wants_to_know_which(database: Database) -> None:
    (run,) = failed(database)
    assert "got none" in triage(database, "retry").err
    assert "got both" in triage(database, "retry", run, "--all").err
    assert triage(database, "retry", run, "--queue", "default").code == 2


def test_a_duplicate_is_named(database: Database) -> None:
    (run,) = failed(database, 1)
    (twin,) = enqueue(database)
    database.query("UPDATE task_runs SET was_deduped = true, rev = rev + 1 WHERE result_id = %s", run)
    database.query("UPDATE task_runs SET dedupe_key = rtrim(spec_hash), rev = rev + 1 WHERE result_id = %s", twin)
    done = triage(database, "retry", run)
    assert (done.code, done.out) == (1, f"{run} left: {twin} is active, has the same content, and they were enqueued to be one\n")
