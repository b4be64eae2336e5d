"""The schema has one owner: `reproq-supervisor migrate`, whose steps Django's migrations take here.

    manage.py migrate ──► 0001_baseline ──┐
                    └───► post_migrate  ──┴──► reproq_supervisor.store.migrate (finds out what is missing, and does only that)

So either command may come first, on an empty database and on both historical layouts, where an older package has entered `0001_baseline` as
applied and only `post_migrate` is left. The same signal brings the steps of a later release. On other databases than PostgreSQL, which test
suites use, the tables are made from the models.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from django.db.migrations.operations import CreateModel
from psycopg.conninfo import make_conninfo

from reproq_supervisor.store.connect import open_one
from reproq_supervisor.store.migrate import migrate, schema_is_current

# Of Django's own parameters of a connection, what libpq does not know.
_NOT_FOR_LIBPQ = ("context", "cursor_factory", "prepare_threshold")


class CreateTable(CreateModel):
    """CreateModel, where the store makes no tables: everywhere but on PostgreSQL."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)


def bring_schema(apps: Any, schema_editor: Any) -> None:
    """Bring the database of a migration to the schema of this release."""
    bring(schema_editor.connection)


def keep_tables(apps: Any, schema_editor: Any) -> None:
    """Leave the tables where Django forgets them: a supervisor may work on them, and they hold the history of its runs."""


def bring(connection: Any) -> None:
    """Bring the database of Django's *connection* to the schema of this release, if it is not there yet."""
    if connection.vendor != "postgresql":
        return
    with _beside(connection) as own:
        if not schema_is_current(own):
            migrate(own)


@contextmanager
def _beside(connection: Any) -> Iterator[psycopg.Connection[Any]]:
    """Connect once more: the steps need commits of their own, and rows without Django's conversions."""
    with closing(open_one(conninfo_of(connection), application_name="reproq migrate")) as own:
        yield own


def conninfo_of(connection: Any) -> str:
    """Return what libpq needs to know to connect as Django's *connection* does, its role included. It holds the password."""
    parameters = {name: value for name, value in connection.get_connection_params().items() if name not in _NOT_FOR_LIBPQ}
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    if role:
        parameters["options"] = f"{parameters.get('options') or ''} -c role={role}".strip()
    return make_conninfo("", **parameters)
