"""Queues in several databases, and what is wrong with settings."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Error, Warning, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings

from reproq_django.backend import ReproqBackend
from reproq_django.checks import backend_problems
from reproq_django.conf import problems_of
from reproq_django.framework import TaskResultDoesNotExist, task_backends
from reproq_django.models import TaskRun
from reproq_django.router import ReproqRouter
from reproq_django.routing import parse_result_id, queue_aliases, resolve_queue_db, result_id_of
from tests.django.app import tasks
from tests.django.conftest import sqlite_settings, using_databases

QUEUES = {"mail": "mail", "re*": "reports", "report-now": "mail", "[ab]c": "reports"}


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[None]:
    """Three databases of a project, two of them with other queues."""
    with (
        using_databases(**{alias: sqlite_settings(tmp_path / alias) for alias in ("default", "mail", "reports", "web")}),
        override_settings(REPROQ_QUEUE_DATABASES=QUEUES, DATABASE_ROUTERS=["reproq_django.router.ReproqRouter"]),
    ):
        yield


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize(
    ("queue", "alias"),
    [("mail", "mail"), ("report-now", "mail"), ("report-later", "reports"), ("ac", "reports"), ("other", "default"), ("", "default")],
)
def test_a_queue_is_in_the_database_of_its_name_or_the_first_pattern(queue: str, alias: str) -> None:
    assert resolve_queue_db(queue) == alias


@pytest.mark.usefixtures("databases")
def test_ids_name_their_database_where_there_are_several() -> None:
    assert queue_aliases() == ["default", "mail", "reports"]
    assert result_id_of("mail", 7) == "mail:7"
    assert parse_result_id("mail:7") == ("mail", 7)
    assert parse_result_id("7") == ("default", 7)
    assert parse_result_id("nowhere:7") == ("default", None)
    assert parse_result_id("web:7") == ("web", 7)
    with override_settings(REPROQ_RESULT_ID_WITH_ALIAS=False):
        assert result_id_of("mail", 7) == "7"
    with override_settings(REPROQ_QUEUE_DATABASES={}):
        assert result_id_of("default", 7) == "7"
        with override_settings(REPROQ_RESULT_ID_WITH_ALIAS=True):
            assert result_id_of("default", 7) == "default:7"


@pytest.mark.usefixtures("databases")
def test_tasks_are_enqueued_where_their_queue_is() -> None:
    for alias in ("default", "mail", "reports"):
        call_command("migrate", "reproq_django", database=alias, verbosity=0)
    calls = [(tasks.add.using(queue_name=queue), [1], {}) for queue in ("default", "mail", "report-1", "mail")]

    results = task_backends["default"].bulk_enqueue(calls)

    assert [result.id for result in results] == ["default:1", "mail:1", "reports:1", "mail:1"]
    assert [TaskRun.objects.using(alias).count() for alias in ("default", "mail", "reports")] == [1, 1, 1]
    assert [tasks.add.get_result(result.id) for result in results] == results
    assert (results[1].db_alias, results[1].result_id, results[1].data.queue_name) == ("mail", 1, "mail")
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result("reports:2")


@pytest.mark.usefixtures("databases")
def test_the_router_keeps_the_tables_where_queues_are() -> None:
    router = ReproqRouter()

    assert router.allow_migrate("mail", "reproq_django") is True
    assert router.allow_migrate("web", "reproq_django") is False
    assert router.allow_migrate("web", "auth") is None
    assert router.db_for_read(TaskRun) == "default"
    assert router.db_for_write(TaskRun, instance=TaskRun(pk=1)) == "default"
    call_command("migrate", "reproq_django", database="web", verbosity=0)
    with pytest.raises(Exception, match="no such table"):
        TaskRun.objects.using("web").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"DEDUP_ACTIVE": 1},
        {"TIMEOUT_SECONDS": 0},
        {"MAX_ATTEMPTS": True},
        {"MAX_ATTEMPTS": "3"},
        {"MAX_ATTEMPTS": 2**31},
        {"EXPIRES_IN": 60},
        {"EXPIRES_IN": timedelta(-1)},
        {"EXPIRES_IN": timedelta.max},
        {"CODE_REF": 7},
        {"dedup_active": True},
        {"RETRIES": 1},
    ],
)
def test_an_option_that_is_not_right_is_named(options: dict[str, Any]) -> None:
    (problem,) = problems_of(options)
    assert problem.startswith(f"OPTIONS.{next(iter(options))}: expected")


@pytest.mark.parametrize(
    "wrong", [{"OPTIONS": None}, {"OPTIONS": ["MAX_ATTEMPTS"]}, {"QUEUES": "mail"}, {"QUEUES": 5}, {"QUEUES": [5]}], ids=str
)
def test_a_backend_of_another_shape_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"TASKS\['mine'\]\['{next(iter(wrong))}'\]: expected"):
        ReproqBackend("mine", wrong)


@pytest.mark.parametrize("queues", [None, [], ()])
def test_a_backend_that_names_no_queues_takes_any(queues: object) -> None:
    assert ReproqBackend("mine", {"QUEUES": queues}).queues == set()


def test_right_options_are_right() -> None:
    right = {
        "DEDUP_ACTIVE": False,
        "TIMEOUT_SECONDS": 1,
        "MAX_ATTEMPTS": 1,
        "EXPIRES_IN": timedelta(1),
        "CODE_REF": None,
        "PIP_LOCK_HASH": "a",
    }
    assert problems_of(right) == []


@pytest.mark.usefixtures("databases")
def test_checks_tell_what_is_wrong_with_the_settings() -> None:
    with override_settings(REPROQ_QUEUE_DATABASES={"mail": "nowhere"}):
        found = backend_problems("default", {"MAX_ATTEMPTS": 0})
    assert [each.id for each in found] == ["reproq_django.E002", "reproq_django.W001", "reproq_django.E004"]
    assert "TASKS['default']['OPTIONS']['MAX_ATTEMPTS']: expected int from 1 to 2147483647, got 0" in found[0].msg
    with override_settings(REPROQ_QUEUE_DATABASES=["mail"]):
        assert [each.id for each in backend_problems("default", {})] == ["reproq_django.E003"]
    with override_settings(REPROQ=["mail"], REPROQ_STATS_DATABASES=["*", "nowhere"], REPROQ_TUI_CACHE="nowhere"):
        others = {each.id for each in backend_problems("default", {})}
    assert others == {"reproq_django.E005", "reproq_django.E006", "reproq_django.E007", "reproq_django.W001"}
    told = run_checks()
    assert {each.id for each in told if isinstance(each, Warning | Error)} >= {"reproq_django.W001"}
