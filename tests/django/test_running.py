"""Tasks of Django from the first call to the result, run by a real shard; and many producers of the same task."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import override_settings

from reproq_django.framework import TaskResultStatus
from reproq_django.models import TaskRun
from reproq_django.operations import retry
from reproq_django.workflows import chain, chord
from tests.django.app import tasks
from tests.store import layouts
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.shard import ROOT, running_shard

APP = {
    "path": [str(ROOT)],
    "preload": ["tests.django.app.tasks"],
    "allowed_task_modules": ["tests.django.app."],
    "django_settings_module": "tests.django.settings",
}
LONG_S = 60.0


@pytest.fixture
def shard(postgres: Database, tmp_path: Path) -> Iterator[None]:
    """A shard that runs the tasks of the tests' project."""
    with running_shard(postgres, app=APP, env={"REPROQ_TEST_DJANGO_DSN": postgres.dsn}, log=tmp_path / "shard.log"):
        yield


@pytest.mark.usefixtures("shard")
def test_a_task_is_run_and_tells_its_result() -> None:
    result = tasks.add.enqueue(1, b=2)

    assert result.wait(timeout=LONG_S) == 3
    assert (result.return_value, result.status, result.attempts, result.errors) == (3, TaskResultStatus.SUCCESSFUL, 1, [])
    assert result.started_at is not None
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert tasks.double.enqueue(4).wait(timeout=LONG_S) == 8
    assert tasks.describe.enqueue().wait(timeout=LONG_S) == "attempt 1"


@pytest.mark.usefixtures("shard")
def test_a_failure_is_told_in_the_framework_s_terms() -> None:
    once = {"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "OPTIONS": {"MAX_ATTEMPTS": 1}}}
    with override_settings(TASKS=once):
        result = tasks.fail.enqueue("no luck")

    with pytest.raises(RuntimeError, match="FAILED"):
        result.wait(timeout=LONG_S)

    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "no luck" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value
    assert retry("default", [result.result_id]) == {"retried": 1}


@pytest.mark.usefixtures("shard")
def test_models_and_durations_arrive_as_they_were_given() -> None:
    group = Group.objects.create(name="before")

    assert tasks.rename.enqueue(group, name="after", after=timedelta(minutes=5)).wait(timeout=LONG_S) == ["before", "0:05:00"]

    group.refresh_from_db()
    assert group.name == "after"


@pytest.mark.usefixtures("shard")
def test_workflows_run_to_their_end() -> None:
    chained = chain((tasks.add, [1], {}), (tasks.add, [2], {}), (tasks.add, [3], {})).enqueue()
    members, callback = chord((tasks.add, [4], {}), (tasks.add, [5], {}), callback=(tasks.add, [6], {})).enqueue()

    assert [result.wait(timeout=LONG_S) for result in (*chained, *members, callback)] == [2, 3, 4, 5, 6, 7]
    assert chained[0].finished_at <= chained[1].started_at
    assert max(member.finished_at for member in members) <= callback.started_at


def test_rows_of_the_older_package_are_finished(bare_postgres: Database, tmp_path: Path) -> None:
    with bare_postgres.connect() as connection:
        layouts.django(connection)
        runs = layouts.insert(connection, "READY", 5, task_path="tests.django.app.tasks.add")
        connection.execute("UPDATE task_runs SET spec_json = jsonb_set(spec_json, '{task_path}', '\"tests.django.app.tasks.add\"')")
        layouts.insert(connection, "SUCCESSFUL", 2)
    call_command("migrate", verbosity=0)

    with running_shard(bare_postgres, app=APP, env={"REPROQ_TEST_DJANGO_DSN": bare_postgres.dsn}, log=tmp_path / "shard.log"):
        assert [tasks.add.get_result(str(run)).wait(timeout=LONG_S) for run in runs] == [2] * 5
        assert tasks.add.enqueue(1).wait(timeout=LONG_S) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sixteen_processes_enqueue_one_spec_once(postgres: Database) -> None:
    rounds = 10
    env = {**os.environ, "REPROQ_TEST_DJANGO_DSN": postgres.dsn, "DJANGO_SETTINGS_MODULE": "tests.django.settings"}
    with postgres.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(16)")
        argv = [sys.executable, "-m", "tests.django.enqueuer", str(rounds)]
        producers = [subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(16)]
        try:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = %s"
            own = gate.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
            eventually(lambda: gate.execute(waiting, own).fetchone() == (16,), timeout=200, what="16 producers wait for the signal")
            gate.execute("SELECT pg_advisory_unlock(16)")
            given: list[Any] = [json.loads(producer.communicate(timeout=100)[0]) for producer in producers]
        finally:
            for producer in producers:
                producer.kill()
                producer.wait()
    assert all(ids == given[0] for ids in given)
    assert TaskRun.objects.count() == rounds == len(set(given[0]))
