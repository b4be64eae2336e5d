"""Schedules of configuration files: what the file changes is changed, what an operator changed is his."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.keeper.beat import Beat
from reproq_supervisor.keeper.declared import DeclaredSchedules
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.store import timetable
from tests.store.actors import Keeper
from tests.support.postgres import Database

Declare = Callable[..., int]


@pytest.fixture
def declare(keeper: Keeper) -> Declare:
    """Declares: `declare({"nightly": {"cron": "@daily"}}, host="a")`; returns how many needed anything."""

    def declare(schedules: dict[str, Any], host: str = "a", path: str | None = "/etc/c.yaml") -> int:
        filled = {name: {"cron": "@daily", "task": "app.report", **each} for name, each in schedules.items()}
        resolved = resolve(Settings.model_validate({"schedules": filled}), {})
        declared = DeclaredSchedules(host)
        declared.follow(json.loads(json.dumps({"schedules_settings": resolved["schedules"], "config_path": path})))
        return keeper.run(declared.declare(keeper.store)).count

    return declare


def row(database: Database, name: str = "nightly", columns: str = "cron_expr, priority, enabled") -> tuple[Any, ...]:
    return database.query(f"SELECT {columns} FROM periodic_tasks WHERE name = %s", name)[0]


def test_a_schedule_is_added_with_all_that_the_file_says(declare: Declare, database: Database) -> None:
    said = {"cron": "0 9 * * mon", "args": [1, {"a": None}], "kwargs": {"to": "ä"}, "timezone": "Europe/Berlin", "jitter": "30s"}
    assert declare({"nightly": {**said, "overlap": "skip", "missed": "all", "queue": "mail", "priority": 3, "timeout": "2m"}}) == 1
    columns = "timezone, payload_json, jitter_s, overlap, missed, queue_name, priority, timeout_seconds, next_run_at > now()"
    payload = {"args": [1, {"a": None}], "kwargs": {"to": "ä"}}
    assert row(database, columns=columns) == ("Europe/Berlin", payload, 30.0, "skip", "all", "mail", 3, 120, True)


def test_saying_it_again_changes_nothing(declare: Declare, database: Database) -> None:
    declare({"nightly": {"jitter": 0.5, "priority": 3}})
    before = database.query("SELECT xmin::text FROM periodic_tasks")
    assert declare({"nightly": {"jitter": 0.5, "priority": 3}}) == 0
    assert declare({"nightly": {"jitter": 0.5, "priority": 3}}, host="b") == 0
    assert database.query("SELECT xmin::text FROM periodic_tasks") == before


def test_what_the_file_changes_is_changed(declare: Declare, database: Database) -> None:
    declare({"nightly": {"concurrency_key": None}})
    (first,) = row(database, columns="next_run_at")
    assert declare({"nightly": {"priority": 5, "concurrency_key": "k", "concurrency_limit": 2}}) == 1
    assert row(database, columns="priority, concurrency_key, concurrency_limit, next_run_at") == (5, "k", 2, first)
    assert declare({"nightly": {"cron": "@hourly"}}) == 1
    assert row(database) == ("@hourly", 0, True)
    assert row(database, columns="next_run_at <= now() + interval '1 h', concurrency_key") == (True, None)


def test_what_an_operator_changed_is_his_until_the_file_changes_back_to_it(declare: Declare, database: Database) -> None:
    declare({"nightly": {"priority": 1}})
    database.query("UPDATE periodic_tasks SET enabled = false, priority = 9")
    declare({"nightly": {"priority": 2, "cron": "@weekly"}})
    assert row(database) == ("@weekly", 9, False)
    declare({"nightly": {"priority": 2, "cron": "@weekly", "enabled": False}})
    declare({"nightly": {"priority": 2, "cron": "@weekly", "enabled": True}})
    assert row(database) == ("@weekly", 9, True)


def test_one_that_was_disabled_because_it_could_not_fire_gets_another_chance(declare: Declare, keeper: Keeper, database: Database) -> None:
    declare({"nightly": {}})
    database.query("UPDATE periodic_tasks SET cron_expr = 'x', next_run_at = now()")
    keeper.run(Beat(lambda _: None).run(keeper.store.schedules))
    assert row(database, columns="enabled, is_faulty") == (False, True)
    declare({"nightly": {"timezone": "Asia/Tokyo"}})
    assert row(database, columns="enabled, is_faulty, disabled_reason") == (True, False, None)


def test_one_that_somebody_made_before_stays_his(declare: Declare, database: Database) -> None:
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('nightly', '@yearly', 'a.b', now())")
    declare({"nightly": {"priority": 4}})
    declare({"nightly": {"priority": 5}})
    assert row(database) == ("@yearly", 0, True)
    with database.connect() as connection:
        found = timetable.find(connection, "nightly")
    assert found is not None
    assert not found.is_declared  # so that `schedule rm` takes it
    assert declare({}) == 0
    assert row(database) == ("@yearly", 0, True)


def test_what_a_file_no_longer_has_goes_and_what_others_have_stays(declare: Declare, database: Database) -> None:
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('by hand', '@yearly', 'a.b', now())")
    declare({"one": {}, "two": {}})
    declare({"three": {}}, host="b")
    assert declare({"two": {}}) == 1
    assert declare({}, path=None) == 0
    assert [name for (name,) in database.query("SELECT name FROM periodic_tasks ORDER BY name")] == ["by hand", "three", "two"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cron": "61 * * * *"},
        {"timezone": "Mars"},
        {"task": ""},
        {"kwargs": {"a": "\0"}},
        {"kwargs": {"a": "\ud800"}},
        {"kwargs": {"\ud800": 1}},
        {"concurrency_key": "\ud800"},
        {"queue": "\ud800"},
        {"args": [float("nan")]},
        {"args": "[" * 100_000 + "]" * 100_000},
        {"args": "x"},
        {"at": "noon"},
    ],
)
def test_a_file_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"schedules\.nightly"):
        Settings.model_validate({"schedules": {"nightly": {"cron": "@daily", "task": "a.b", **wrong}}})


def test_a_line_that_never_fires_is_added_and_stays_silent(declare: Declare, keeper: Keeper, database: Database) -> None:
    declare({"nightly": {"cron": "0 0 31 2 *"}})
    assert keeper.run(Beat(lambda _: None).run(keeper.store.schedules)).count == 0
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]
