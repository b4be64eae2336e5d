"""Which database a subcommand works on, as a URL for a process of ours. It may hold a password: never for an argv or a log."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from django.core.management.base import CommandError
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from reproq_django.conf import default_db_alias
from reproq_django.routing import is_postgres, queue_aliases
from reproq_django.schema import conninfo_of


def url_of(alias: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the database *alias*; without one that of DATABASE_URL, else of the default queue's database.

    Raises:
      CommandError: there is no such database, or it is none that can run tasks.
    """
    if alias is None and environ.get("DATABASE_URL"):
        return environ["DATABASE_URL"]
    alias = require_postgres(require_known(alias or default_db_alias()))
    return as_url(conninfo_to_dict(conninfo_of(connections[alias])))


def require_known(alias: str) -> str:
    """Return *alias* if the project has such a database.

    Raises:
      CommandError: it has none.
    """
    if alias not in connections.settings:
        raise CommandError(f"--database: expected one of {', '.join(connections.settings)}, got {alias!r}")
    return alias


def require_postgres(alias: str) -> str:
    """Return *alias* if it is a PostgreSQL database.

    Raises:
      CommandError: it is none.
    """
    if not is_postgres(alias):
        raise CommandError(f"database {alias}: expected PostgreSQL, which tasks need to run, got {connections[alias].vendor}")
    return alias


def chosen_aliases(options: Mapping[str, Any]) -> list[str | None]:
    """Return the databases that `--database` and `--all-databases` mean; None stands for what `url_of` takes then."""
    if options.get("all_databases"):
        if options.get("database"):
            raise CommandError("--all-databases: expected no --database beside it")
        return list(queue_aliases())
    alias = options.get("database")
    return [alias and require_known(alias)]


def as_url(parameters: Mapping[str, Any]) -> str:
    """Return libpq's *parameters* as a URL. What is no part of one (a socket's folder, TLS) goes into its query."""
    rest = {name: str(value) for name, value in parameters.items() if value is not None}
    user, password = rest.pop("user", ""), rest.pop("password", "")
    host, port = rest.get("host", ""), rest.get("port", "")
    place = ""
    if host and not host.startswith(("/", "@")) and "," not in host:
        place = f"[{host}]" if ":" in host else quote(host, safe="")
        place += f":{port}" if port else ""
        rest.pop("host")
        rest.pop("port", None)
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    name = quote(rest.pop("dbname", ""), safe="")
    query = urlencode(rest, quote_via=quote)
    return f"postgresql://{who}{'@' if who else ''}{place}/{name}{'?' if query else ''}{query}"
