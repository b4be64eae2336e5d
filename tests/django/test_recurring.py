"""Schedules that the code declares reach the database, and leave operators theirs."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from reproq_django import recurring as registry
from reproq_django.models import PeriodicTask, TaskRun
from reproq_django.recurring import declared, recurring
from reproq_django.syncing import Synced, sync_recurring
from tests.django.app import tasks
from tests.support.postgres import Database

TIDY = "tests.django.app.tasks.tidy"
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[dict[str, Any]]:
    """What a test declares is forgotten after it."""
    declared()
    before = dict(registry._DECLARED)
    yield registry._DECLARED
    registry._DECLARED.clear()
    registry._DECLARED.update(before)


def change(name: str, **values: Any) -> None:
    registry._DECLARED[name] = dataclasses.replace(registry._DECLARED[name], **values)


@pytest.mark.usefixtures("any_database")
def test_migrate_brings_what_the_code_declares() -> None:
    nightly, tidy = PeriodicTask.objects.get(name="nightly"), PeriodicTask.objects.get(name=TIDY)

    assert (nightly.cron_expr, nightly.timezone, nightly.overlap, nightly.enabled) == ("30 2 * * *", "Europe/Berlin", "skip", True)
    assert (nightly.task_path, nightly.payload_json) == ("tests.django.app.tasks.report", {"args": [1], "kwargs": {"b": 5}})
    assert (nightly.concurrency_key, nightly.concurrency_limit) == ("reports", 2)
    assert timezone.now() < nightly.next_run_at < timezone.now() + timedelta(days=2)
    assert (tidy.task_path, tidy.priority, tidy.cron_expr) == (TIDY, 3, "@hourly")
    assert sync_recurring("default") == [Synced("nightly", "unchanged"), Synced(TIDY, "unchanged")]


@pytest.mark.usefixtures("any_database")
def test_what_an_operator_changed_stays_until_the_code_changes_it() -> None:
    PeriodicTask.objects.filter(name="nightly").update(enabled=False, priority=50, next_run_at=FUTURE)

    sync_recurring("default")
    change("nightly", queue_name="reports", priority=60)
    assert Synced("nightly", "changed") in sync_recurring("default")

    nightly = PeriodicTask.objects.get(name="nightly")
    assert (nightly.enabled, nightly.priority, nightly.next_run_at, nightly.queue_name) == (False, 50, FUTURE, "reports")


@pytest.mark.usefixtures("any_database")
def test_another_line_of_cron_moves_the_next_firing() -> None:
    PeriodicTask.objects.filter(name="nightly").update(next_run_at=FUTURE)
    change("nightly", schedule="31 2 * * *")

    sync_recurring("default")

    assert PeriodicTask.objects.get(name="nightly").next_run_at < timezone.now() + timedelta(days=2)


@pytest.mark.usefixtures("any_database")
def test_only_what_code_declared_is_disabled_when_it_is_missing() -> None:
    PeriodicTask.objects.create(name="by hand", cron_expr="@daily", task_path="app.task")
    registry._DECLARED.clear()

    assert sync_recurring("default") == []
    assert {each.name for each in sync_recurring("default", clear_missing=True)} == {"nightly", TIDY}

    assert set(PeriodicTask.objects.filter(enabled=True).values_list("name", flat=True)) == {"by hand"}
    assert sync_recurring("default", clear_missing=True) == []


@pytest.mark.usefixtures("any_database")
def test_one_that_somebody_had_made_before_the_code_stays_his() -> None:
    PeriodicTask.objects.filter(name="nightly").update(declared=None, declared_by=None, priority=50)
    sync_recurring("default")
    change("nightly", queue_name="reports")
    sync_recurring("default")
    registry._DECLARED.clear()

    sync_recurring("default", clear_missing=True)

    nightly = PeriodicTask.objects.get(name="nightly")
    assert (nightly.enabled, nightly.priority, nightly.declared_by) == (True, 50, None)


@pytest.mark.usefixtures("any_database")
def test_what_the_code_declares_again_fires_again(own_registry: dict[str, Any]) -> None:
    nightly = own_registry.pop("nightly")
    assert sync_recurring("default", clear_missing=True)[-1] == Synced("nightly", "disabled")
    own_registry["nightly"] = nightly

    sync_recurring("default", clear_missing=True)

    assert PeriodicTask.objects.get(name="nightly").enabled


@pytest.mark.usefixtures("sqlite")
def test_schedules_go_to_the_database_of_their_queue() -> None:
    with override_settings(REPROQ_QUEUE_DATABASES={"default": "elsewhere"}):
        assert sync_recurring("default") == []


def test_nothing_is_brought_when_the_project_says_so(bare_postgres: Database) -> None:
    with override_settings(REPROQ_RECURRING_AUTOSYNC=False):
        call_command("migrate", "reproq_django", verbosity=0)

    assert not PeriodicTask.objects.exists()


def test_a_line_that_means_nothing_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="61"):
        recurring("61 * * * *")(tasks.plain)
    with pytest.raises(ValueError, match="time zone"):
        recurring("@daily", timezone="Nowhere/City")(tasks.plain)
    with pytest.raises(ValueError, match="a name of its own"):
        recurring("@daily", key="nightly")(tasks.plain)
    with pytest.raises(TypeError, match="jitter"):
        recurring("@daily", jitter="1m")(tasks.plain)


@pytest.mark.usefixtures("any_database")
def test_a_declared_limit_counts_for_every_run() -> None:
    TaskRun.objects.all().delete()
    row = TaskRun.objects.get(pk=tasks.report.enqueue(1).id)
    own = TaskRun.objects.get(pk=tasks.report.enqueue(1, concurrency_key="mine", concurrency_limit=9).id)

    assert (row.concurrency_key, row.concurrency_limit) == ("reports", 2)
    assert (own.concurrency_key, own.concurrency_limit) == ("mine", 9)


@pytest.mark.usefixtures("any_database")
def test_what_a_call_does_not_say_of_its_limit_is_as_it_was_declared() -> None:
    wider = TaskRun.objects.get(pk=tasks.report.enqueue(1, concurrency_limit=9).id)
    other = TaskRun.objects.get(pk=tasks.report.enqueue(1, concurrency_key="mine").id)

    assert (wider.concurrency_key, wider.concurrency_limit) == ("reports", 9)
    assert (other.concurrency_key, other.concurrency_limit) == ("mine", 2)
