"""Which database a queue is in, and what ids of results look like when there are several."""

from fnmatch import fnmatchcase

from django.conf import settings
from django.db import connections

from reproq_django.conf import default_db_alias, queue_databases, result_id_with_alias

_WILD = frozenset("*?[")


def resolve_queue_db(queue_name: str) -> str:
    """Return the alias of the database that *queue_name* is in: by its name, else by the first pattern that fits, else the default."""
    databases = queue_databases()
    if queue_name in databases:
        return databases[queue_name]
    for pattern, alias in databases.items():
        if _WILD & set(pattern) and fnmatchcase(queue_name, pattern):
            return alias
    return default_db_alias()


def queue_aliases() -> list[str]:
    """Return the aliases of all databases that queues are in, the default first."""
    return list(dict.fromkeys([default_db_alias(), *queue_databases().values()]))


def result_id_of(alias: str, result_id: int) -> str:
    """Return the id of a result as applications see it: with its database, where there are several."""
    wanted = result_id_with_alias()
    has_alias = len(queue_aliases()) > 1 if wanted is None else wanted
    return f"{alias}:{result_id}" if has_alias else str(result_id)


def parse_result_id(text: object) -> tuple[str, int | None]:
    """Return the database and the number that an id of a result names; None as number for what no run can have."""
    words = str(text)
    alias, colon, rest = words.partition(":")
    if not colon or (alias not in queue_aliases() and alias not in settings.DATABASES):
        alias, rest = default_db_alias(), words
    return alias, int(rest) if rest.isascii() and rest.isdecimal() and len(rest) < 19 else None


def is_postgres(alias: str) -> bool:
    """Answer whether the database *alias* can do all that the store can: others only keep rows, for test suites."""
    return bool(connections[alias].vendor == "postgresql")
