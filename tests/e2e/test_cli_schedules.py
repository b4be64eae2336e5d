"""`schedule`, `beat` and `pg-cron`, on a real database."""

import json
from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings, run_program

FAKE_PG_CRON = """
CREATE SCHEMA cron;
CREATE TABLE cron.job (
    jobid bigserial PRIMARY KEY, jobname text UNIQUE, schedule text, command text, database text DEFAULT current_database());
CREATE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint LANGUAGE sql AS
    $$ INSERT INTO cron.job (jobname, schedule, command) VALUES ($1, $2, $3) RETURNING jobid $$;
CREATE FUNCTION cron.unschedule(job_id bigint) RETURNS boolean LANGUAGE sql AS $$ DELETE FROM cron.job WHERE jobid = $1 RETURNING true $$;
"""


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)
    monkeypatch.delenv("REPROQ_SCHEDULER_MODE", raising=False)


def test_a_schedule_is_added_listed_changed_and_removed(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    first = run_program("schedule", "add", "nightly", "30 2 * * *", "app.report", "--timezone", "Europe/Berlin", "--args", "[7]", *dsn)
    assert first.code == 0, first.err
    assert first.out.startswith("nightly fires next at ")
    again = run_program("schedule", "add", "nightly", "@daily", "app.report", *dsn)
    assert (again.code, "--replace changes it" in again.err) == (1, True)
    assert run_program("schedule", "add", "nightly", "@daily", "app.report", "--replace", "--overlap", "skip", *dsn).code == 0
    (row,) = run_program("schedule", "list", "--json", *dsn).json
    assert (row["name"], row["cron_expr"], row["timezone"], row["overlap"], row["enabled"]) == ("nightly", "@daily", "UTC", "skip", True)
    assert row["payload_json"] == {"args": [], "kwargs": {}}
    assert run_program("schedule", "disable", "nightly", "--reason", "moving", *dsn).code == 0
    assert "disabled: moving" in run_program("schedule", "list", *dsn).out
    assert run_program("schedule", "enable", "nightly", *dsn).code == 0
    assert database.query("SELECT enabled, disabled_reason, next_run_at > now() FROM periodic_tasks") == [(True, None, True)]
    assert run_program("schedule", "rm", "nightly", *dsn).code == 0
    assert run_program("schedule", "list", *dsn).out == "no schedules\n"


def test_who_says_a_schedule_again_takes_no_firing_away(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    assert run_program("schedule", "add", "nightly", "@yearly", "app.report", *dsn).code == 0
    database.query("UPDATE periodic_tasks SET next_run_at = now() - interval '1 h'")
    assert run_program("schedule", "add", "nightly", "@yearly", "app.report", "--replace", "--priority", "3", *dsn).code == 0
    assert database.query("SELECT priority, next_run_at < now() FROM periodic_tasks") == [(3, True)]
    assert run_program("schedule", "add", "nightly", "@yearly", "app.report", "--replace", "--timezone", "Asia/Tokyo", *dsn).code == 0
    assert database.query("SELECT next_run_at > now() FROM periodic_tasks") == [(True,)]
    database.query("UPDATE periodic_tasks SET next_run_at = 'infinity'")
    assert run_program("schedule", "add", "nightly", "@yearly", "app.report", "--replace", "--timezone", "Asia/Tokyo", *dsn).code == 0
    assert database.query("SELECT next_run_at < now() + interval '367 days' FROM periodic_tasks") == [(True,)]


@pytest.mark.parametrize("what", ["rm", "enable", "disable", "run", "next"])
def test_a_name_that_there_is_not_is_told(database: Database, what: str) -> None:
    done = run_program("schedule", what, "nothing", "--dsn", database.dsn)
    assert done.code == 1
    assert "nothing: expected the name of a schedule, found none" in done.err


@pytest.mark.parametrize(
    "wrong",
    [
        ("61 * * * *", "a.b"),
        ("0 0 31 2 *", "a.b"),
        ("* * * * *", ""),
        ("* * * * *", "a.b", "--timezone", "Mars"),
        ("* * * * *", "a.b", "--overlap", "perhaps"),
        ("* * * * *", "a.b", "--timeout", "0"),
        ("* * * * *", "a.b", "--jitter", "1000000000000s"),
        ("* * * * *", "a.b", "--queue", " mail"),
    ],
)
def test_what_makes_no_sense_is_refused(database: Database, wrong: tuple[str, ...]) -> None:
    assert run_program("schedule", "add", "x", *wrong, "--dsn", database.dsn).code == 2
    assert database.query("SELECT name FROM periodic_tasks") == []


@pytest.mark.parametrize(
    ("line", "zone", "blamed"),
    [("* * * * *", "Mars/Base", "--timezone"), ("61 * * * *", "UTC", "CRON"), ("TZ=Mars 0 0 * * *", "UTC", "CRON")],
)
def test_the_argument_that_makes_no_sense_is_named(database: Database, line: str, zone: str, blamed: str) -> None:
    for command in (("add", "x", line, "a.b", "--dsn", database.dsn), ("next", line)):
        done = run_program("schedule", *command, "--timezone", zone)
        assert (done.code, f"Invalid value for {blamed}: expected" in done.err) == (2, True), done.err


def test_a_schedule_whose_line_means_nothing_is_named(database: Database) -> None:
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('odd', 'x', 'a.b', now())")
    for command in ("enable", "next"):
        done = run_program("schedule", command, "odd", "--dsn", database.dsn)
        assert (done.code, "odd: expected a cron line" in done.err) == (1, True), done.err


def test_a_schedule_is_run_by_hand_and_its_overlap_counts(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    run_program(
        "schedule", "add", "nightly", "@daily", "app.report", "--kwargs", '{"to": "me"}', "--queue", "mail", "--overlap", "skip", *dsn
    )
    made = int(run_program("schedule", "run", "nightly", *dsn).out)
    assert database.query("SELECT result_id, spec_json -> 'kwargs', queue_name FROM task_runs") == [(made, {"to": "me"}, "mail")]
    database.query("UPDATE periodic_tasks SET next_run_at = now()")
    assert run_program("beat", "--once", *dsn).out == "1 fired\n"
    assert database.query("SELECT outcome FROM reproq_firings") == [("skipped",)]


def test_next_says_when_a_line_or_a_schedule_fires(database: Database) -> None:
    for line in ("30 2 * * *", "@hourly"):
        assert len(run_program("schedule", "next", line, "--timezone", "Europe/Berlin", "--count", 3, "--json").json) == 3
    assert run_program("schedule", "next", "0 0 31 2 *").out == "never\n"
    own_zone = run_program("schedule", "next", "CRON_TZ=Asia/Tokyo 0 9 * * *", "--timezone", "Europe/Berlin").out.splitlines()
    assert own_zone[0].split() == ["UTC", "Asia/Tokyo"]
    assert [" 00:00:00 " in own_zone[1], " 09:00:00 " in own_zone[1]] == [True, True]
    run_program("schedule", "add", "new year", "0 0 1 1 *", "a.b", "--dsn", database.dsn)
    assert "-01-01 00:00:00" in run_program("schedule", "next", "new year", "--dsn", database.dsn).out


def test_beat_fires_what_is_due_and_tells_of_what_it_disables(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = ("--dsn", database.dsn)
    database.query(
        """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at)
           SELECT 's' || n, CASE n WHEN 1 THEN 'x' ELSE '@hourly' END, 'a.b', now() FROM generate_series(1, 600) n"""
    )
    monkeypatch.setenv("REPROQ_SCHEDULER_MODE", "cron")
    done = run_program("beat", "--once", "--json", *dsn)
    assert (done.code, json.loads(done.out)) == (0, {"ok": True, "fired": 599})
    assert "s1: disabled: expected a cron line" in done.err
    assert run_program("beat", *dsn).out == "REPROQ_SCHEDULER_MODE is cron, not beat: nothing to do\n"


def test_pg_cron_gets_a_job_for_each_schedule_and_only_ours_are_touched(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    with database.connect() as connection:
        connection.execute(FAKE_PG_CRON, prepare=False)
    database.query(
        """INSERT INTO cron.job (jobname, schedule, command) VALUES
           ('reproqXperiodic_theirs', '* * * * *', 'SELECT 1'), ('reproq_periodic_theirs', '* * * * *', 'VACUUM'),
           ('reproq_periodic_its', '* * * * *', 'SELECT other.reproq_enqueue_periodic_task(''its'');'),
           ('reproq_periodic_gone', '* * * * *', 'SELECT reproq_enqueue_periodic_task(''gone'');')"""
    )
    long = "x" * 80
    for name, line, *more in (
        ("it's", "*/20 9-17 * * mon-fri"),
        ("its", "@daily"),
        (long, "0 0 1,15 * *"),
        ("far", "@daily", "--timezone", "Asia/Tokyo"),
        ("fast", "* * * * * */5"),
        ("last", "0 0 L * *"),
        ("off", "@daily", "--disabled"),
        ("spread", "H 3 31 * *"),
    ):
        assert run_program("schedule", "add", name, line, "app.task", *more, *dsn).code == 0
    plan = run_program("pg-cron", "--dry-run", "--json", *dsn).json
    assert (plan["done"], plan["goes"]) == (False, ["reproq_periodic_gone"])
    assert plan["left_out"] == {
        "far": "pg_cron fires in UTC, and its zone is Asia/Tokyo",
        "fast": "pg_cron has no words for seconds",
        "last": "pg_cron has no words for the last day of a month",
        "off": "it is disabled",
    }
    assert "reproq_periodic_gone would be removed\n" in run_program("pg-cron", "--dry-run", *dsn).out
    assert len(database.query("SELECT 1 FROM cron.job")) == 4
    for _ in range(2):
        assert run_program("pg-cron", *dsn).code == 0
        ours = database.query("SELECT jobname, schedule, command FROM cron.job WHERE command LIKE 'SELECT reproq%%' ORDER BY schedule")
        *plain, (_, drawn, spread) = sorted(ours, key=lambda job: "spread" in job[0])
        assert [(schedule, len(name) <= 63) for name, schedule, _ in plain] == [
            ("0 0 * * *", True),
            ("0 0 1,15 * *", True),
            ("0,20,40 9,10,11,12,13,14,15,16,17 * * 1,2,3,4,5", True),
        ]
        # What the database does not understand itself, the job tells it.
        assert spread == f"SELECT reproq_enqueue_periodic_task('spread', '{drawn}', 'H 3 31 * *');"
        assert len(database.query("SELECT 1 FROM cron.job")) == 7
    for runs in (0, 4):  # before they are due, and when they are
        for _, _, command in ours:
            database.query(command.replace("%", "%%"))
        assert database.query("SELECT count(*) FROM task_runs") == [(runs,)]
        database.query("UPDATE periodic_tasks SET next_run_at = now()")
    would_go = run_program("pg-cron", "--remove", "--dry-run", "--json", *dsn).json["goes"]
    assert sorted(would_go) == sorted(name for name, *_ in ours)
    assert run_program("pg-cron", "--remove", "--dry-run", *dsn).out.count("would be removed\n") == 4
    told = run_program("pg-cron", "--remove", "--json", *dsn).json
    assert (told["removed"], told["goes"]) == (4, would_go)
    assert [job for (job,) in database.query("SELECT jobname FROM cron.job ORDER BY 1")] == [
        *("reproqXperiodic_theirs", "reproq_periodic_its", "reproq_periodic_theirs"),
    ]
    assert run_program("pg-cron", "--remove", *dsn).out == "no jobs of ours\n"


def test_jobs_that_would_start_in_another_zone_are_not_made(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(FAKE_PG_CRON)
        connection.execute(f"ALTER DATABASE {database.name} SET cron.timezone = 'Asia/Tokyo'")
    dsn = ("--dsn", database.dsn)
    assert run_program("schedule", "add", "daily", "@daily", "app.task", *dsn).code == 0
    refused = run_program("pg-cron", *dsn)
    assert (refused.code, "fires in Asia/Tokyo: expected GMT in cron.timezone" in refused.err) == (1, True)
    assert "expected GMT in cron.timezone" in run_program("pg-cron", "--dry-run", *dsn).out
    assert database.query("SELECT 1 FROM cron.job") == []
    assert run_program("pg-cron", "--remove", *dsn).code == 0


def test_without_pg_cron_that_is_told_or_fine(database: Database) -> None:
    if database.query("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_cron'"):
        pytest.skip("this server has pg_cron")
    assert run_program("pg-cron", "--dsn", database.dsn).code == 1
    done = run_program("pg-cron", "--if-supported", "--dsn", database.dsn)
    assert (done.code, "this server has no pg_cron" in done.out) == (0, True)
