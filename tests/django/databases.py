"""Entries of DATABASES for the databases of tests."""

from typing import Any

from psycopg.conninfo import conninfo_to_dict


def postgres_settings(dsn: str) -> dict[str, Any]:
    """Return the entry of DATABASES for a database of the tests' server."""
    parts = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {"ENGINE": "django.db.backends.postgresql", **{name: str(parts.get(part) or "") for name, part in names.items()}}
