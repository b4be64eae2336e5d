"""Rows that other programs insert, exactly as older producers do, run to completion; broken ones fail with the right kind, at once."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

StartDaemon = Callable[..., Daemon]

# As an ORM without database defaults sends it: every column that may not be null, by name.
INSERT = """
INSERT INTO task_runs (backend_alias, queue_name, priority, run_after, spec_json, spec_hash, status, enqueued_at, attempts, max_attempts,
                       timeout_seconds, lock_key, concurrency_key, concurrency_limit, worker_ids, errors_json, metadata_json, wait_count,
                       created_at, updated_at, cancel_requested)
VALUES ('default', 'default', %s, NULL, %s::jsonb, %s, 'READY', now(), 0, %s, 900, NULL, NULL, 0, '[]', '[]', '{}', 0, now(), now(), false)
RETURNING result_id
"""


def canonical_spec(path: str, *args: object, **keys: Any) -> dict[str, Any]:
    """Return a spec with the keys that the older producers write."""
    spec = {
        "v": 1,
        "task_path": f"workers.demo.tasks.{path}",
        "args": list(args),
        "kwargs": {},
        "takes_context": False,
        "queue_name": "default",
        "priority": 0,
        "lock_key": None,
        "concurrency_key": None,
        "concurrency_limit": 0,
        "run_after": None,
        "exec": {"timeout_seconds": 900, "max_attempts": 3},
        "provenance": {"code_ref": None, "pip_lock_hash": None},
    }
    return {**spec, **keys}


def insert(database: Database, spec: object, *, priority: int = 0, max_attempts: int = 3) -> int:
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    ((run,),) = database.query(INSERT, priority, text, hashlib.sha256(text.encode()).hexdigest(), max_attempts)
    return int(run)


def ended(database: Database, run: int) -> tuple[str, Any, list[dict[str, Any]]]:
    """Wait for the end of a run; return its status, result and errors."""
    statement = "SELECT status, return_json, errors_json FROM task_runs WHERE result_id = %s AND finished_at IS NOT NULL"
    ((status, value, errors),) = eventually(lambda: database.query(statement, run), timeout=30, what=f"run {run} ends")
    return status, value, errors


def test_rows_of_older_producers_run_to_completion(start_daemon: StartDaemon, database: Database) -> None:
    start_daemon(demo_config(database.dsn))
    runs = [insert(database, canonical_spec("echo", number), priority=number % 5) for number in range(50)]
    for number, run in enumerate(runs):
        assert ended(database, run) == ("SUCCESSFUL", {"args": [number], "kwargs": {}}, [])
    row = database.query(
        "SELECT DISTINCT attempts, task_path, jsonb_array_length(worker_ids), leased_by, leased_until, last_error,"
        " finished_at >= started_at AND started_at >= last_attempted_at AND last_attempted_at >= enqueued_at FROM task_runs"
    )
    assert row == [(1, "workers.demo.tasks.echo", 1, None, None, None, True)]


def test_a_shard_enters_itself_into_the_table_of_workers(start_daemon: StartDaemon, database: Database) -> None:
    start_daemon(demo_config(database.dsn, pool={"executors": 2}))
    statement = "SELECT concurrency, queues, version IS NOT NULL, last_seen_at >= started_at FROM reproq_workers"
    assert eventually(lambda: database.query(statement), what="a row of the worker") == [(2, ["default"], True, True)]


def test_rows_by_copy_run_to_completion(start_daemon: StartDaemon, database: Database) -> None:
    start_daemon(demo_config(database.dsn))
    with database.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY task_runs (spec_json, spec_hash) FROM STDIN") as copy:
            for number in range(200):
                text = json.dumps(canonical_spec("echo", number))
                copy.write_row((text, hashlib.sha256(text.encode()).hexdigest()))
        connection.commit()
    done = "SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'"
    eventually(lambda: database.query(done) == [(200,)], timeout=30, what="all rows of the COPY have run")


BROKEN: list[tuple[object, str, str]] = [
    ([1, 2, 3], "invalid_spec", "expected an object"),
    (canonical_spec("echo", args="abc"), "invalid_spec", "args: expected an array"),
    (canonical_spec("echo", kwargs=[1]), "invalid_spec", "kwargs: expected an object"),
    (canonical_spec("echo", task_path=7), "invalid_spec", "task_path"),
    (canonical_spec("echo", task_path="os.getpid"), "security_violation", "os.getpid"),
    (canonical_spec("os.getpid"), "security_violation", "os"),
    (canonical_spec("no_such_task"), "app_error", "no_such_task"),
    (canonical_spec("x", task_path="workers.demo.no_such_module.task"), "app_error", "no_such_module"),
    (canonical_spec("return_nan"), "bad_result", "NaN"),
    (canonical_spec("return_nul"), "bad_result", "NUL"),
    (canonical_spec("return_large"), "bad_result", "at most"),
    (canonical_spec("return_object"), "bad_result", "object"),
]


def test_a_broken_row_fails_at_once_with_the_right_kind(start_daemon: StartDaemon, database: Database) -> None:
    start_daemon(demo_config(database.dsn, pool={"executors": 1}))
    runs = []
    for spec, _, _ in BROKEN:
        text = json.dumps(spec)
        # The column task_path is named, as some producers do; it is the path of the spec that is run, and so the one that is checked.
        ((run,),) = database.query(
            "INSERT INTO task_runs (task_path, spec_json, spec_hash) VALUES ('workers.demo.tasks.echo', %s::jsonb, %s) RETURNING result_id",
            text,
            hashlib.sha256(text.encode()).hexdigest(),
        )
        runs.append(run)
    for run, (spec, kind, words) in zip(runs, BROKEN, strict=True):
        status, value, errors = ended(database, run)
        assert (status, value) == ("FAILED", None), spec
        assert [(error["kind"], error["attempt"]) for error in errors] == [(kind, 1)], spec
        assert words in errors[0]["message"], spec
    healthy = insert(database, canonical_spec("echo", "after"))
    assert ended(database, healthy)[0] == "SUCCESSFUL"
