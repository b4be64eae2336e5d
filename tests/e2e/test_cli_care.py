"""The commands for a bad day: cancel, logs, doctor."""

from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


# cancel


def test_cancel_ends_what_waits_and_says_what_it_could_not_do(database: Database) -> None:
    waiting, ended = enqueue(database, "--count", 2)
    finish(database, ended)
    done = run_program("cancel", waiting, ended, 4711, waiting, "--dsn", database.dsn, "--json")
    assert done.code == 1
    assert [(each["id"], each["outcome"]) for each in done.json] == [(waiting, "cancelled"), (ended, "ended"), (4711, "unknown")]
    assert run_program("result", waiting, "--dsn", database.dsn, "--json").json["status"] == "CANCELLED"


def test_cancel_of_a_running_task_asks_its_holder_however_often(database: Database) -> None:
    (run,) = enqueue(database)
    database.query("UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = 7 WHERE result_id = %s", run)
    for _ in range(2):
        done = run_program("cancel", run, "--dsn", database.dsn)
        assert (done.code, done.out) == (0, f"{run} is running; asked to stop\n")
    assert "RUNNING (to be cancelled)" in run_program("result", run, "--dsn", database.dsn).out


def test_cancel_wants_an_id(database: Database) -> None:
    assert run_program("cancel", "--dsn", database.dsn).code == 2
    assert run_program("cancel", "all", "--dsn", database.dsn).code == 2


# logs


@pytest.fixture
def printed(database: Database, tmp_path: Path) -> tuple[int, Path]:
    """A task with captured output, and the file."""
    (run,) = enqueue(database)
    finish(database, run)
    path = tmp_path / "task.log"
    path.write_bytes(b"STDOUT:\none\r\ntwo \xff\nSTDERR:\nthree\n")
    database.query("UPDATE task_runs SET logs_uri = %s, rev = rev + 1 WHERE result_id = %s", str(path), run)
    return run, path


def test_logs_shows_what_was_printed(database: Database, printed: tuple[int, Path]) -> None:
    run, path = printed
    done = run_program("logs", run, "--dsn", database.dsn)
    assert (done.code, done.out) == (0, "STDOUT:\none\r\ntwo \N{REPLACEMENT CHARACTER}\nSTDERR:\nthree\n")
    answer = run_program("logs", run, "--dsn", database.dsn, "--json").json
    assert (answer["id"], answer["path"], answer["text"], answer["running_attempt"]) == (run, str(path), done.out, None)


@pytest.mark.parametrize(("lines", "shown"), [(0, ""), (1, "three\n"), (2, "STDERR:\nthree\n")])
def test_logs_shows_the_last_lines(database: Database, printed: tuple[int, Path], lines: int, shown: str) -> None:
    assert run_program("logs", printed[0], "--tail", lines, "--dsn", database.dsn).out == shown


def test_logs_of_a_file_that_is_gone_says_where_it_was(database: Database, printed: tuple[int, Path]) -> None:
    run, path = printed
    path.unlink()
    done = run_program("logs", run, "--dsn", database.dsn)
    assert done.code == 1
    assert f"expected its output in {path}, got: No such file" in done.err


def test_logs_says_why_there_are_none(database: Database) -> None:
    waiting, ended = enqueue(database, "--count", 2)
    finish(database, ended)
    assert "it has not finished an attempt" in run_program("logs", waiting, "--dsn", database.dsn).err
    assert "it printed nothing, or the configuration has no logs_dir" in run_program("logs", ended, "--dsn", database.dsn).err
    assert "expected a task with this id" in run_program("logs", 4711, "--dsn", database.dsn).err


def test_logs_says_that_a_later_attempt_still_runs(database: Database, printed: tuple[int, Path]) -> None:
    first, _ = printed
    (run,) = enqueue(database)
    database.query("UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = 7, attempts = 2 WHERE result_id = %s", run)
    assert "its attempt 2 still runs; what it prints is kept when it ends" in run_program("logs", run, "--dsn", database.dsn).err
    uri = database.query("SELECT logs_uri FROM task_runs WHERE result_id = %s", first)[0][0]
    database.query("UPDATE task_runs SET logs_uri = %s, rev = rev + 1 WHERE result_id = %s", uri, run)
    done = run_program("logs", run, "--tail", 1, "--dsn", database.dsn)
    assert (done.code, done.out) == (0, "three\n")
    assert "attempt 2 runs" in done.err


# doctor


def doctor(database: Database, *arguments: object) -> tuple[int, list[tuple[str, str]]]:
    done = run_program("doctor", "--dsn", database.dsn, "--json", *arguments)
    return done.code, [(finding["level"], finding["check"]) for finding in done.json["findings"]]


def test_doctor_finds_nothing_wrong_with_a_new_database(database: Database) -> None:
    code, findings = doctor(database, "--strict")
    assert code == 0
    assert ("ok", "schema") in findings
    assert ("ok", "invariant") in findings


def test_doctor_finds_a_record_without_its_lane_row(database: Database) -> None:
    (run,) = enqueue(database)
    database.query("DELETE FROM task_lane WHERE result_id = %s", run)
    code, findings = doctor(database)
    assert code == 1
    assert ("error", "invariant") in findings


def test_doctor_warns_of_tasks_that_nobody_will_run(database: Database) -> None:
    enqueue(database, "--queue", "nobodys")
    assert doctor(database)[0] == 0
    code, findings = doctor(database, "--strict")
    assert code == 1
    assert ("warning", "queues") in findings
    assert "nobodys has 1 task ready" in run_program("doctor", "--dsn", database.dsn).out


def test_doctor_of_an_old_schema_says_migrate(empty_database: Database) -> None:
    code, findings = doctor(empty_database)
    assert code == 1
    assert ("error", "schema") in findings


def test_doctor_tells_everything_though_the_database_is_away(tmp_path: Path) -> None:
    (tmp_path / "supervisor.yaml").write_text("{app: {allowed_task_modules: ['*']}, webb: 1}")
    done = run_program("doctor", "--dsn", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert done.code == 69
    assert "webb: expected a known key" in done.out
    assert "expected an answer" in done.out
    assert "hunter2" not in done.out


def test_doctor_of_a_broken_file_that_names_the_database_is_78(tmp_path: Path) -> None:
    (tmp_path / "supervisor.yaml").write_text("{webb: 1}")
    done = run_program("doctor")
    assert done.code == 78
    assert done.out.count("webb") == 1


def test_doctor_is_strict_about_what_lets_anybody_in(database: Database, tmp_path: Path) -> None:
    (tmp_path / "supervisor.yaml").write_text("{app: {allowed_task_modules: ['*']}}")
    assert doctor(database)[0] == 0
    code, findings = doctor(database, "--strict")
    assert code == 1
    assert ("warning", "tasks") in findings


def test_doctor_knows_a_queue_that_another_host_serves(database: Database) -> None:
    enqueue(database, "--queue", "elsewhere")
    database.query("""INSERT INTO reproq_workers (worker_id, queues, version) VALUES ('other', '["elsewhere"]', 'reproq-supervisor 1.0')""")
    assert doctor(database, "--strict")[0] == 0


def test_doctor_says_that_nobody_serves_a_queue_of_the_configuration_at_the_moment(database: Database) -> None:
    enqueue(database)
    assert "no worker that serves it was seen" in run_program("doctor", "--dsn", database.dsn).out
