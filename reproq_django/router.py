"""The router for DATABASE_ROUTERS: the tables of the queue are in the databases of queues, and nowhere else."""

from typing import Any

from reproq_django.conf import default_db_alias
from reproq_django.routing import queue_aliases

APP = "reproq_django"


class ReproqRouter:
    """Says nothing of other applications' models."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return _database(model, hints)

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return _database(model, hints)

    def allow_relation(self, first: Any, second: Any, **hints: Any) -> bool | None:
        if APP not in (first._meta.app_label, second._meta.app_label):
            return None
        return bool(first._state.db == second._state.db)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db in queue_aliases() if app_label == APP else None


def _database(model: Any, hints: dict[str, Any]) -> str | None:
    if model._meta.app_label != APP:
        return None
    instance = hints.get("instance")
    found = getattr(getattr(instance, "_state", None), "db", None)
    return found or default_db_alias()
