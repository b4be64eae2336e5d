"""`prune`, `replay` and `reclaim`, on a real database."""

from pathlib import Path

import pytest

from reproq_supervisor.client import Client, NewRun, chain
from tests.support.postgres import Database
from tests.support.program import Done, enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


def run(database: Database, *arguments: object) -> Done:
    return run_program(*arguments, "--dsn", database.dsn)


def old(database: Database, count: int = 1, days: int = 10, **ending: object) -> list[int]:
    runs = enqueue(database, "--count", count)
    for each in runs:
        finish(database, each, **ending)  # type: ignore[arg-type]
    database.query(
        "UPDATE task_runs SET finished_at = now() - %s * interval '1 d', rev = rev + 1 WHERE result_id = ANY (%s)", days, list(runs)
    )
    return runs


FAILED = {"outcome": "fail_finally", "value": {"kind": "app_error", "message": "no"}}


def test_prune_says_what_would_go_and_then_what_went(database: Database) -> None:
    old(database, 3)
    old(database, 2, **FAILED)
    old(database, 1, days=1)
    assert run(database, "prune", "--dry-run").out == "2 FAILED would be deleted\n3 SUCCESSFUL would be deleted\n"
    assert run(database, "prune", "--older-than", "7d", "--older-than", "FAILED=30d").out == "3 SUCCESSFUL deleted\n"
    told = run(database, "prune", "--json").json
    assert (told["ok"], told["deleted"], told["spared"], told["left"]) == (True, {"FAILED": 2}, 0, 0)
    assert run(database, "prune").out == "no tasks to delete\n"


def test_prune_of_one_status(database: Database) -> None:
    old(database, 2, **FAILED)
    old(database)
    assert run(database, "prune", "successful", "--older-than", "1d").out == "1 SUCCESSFUL deleted\n"
    assert run(database, "prune", "--statuses", "FAILED,CANCELLED", "--limit", 1).out == "1 FAILED deleted\n"


def test_prune_deletes_what_the_tasks_printed(database: Database, tmp_path: Path) -> None:
    (task,) = old(database)
    log = tmp_path / f"task-{task}-attempt-1.log"
    log.write_text("STDOUT:\nx\n")
    keep = tmp_path / "keep.txt"
    keep.touch()
    database.query("UPDATE task_runs SET logs_uri = %s, rev = rev + 1", str(log))
    assert run(database, "prune", "--dry-run", "--json").json["files"] == 1
    assert log.exists()
    assert run(database, "prune", "--json").json["files"] == 1
    assert not log.exists()
    assert keep.exists()


def test_prune_expired_ends_what_waits_and_deletes_what_ended(database: Database) -> None:
    (waiting,) = enqueue(database)
    old(database)
    database.query("UPDATE task_runs SET expires_at = now() - interval '1 h', rev = rev + 1")
    dry = run(database, "prune", "expired", "--dry-run")
    assert dry.out == "1 waiting tasks would be ended as expired\n1 SUCCESSFUL would be deleted\n"
    done = run(database, "prune", "expired", "--limit", 1)
    assert (done.code, done.out) == (0, "1 waiting tasks ended as expired\n1 SUCCESSFUL deleted\n")
    assert database.query("SELECT result_id, status FROM task_runs") == [(waiting, "FAILED")]
    assert run(database, "prune", "expired").out == "1 FAILED deleted\n"
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


@pytest.mark.parametrize("what", [("ended",), ("ended", "--older-than", "FAILED=30d"), ("successful",), ("expired",), ("workers",)])
def test_a_dry_run_says_what_the_run_after_it_does(database: Database, what: tuple[str, ...]) -> None:
    """Of workflows that go, of those that are kept by one member, by a status or by being young, and of everything else."""
    with Client(database.dsn) as client:
        flows = [client.begin(chain(NewRun("app.task"), NewRun("app.task")))[0] for _ in range(4)]
        client.enqueue(NewRun("app.task"))
    old(database, 3)
    old(database, 2, **FAILED)
    database.query("UPDATE task_runs SET expires_at = now() - interval '1 h', rev = rev + 1 WHERE result_id % 2 = 0")
    goes, has_failed, _waits, is_young = flows
    for flow, statuses in ((goes, "{SUCCESSFUL}"), (has_failed, "{FAILED}"), (is_young, "{SUCCESSFUL}")):
        database.query(
            """UPDATE task_runs SET status = (%s::text[])[1], finished_at = now() - interval '10 d', rev = rev + 1
               WHERE workflow_id = (SELECT workflow_id FROM task_runs WHERE result_id = %s)""",
            statuses,
            flow,
        )
    database.query(
        """UPDATE workflow_runs SET updated_at = now() - interval '10 d'
           WHERE workflow_id <> (SELECT workflow_id FROM task_runs WHERE result_id = %s)""",
        is_young,
    )
    database.query("INSERT INTO reproq_workers (worker_id, last_seen_at) VALUES ('old', now() - interval '1 h'), ('new', now())")
    dry, done = (run(database, "prune", *what, *more, "--json").json for more in (("--dry-run",), ()))
    assert dry.pop("dry_run")
    assert not done.pop("dry_run")
    assert dry == done
    again = run(database, "prune", *what, "--dry-run", "--json").json
    assert what == ("expired",) or not any(again[name] for name in ("deleted", "workflows", "workers") if name in again)


def test_prune_of_workers(database: Database) -> None:
    database.query("INSERT INTO reproq_workers (worker_id, last_seen_at) VALUES ('old', now() - interval '1 h'), ('new', now())")
    assert run(database, "prune", "workers", "--dry-run").out == "1 workers would be forgotten\n"
    assert run(database, "prune", "workers", "--json").json["workers"] == ["old"]
    assert database.query("SELECT worker_id FROM reproq_workers") == [("new",)]


def test_prune_says_what_it_had_to_leave(database: Database) -> None:
    (task,) = old(database)
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (task,))
        done = run(database, "prune")
    assert done.code == 1
    assert "1 left: locked" in done.out


@pytest.mark.parametrize("given", [("--older-than", "long"), ("--older-than", "READY=1d"), ("--statuses", "RUNNING"), ("everything",)])
def test_prune_refuses_what_makes_no_sense(database: Database, given: tuple[str, ...]) -> None:
    assert run(database, "prune", *given).code == 2


def test_replay_in_the_older_words(database: Database) -> None:
    (task,) = enqueue(database)
    assert run(database, "replay", "--id", task).out == f"Requeued task {task} as new result_id {task + 1}\n"
    ((hash_,),) = database.query("SELECT rtrim(spec_hash) FROM task_runs WHERE result_id = %s", task)
    assert run(database, "replay", "--spec-hash", hash_, "--json").json["tasks"] == [
        {"id": task + 1, "outcome": "enqueued", "other": task + 2}
    ]


def test_replay_wants_to_know_which(database: Database) -> None:
    assert run(database, "replay").code == 2
    assert run(database, "replay", 1, "--spec-hash", "x").code == 2
    assert run(database, "replay", "--spec-hash", "'; DROP").code == 2
    done = run(database, "replay", "--spec-hash", "abc")
    assert (done.code, "expected a task with this content" in done.err) == (1, True)
    assert run(database, "replay", 4711).code == 1


def test_reclaim_takes_back_what_expired(database: Database) -> None:
    first, second, held = enqueue(database, "--count", 3)
    for task, ends in ((first, "-1 h"), (second, "-1 min"), (held, "1 h")):
        database.query(
            """UPDATE task_lane SET state = 'running', leased_by = 'gone', lease_no = nextval('reproq_lease_seq'), attempts = 1,
                                    leased_until = now() + %s::interval WHERE result_id = %s""",
            ends,
            task,
        )
    assert run(database, "reclaim", "--older-than", "2h").out == "no expired leases\n"
    dry = run(database, "reclaim", "--dry-run", "--json").json
    assert [task["id"] for task in dry["tasks"]] == [first, second]
    assert run(database, "reclaim", "--older-than", "10m").out == "1 requeued\n"
    done = run(database, "reclaim", "--action", "fail", "--include-null-lease", "--json")
    assert (done.code, done.json["tasks"]) == (0, [{"id": second, "outcome": "failed"}])
    assert run_program("result", held, "--dsn", database.dsn, "--json").json["status"] == "RUNNING"
