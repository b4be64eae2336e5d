"""What `manage.py migrate` does at its end here: the steps that no migration of Django stands for, and declared schedules."""

from typing import Any

from django.db import connections, router

from reproq_django.conf import recurring_autosync
from reproq_django.schema import bring


def bring_schema_and_schedules(using: str, **kwargs: Any) -> None:
    """Receive `post_migrate`. Flushing a database (between tests) sends the signal too, but it has no plan then."""
    if "plan" not in kwargs or not router.allow_migrate(using, "reproq_django"):
        return
    bring(connections[using])
    if recurring_autosync():
        _sync(using)


def _sync(alias: str) -> None:
    from reproq_django.syncing import has_table, sync_recurring  # models, which `ready` may not load yet

    if has_table(alias):
        sync_recurring(alias)
