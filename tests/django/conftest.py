"""Django for tests: one project for the whole process, and a database of its own for every test.

* ``postgres``: a migrated PostgreSQL database as Django's default, with the tables of the admin; gives the ``Database``.
* ``sqlite``: the same as a file of SQLite.
* ``bare_postgres``: an empty PostgreSQL database as Django's default, for migrations.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
from asgiref.local import Local
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql

from reproq_supervisor.executor.entry import plain_entry, use_entry
from tests.django import settings as project
from tests.django.databases import postgres_settings
from tests.support.postgres import Cluster, Database

TEMPLATE = "reproq_django_template"

if not settings.configured:
    # Not by DJANGO_SETTINGS_MODULE: what other tests start would inherit it.
    settings.configure(**{name: value for name, value in vars(project).items() if name.isupper()}, LOGGING_CONFIG=None)
    django.setup()
    # The application makes of its process one that calls all tasks in Django's way. Other tests call plain ones in it.
    use_entry(plain_entry)


def sqlite_settings(path: Path) -> dict[str, Any]:
    """Return the entry of DATABASES for a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


@contextmanager
def using_databases(**databases: Mapping[str, Any]) -> Iterator[None]:
    """Let Django's connections lead to these databases, by alias; those that are open at the end are closed."""
    before = settings.DATABASES, connections.settings, connections._connections
    settings.DATABASES = {alias: dict(parts) for alias, parts in databases.items()}
    connections.settings = connections.configure_settings(settings.DATABASES)
    connections._connections = Local(connections.thread_critical)
    try:
        yield
    finally:
        connections.close_all()
        settings.DATABASES, connections.settings, connections._connections = before


@pytest.fixture
def bare_postgres(empty_database: Database) -> Iterator[Database]:
    with using_databases(default=postgres_settings(empty_database.dsn)):
        yield empty_database


@pytest.fixture(scope="session")
def django_template(cluster: Cluster) -> str:
    """The name of a database that `manage.py migrate` has made, on a server that this process has for itself."""
    with cluster.admin() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    with using_databases(default=postgres_settings(cluster.dsn(TEMPLATE))):
        call_command("migrate", verbosity=0)
    return TEMPLATE


@pytest.fixture
def postgres(cluster: Cluster, django_template: str) -> Iterator[Database]:
    with cluster.new_database(django_template) as database, using_databases(default=postgres_settings(database.dsn)):
        yield database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    with using_databases(default=sqlite_settings(path)):
        call_command("migrate", verbosity=0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint")
    return path


@pytest.fixture
def sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "db.sqlite3"
    shutil.copy(sqlite_template, path)
    with using_databases(default=sqlite_settings(path)):
        yield path


@pytest.fixture(params=["postgres", "sqlite"])
def any_database(request: pytest.FixtureRequest) -> str:
    """Each kind of database that tasks can be enqueued in; gives its name."""
    request.getfixturevalue(request.param)
    return str(request.param)
