"""Executors of a Django project: no connection crosses a fork, none is left behind, and none carries a transaction into the next task."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.process.own_memory import private_bytes
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import ROOT, running_shard

pytest.importorskip("django")

SITE = "tests.support.django_site."
TASKS = f"{SITE}tasks."
APP = {
    "path": [str(ROOT)],
    "preload": [f"{SITE}tasks"],
    "allowed_task_modules": [SITE],
    "django_settings_module": f"{SITE}settings",
}


@contextmanager
def site(database: Database, folder: Path, *, age: str = "0", env: dict[str, str] | None = None, **pool: Any) -> Iterator[Runs]:
    """Run the project on *database*; *age* is its CONN_MAX_AGE."""
    environment = {"DJANGO_SITE_DSN": database.dsn, "DJANGO_SITE_CONN_MAX_AGE": age, **(env or {})}
    with running_shard(database, app=APP, env=environment, log=folder / "shard.log", **pool):
        yield Runs(database)


def backends(database: Database) -> set[int]:
    """Return the server processes of the project's connections."""
    rows = database.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'django_site' AND datname = current_database()")
    return {pid for (pid,) in rows}


def wait_backends(database: Database, count: int) -> set[int]:
    found = eventually(lambda: len(backends(database)) == count and [backends(database)], timeout=30, what=f"{count} connections are left")
    return found[0]


@pytest.mark.parametrize("pool", [{}, {"isolation": "fork"}, {"mode": "thread", "slots": 3}, {"mode": "async", "slots": 3}])
def test_no_connection_crosses_a_fork(database: Database, tmp_path: Path, pool: dict[str, Any]) -> None:
    with site(database, tmp_path, age="None", executors=2, **pool) as runs:
        results = [run.result for run in runs.ended(runs.add(f"{TASKS}backend", count=20))]
        users: dict[int, set[int]] = {}
        for process, backend, boot in results:
            assert boot > 0, "the application has asked its database in the nursery"
            assert backend != boot
            users.setdefault(backend, set()).add(process)
        assert all(len(processes) == 1 for processes in users.values()), "a connection belongs to one executor"
        assert results[0][2] not in backends(database), "the nursery has closed its own"


def test_a_further_executor_takes_at_most_8_mib_of_its_own(database: Database, tmp_path: Path) -> None:
    with site(database, tmp_path, age="None", executors=2) as runs:
        processes = {run.result[0] for run in runs.ended(runs.add(f"{TASKS}backend", count=50))}
        sizes = [private_bytes(pid) or 0 for pid in processes]
    assert all(0 < size <= 8 * 2**20 for size in sizes), sizes


def test_a_pool_of_connections_does_not_keep_the_nursery_from_forking(database: Database, tmp_path: Path) -> None:
    with site(database, tmp_path, env={"DJANGO_SITE_POOL": "1"}) as runs:
        process, backend, boot = runs.end_of(f"{TASKS}backend").result
        assert process and backend != boot


@pytest.mark.parametrize(("age", "left"), [("0", 0), ("None", 1), ("600", 1)])
def test_a_connection_is_kept_as_long_as_the_settings_say(database: Database, tmp_path: Path, age: str, left: int) -> None:
    with site(database, tmp_path, age=age) as runs:
        used = {run.result[1] for run in runs.ended(runs.add(f"{TASKS}backend", count=10))}
        assert len(used) == (1 if left else 10)
        wait_backends(database, left)


@pytest.mark.parametrize(("age", "left"), [("0", 0), ("None", 1)])
@pytest.mark.parametrize("pool", [{}, {"mode": "async", "slots": 4}])
def test_the_connection_of_coroutines_is_kept_as_long_as_the_settings_say(
    database: Database, tmp_path: Path, age: str, left: int, pool: dict[str, Any]
) -> None:
    with site(database, tmp_path, age=age, **pool) as runs:
        ended = runs.ended(runs.add(f"{TASKS}coroutine_backend", count=10))
        assert {run.end for run in ended} == {("SUCCESSFUL", None, 1)}
        wait_backends(database, left)


@pytest.mark.parametrize("pool", [{}, {"mode": "thread", "slots": 1}])
@pytest.mark.parametrize("task", ["leave_transaction_open", "leave_autocommit_off", "leave_begun"])
def test_a_transaction_that_a_task_left_open_ends_with_it(database: Database, tmp_path: Path, task: str, pool: dict[str, Any]) -> None:
    with site(database, tmp_path, age="None", **pool) as runs:
        first = runs.end_of(f"{TASKS}{task}").result
        assert runs.end_of(f"{TASKS}in_block").result is False
        _, second, _ = runs.end_of(f"{TASKS}backend").result
        assert second != first
        assert wait_backends(database, 1) == {second}


def test_a_connection_that_broke_is_replaced_for_the_next_task(database: Database, tmp_path: Path) -> None:
    with site(database, tmp_path, age="None") as runs:
        assert runs.end_of(f"{TASKS}break_connection", max_attempts=1).end == ("FAILED", "app_error", 1)
        assert runs.end_of(f"{TASKS}backend").end == ("SUCCESSFUL", None, 1)


def test_a_connection_that_the_server_ended_between_two_tasks_is_replaced(database: Database, tmp_path: Path) -> None:
    with site(database, tmp_path, age="1") as runs:
        _, backend, _ = runs.end_of(f"{TASKS}backend").result
        database.query("SELECT pg_terminate_backend(%s, 10000)", backend)
        eventually(
            lambda: runs.end_of(f"{TASKS}backend", max_attempts=1).end == ("SUCCESSFUL", None, 1),
            timeout=30,
            what="a task runs on a new connection, when the old one has become too old",
        )


def test_language_zone_and_queries_of_a_task_are_not_the_next_ones(database: Database, tmp_path: Path) -> None:
    with site(database, tmp_path, age="None", env={"DJANGO_SITE_DEBUG": "1"}) as runs:
        results = [run.result for run in runs.ended(runs.add(f"{TASKS}state", count=5))]
        assert results == [results[0]] * 5
        assert results[0]["zone"] != "Asia/Tokyo" and results[0]["queries"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("age", "left"), [("0", 0), ("None", 2)])
def test_ten_thousand_tasks_leave_no_connection_behind(database: Database, tmp_path: Path, age: str, left: int) -> None:
    with site(database, tmp_path, age=age, executors=2) as runs:
        ended = runs.ended(runs.add(f"{TASKS}backend", count=10_000), timeout=800)
        assert {run.end for run in ended} == {("SUCCESSFUL", None, 1)}
        eventually(lambda: len(backends(database)) <= left, timeout=30, what=f"at most {left} connections are left")
    assert wait_backends(database, 0) == set()
