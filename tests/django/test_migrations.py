"""Whoever migrates first, and from wherever: Django and the store end with one schema, and Django finds nothing left to do."""

import io
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections

from reproq_django.models import PeriodicTask, QueueControl, RateLimit, TaskRun, Worker, WorkflowRun
from reproq_django.schema import conninfo_of
from reproq_supervisor.store.migrate import migrate, plan
from tests.django.conftest import using_databases
from tests.django.databases import postgres_settings
from tests.store import layouts
from tests.store.catalog import catalog
from tests.support.postgres import Database

Connection = psycopg.Connection[Any]
LAYOUTS: dict[str, Callable[[Connection], None]] = {"empty": lambda _: None, **layouts.OLDER}
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
MODELS = (TaskRun, PeriodicTask, QueueControl, RateLimit, Worker, WorkflowRun)


def migrate_by_django() -> None:
    call_command("migrate", "reproq_django", verbosity=0)


@pytest.fixture
def wanted(database: Database) -> dict[str, list[str]]:
    """The catalogue that `reproq-supervisor migrate` makes of an empty database."""
    with database.connect() as connection:
        return catalog(connection)


@EVERY_LAYOUT
@pytest.mark.parametrize("order", ["django", "store then django", "django then store"])
def test_every_order_ends_with_one_schema(bare_postgres: Database, layout: Any, order: str, wanted: dict[str, list[str]]) -> None:
    with bare_postgres.connect() as connection:
        layout(connection)
        for who in order.split(" then "):
            if who == "store":
                migrate(connection)
            else:
                migrate_by_django()
        assert plan(connection) == []
        assert catalog(connection) == wanted
    for model in MODELS:
        assert list(model.objects.all()[:1]) is not None


def test_django_finds_nothing_left_to_migrate(bare_postgres: Database) -> None:
    call_command("migrate", verbosity=0)

    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    out = io.StringIO()
    call_command("migrate", "--check", stdout=out, verbosity=0)
    call_command("showmigrations", "reproq_django", stdout=out)
    assert "[X] 0001_baseline" in out.getvalue()


def test_a_later_release_needs_no_migration_of_django(bare_postgres: Database) -> None:
    migrate_by_django()
    with bare_postgres.connect() as connection:
        connection.execute("DROP VIEW reproq_runs")
        connection.execute("DELETE FROM reproq_schema_migrations WHERE version > 2")
        assert plan(connection) != []

        migrate_by_django()

        assert plan(connection) == []


def test_runs_of_the_older_package_are_there_after_it(bare_postgres: Database) -> None:
    with bare_postgres.connect() as connection:
        layouts.django(connection)
        ready = layouts.insert(connection, "READY", 3)
        done = layouts.insert(connection, "SUCCESSFUL", 2)

        migrate_by_django()

        assert set(TaskRun.objects.values_list("pk", "status")) == {(run, "READY") for run in ready} | {(run, "SUCCESSFUL") for run in done}
        assert connection.execute("SELECT array_agg(result_id ORDER BY result_id) FROM task_lane").fetchone() == (ready,)


def test_taking_the_migration_back_keeps_the_runs(postgres: Database) -> None:
    TaskRun.objects.create(spec_json={"task_path": "app.task"}, spec_hash="a", task_path="app.task")

    call_command("migrate", "reproq_django", "zero", verbosity=0)
    call_command("migrate", "reproq_django", verbosity=0)

    assert TaskRun.objects.count() == 1


@pytest.mark.usefixtures("sqlite")
def test_sqlite_has_the_tables_of_the_models() -> None:
    assert {model._meta.db_table for model in MODELS} <= set(connections["default"].introspection.table_names())
    call_command("migrate", "reproq_django", "zero", verbosity=0)
    assert "task_runs" not in connections["default"].introspection.table_names()


def test_tests_of_a_project_can_flush_their_database(postgres: Database) -> None:
    TaskRun.objects.create(spec_json={"task_path": "app.task"}, spec_hash="a", task_path="app.task")

    call_command("flush", interactive=False, verbosity=0)

    assert not TaskRun.objects.exists()
    with postgres.connect() as connection:
        assert connection.execute("SELECT count(*) FROM task_lane").fetchone() == (0,)


def test_the_steps_connect_as_django_does(bare_postgres: Database) -> None:
    """The role that Django assumes owns the tables, and its other options reach libpq."""
    with bare_postgres.connect() as connection:
        connection.execute("CREATE ROLE owner_of_queue NOLOGIN")
        try:
            connection.execute("CREATE SCHEMA own AUTHORIZATION owner_of_queue")
            parts = postgres_settings(bare_postgres.dsn)
            parts["OPTIONS"] = {"assume_role": "owner_of_queue", "options": "-c search_path=own", "connect_timeout": 7}
            with using_databases(default=parts):
                assert "connect_timeout=7" in conninfo_of(connections["default"])
                migrate_by_django()
            owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'own'").fetchall()
            assert owners == [("owner_of_queue",)]
        finally:
            connection.execute("DROP OWNED BY owner_of_queue CASCADE")
            connection.execute("DROP ROLE owner_of_queue")
