"""The commands that speak to the database, on a real one; nothing runs the tasks."""

from pathlib import Path

import pytest

from reproq_supervisor.store.migrate import steps
from tests.store import layouts
from tests.support.postgres import Cluster, Database
from tests.support.program import Done, enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


# migrate


def test_migrate_shows_its_plan_and_changes_nothing(empty_database: Database) -> None:
    done = run_program("migrate", "--plan", "--json", "--dsn", empty_database.dsn)
    assert (done.code, done.json["applied"]) == (0, False)
    assert [step["name"] for step in done.json["steps"]] == [step.name for step in steps()]
    assert {step["done"] for step in done.json["steps"] if step["version"]} == {False}
    assert empty_database.query("SELECT to_regclass('task_runs')") == [(None,)]


def test_migrate_of_an_older_layout_says_what_each_step_takes(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.django(connection)
        layouts.insert(connection, "READY", 3, prefix="same")
        connection.execute("UPDATE task_runs SET spec_hash = 'same'")
    plan = run_program("migrate", "--plan", "--dsn", empty_database.dsn)
    assert plan.code == 0
    (line,) = [line for line in plan.out.splitlines() if line.startswith("columns of task_runs")]
    assert "under 1 s" in line
    assert "ACCESS EXCLUSIVE on the table, for milliseconds" in line
    done = run_program("migrate", "--dsn", empty_database.dsn)
    assert "3 runs that have not ended were taken over" in done.out
    assert "2 of them are duplicates of another active run" in done.out
    after = run_program("migrate", "--plan", "--json", "--dsn", empty_database.dsn).json
    assert {step["done"] for step in after["steps"]} == {True}


def test_migrate_takes_every_step_once(empty_database: Database) -> None:
    first = run_program("migrate", "--dsn", empty_database.dsn)
    assert first.code == 0
    assert "steps taken; up to date" in first.out
    assert run_program("migrate", "--dsn", empty_database.dsn).out == "up to date\n"


def test_migrate_switches_co_existence_and_says_how_it_stands(database: Database) -> None:
    on = run_program("migrate", "--coexist", "--dsn", database.dsn)
    assert on.code == 0
    assert "when the last older worker is gone: migrate --no-coexist" in on.out
    assert run_program("migrate", "--dsn", database.dsn, "--json").json["coexist_since"] is not None
    database.query("INSERT INTO reproq_workers (worker_id, version) VALUES ('old-1', '0.0.144')")
    off = run_program("migrate", "--no-coexist", "--dsn", database.dsn)
    assert off.code == 0
    assert "an older worker is at work (old-1)" in off.out
    assert run_program("migrate", "--dsn", database.dsn, "--json").json["coexist_since"] is None


def test_a_database_without_our_schema_says_migrate(empty_database: Database) -> None:
    for command in (["enqueue", "a.b"], ["result", "1"], ["stats"]):
        done = run_program(*command, "--dsn", empty_database.dsn)
        assert done.code == 75
        assert "reproq-supervisor migrate" in done.err
        assert len(done.err.splitlines()) == 1


def test_a_database_out_of_reach_is_69_and_shows_no_password() -> None:
    done = run_program("stats", "--dsn", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert done.code == 69
    assert "expected an answer" in done.err
    assert "hunter2" not in done.err


# enqueue


def test_enqueue_prints_the_ids_and_stores_what_was_said(database: Database) -> None:
    done = run_program(
        *("enqueue", "demo.tasks.add", "--dsn", database.dsn, "--args", "[1, 2]", "--kwargs", '{"c": "ä"}', "--queue", "mail"),
        *("--priority", -5, "--delay", "1h", "--timeout", "90s", "--max-attempts", 7),
    )
    assert done.code == 0
    (run,) = map(int, done.out.split())
    rows = database.query(
        "SELECT task_path, queue_name, priority, timeout_seconds, max_attempts, spec_json->'args', spec_json->'kwargs',"
        " run_after - now() BETWEEN interval '59 minutes' AND interval '60 minutes' FROM task_runs WHERE result_id = %s",
        run,
    )
    assert rows == [("demo.tasks.add", "mail", -5, 90, 7, [1, 2], {"c": "ä"}, True)]


def test_enqueue_many_is_one_transaction(database: Database) -> None:
    ids = enqueue(database, "--count", 5000)
    assert len(set(ids)) == 5000
    assert database.query("SELECT count(*), count(DISTINCT xmin::text) FROM task_runs") == [(5000, 1)]


def test_enqueue_with_dedupe_gives_the_unfinished_one(database: Database) -> None:
    first = enqueue(database, "--dedupe", "--args", "[1]")
    assert enqueue(database, "--dedupe", "--args", "[1]") == first
    assert enqueue(database, "--dedupe", "--args", "[2]") != first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--args", "[1"], "expected JSON such as"),
        (["--args", '{"a": 1}'], "expected JSON such as"),
        (["--args", "[NaN]"], "NaN is no JSON"),
        (["--args", "[" * 100_000], "expected JSON such as"),
        (["--kwargs", "[1]"], 'expected JSON such as {"to": "me"}'),
        (["--count", "0"], "--count"),
        (["--priority", str(2**31)], "--priority"),
        (["--delay", "soon"], "expected a duration such as 10s or 1h30m, got 'soon'"),
        (["--timeout", "100ms"], "expected whole seconds"),
        (["--max-attempts", "0"], "--max-attempts"),
        (["--queue", ""], "expected a name of 1 to 200 characters"),
        (["--dedupe", "--count", "2"], "expected one of them"),
    ],
)
def test_enqueue_refuses_what_makes_no_sense(database: Database, arguments: list[str], said: str) -> None:
    done = run_program("enqueue", "demo.tasks.add", "--dsn", database.dsn, *arguments)
    assert done.code == 2
    assert said in done.err
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


@pytest.mark.parametrize("path", ["", "add", "a..b", "a.b.", "a b.c", "os;rm"])
def test_enqueue_refuses_what_names_no_task(database: Database, path: str) -> None:
    done = run_program("enqueue", "--dsn", database.dsn, "--", path)
    assert done.code == 2
    assert "expected the dotted name of a task" in done.err


def test_enqueue_of_what_the_database_refuses_is_refused_whole(database: Database) -> None:
    database.query("ALTER TABLE task_runs ADD CONSTRAINT not_urgent CHECK (priority < 5)")
    done = run_program("enqueue", "a.b", "--dsn", database.dsn, "--priority", 7, "--count", 3)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


# result


def result(database: Database, *arguments: object) -> Done:
    return run_program("result", "--dsn", database.dsn, *arguments)


def test_result_of_a_waiting_task_is_no_failure(database: Database) -> None:
    (run,) = enqueue(database, "--delay", "1h")
    done = result(database, run, "--json")
    assert done.code == 0
    assert (done.json["status"], done.json["lane_state"], done.json["park_reason"]) == ("READY", "parked", "due")
    assert "READY (parked until it is due)" in result(database, run).out


def test_result_shows_the_value(database: Database) -> None:
    (run,) = enqueue(database)
    finish(database, run, value={"sum": 3})
    done = result(database, run, "--json")
    assert (done.code, done.json["status"], done.json["result"], done.json["attempts"]) == (0, "SUCCESSFUL", {"sum": 3}, 1)
    assert 'result    {"sum": 3}' in result(database, run).out


def test_result_of_a_failure_is_1_and_shows_every_error(database: Database) -> None:
    (run,) = enqueue(database)
    finish(database, run, outcome="fail_finally", value={"kind": "app_error", "message": "no such file", "traceback": "line 1\nline 2"})
    done = result(database, run)
    assert done.code == 1
    assert "attempt 1: app_error: no such file" in done.out
    assert "    line 2\n" in done.out
    assert result(database, run, "--json").json["errors"][0]["kind"] == "app_error"


def test_result_of_an_unknown_task_says_so(database: Database) -> None:
    done = result(database, 4711)
    assert done.code == 1
    assert "task 4711: expected a task with this id, found none" in done.err


def test_result_names_the_class_of_an_error_whose_message_says_little(database: Database) -> None:
    (run,) = enqueue(database)
    finish(database, run, outcome="fail_finally", value={"kind": "app_error", "message": "3", "exception_class": "SystemExit"})
    assert "attempt 1: app_error: SystemExit: 3" in result(database, run).out


def test_result_of_what_was_cancelled_before_it_began(database: Database) -> None:
    (run,) = enqueue(database)
    run_program("cancel", "--dsn", database.dsn, run)
    assert "before an attempt: cancelled: Task cancelled by request" in result(database, run).out


@pytest.mark.parametrize("given", ["x", "0", "-1", "1_000", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000, str(2**63)])
def test_result_wants_an_id(database: Database, given: str) -> None:
    done = result(database, "--", given)
    assert done.code == 2
    assert "expected the id of a task, a whole number such as 42" in done.err
    assert len(done.err) < 1000


def test_result_waits_no_longer_than_it_was_told(database: Database) -> None:
    (run,) = enqueue(database)
    done = result(database, run, "--wait", "100ms")
    assert done.code == 75
    assert "found READY; ask again" in done.err


def test_result_waits_until_the_end(database: Database) -> None:
    (run,) = enqueue(database)
    finish(database, run)
    assert result(database, run, "--wait", "1h").code == 0


# stats


def test_stats_of_an_empty_database(database: Database) -> None:
    assert run_program("stats", "--dsn", database.dsn).out == "no tasks\n"


def test_stats_counts_by_queue_and_state(database: Database) -> None:
    first, _ = enqueue(database, "--queue", "mail", "--count", 2)
    enqueue(database, "--queue", "mail", "--delay", "1h")
    finish(database, first)
    done = run_program("stats", "--dsn", database.dsn, "--json")
    mail = done.json["queues"]["mail"]
    assert (mail["ready"], mail["parked"], mail["running"], mail["ended"]["successful"]) == (1, 1, 0, 1)
    header, row = run_program("stats", "--dsn", database.dsn).out.splitlines()
    assert header.split()[:2] == ["queue", "ready"]
    assert (row.split()[:2], row.split()[3:6]) == (["mail", "1"], ["0", "1", "0"])
    assert len(header.rstrip()) <= 80


def test_stats_say_which_queue_is_paused(database: Database) -> None:
    enqueue(database, "--queue", "mail")
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused, reason) VALUES ('mail', true, 'upgrade')")
    assert run_program("stats", "--dsn", database.dsn).out.splitlines()[-1] == "mail is paused, nobody claims from it: upgrade"


# which database


def test_without_a_daemon_the_embedded_database_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "supervisor.yaml").write_text("{}")
    done = run_program("stats")
    assert done.code == 69
    assert "reproq-supervisor run -c supervisor.yaml" in done.err


def test_the_environment_names_the_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.dsn)
    assert run_program("stats").code == 0


def test_a_url_that_is_none_is_said_without_a_trace(cluster: Cluster) -> None:
    done = run_program("stats", "--dsn", "postgresql://[::")
    assert done.code in (1, 69)
    assert "Traceback" not in done.err
