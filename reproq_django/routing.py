"""Which database a queue is in, and what ids of results look like when there are several."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from django.conf import settings
from django.db import connections

from reproq_django.conf import default_db_alias, queue_databases, result_id_with_alias

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Routes:
    """Where queues are, as the settings say now: asked once for many runs, for settings are slow to read."""

    default: str
    databases: Mapping[str, str]
    ids_have_alias: bool

    @classmethod
    def read(cls) -> "Routes":
        """Return what the settings say now."""
        wanted = result_id_with_alias()
        return cls(default_db_alias(), queue_databases(), len(queue_aliases()) > 1 if wanted is None else wanted)

    def database_of(self, queue_name: str) -> str:
        """Return the alias of the database that a queue is in: by its name, else by the first pattern that fits, else the default."""
        if queue_name in self.databases:
            return self.databases[queue_name]
        for pattern, alias in self.databases.items():
            if _WILD & set(pattern) and fnmatchcase(queue_name, pattern):
                return alias
        return self.default

    def result_id_of(self, alias: str, result_id: int) -> str:
        """Return the id of a result as applications see it: with its database, where there are several."""
        return f"{alias}:{result_id}" if self.ids_have_alias else str(result_id)


def resolve_queue_db(queue_name: str) -> str:
    """Return the alias of the database that *queue_name* is in."""
    return Routes.read().database_of(queue_name)


def result_id_of(alias: str, result_id: int) -> str:
    """Return the id of a result as applications see it."""
    return Routes.read().result_id_of(alias, result_id)


def queue_aliases() -> list[str]:
    """Return the aliases of all databases that queues are in, the default first."""
    return list(dict.fromkeys([default_db_alias(), *queue_databases().values()]))


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
