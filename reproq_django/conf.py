"""The settings of a project that this package reads, and the options of a backend, each with its default.

Read when they are needed, never kept: tests change them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from reproq_supervisor.client.arguments import MOST_INT32


def default_db_alias() -> str:
    """Return the alias of the database whose queue takes what no other is named for."""
    return str(getattr(settings, "REPROQ_DEFAULT_DB_ALIAS", None) or DEFAULT_DB_ALIAS)


def queue_databases() -> dict[str, str]:
    """Return the aliases of databases by names of queues, which may have `*`, `?` and `[`."""
    found = getattr(settings, "REPROQ_QUEUE_DATABASES", None) or {}
    if not isinstance(found, Mapping):
        raise ImproperlyConfigured(f"REPROQ_QUEUE_DATABASES: expected aliases of databases by queue, got {found!r}")
    return {str(queue): str(alias) for queue, alias in found.items()}


def result_id_with_alias() -> bool | None:
    """Return whether ids of results name their database; None leaves it to the number of databases."""
    found = getattr(settings, "REPROQ_RESULT_ID_WITH_ALIAS", None)
    return None if found is None else bool(found)


def recurring_autosync() -> bool:
    """Return whether `migrate` brings the declared schedules."""
    return bool(getattr(settings, "REPROQ_RECURRING_AUTOSYNC", True))


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """OPTIONS of one entry of `TASKS`, by the names in capitals.

    Attributes:
      dedup_active: whether a task with the same arguments that has not ended yet is returned instead of a second one.
      expires_in: after this time in the queue a task is not worth running any more.
      code_ref, pip_lock_hash: what the code was when it was enqueued; kept with the task.
    """

    dedup_active: bool = True
    timeout_seconds: int = 900
    max_attempts: int = 3
    expires_in: timedelta | None = None
    code_ref: str | None = None
    pip_lock_hash: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "BackendOptions":
        """Return the options that are known; what is not, or not right, is told by `problems_of`."""
        return cls(**{name: options[name.upper()] for name in _KINDS if name.upper() in options})


_KINDS: dict[str, tuple[type, ...]] = {
    "dedup_active": (bool,),
    "timeout_seconds": (int,),
    "max_attempts": (int,),
    "expires_in": (timedelta, type(None)),
    "code_ref": (str, type(None)),
    "pip_lock_hash": (str, type(None)),
}
assert set(_KINDS) == {each.name for each in fields(BackendOptions)}, "every option has its kinds"


def problems_of(options: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with OPTIONS."""
    known = {name.upper(): kinds for name, kinds in _KINDS.items()}
    found = []
    for name, value in options.items():
        if name not in known:
            found.append(f"OPTIONS.{name}: expected one of {', '.join(sorted(known))}")
            continue
        is_right = isinstance(value, known[name]) and (bool in known[name] or not isinstance(value, bool))
        if not is_right or not _is_within(value):
            kinds = " or ".join("None" if kind is type(None) else kind.__name__ for kind in known[name])
            bounds = next((words for kind, words in _BOUNDS.items() if kind in known[name]), "")
            found.append(f"OPTIONS.{name}: expected {kinds}{bounds}, got {value!r}")
    return found


_BOUNDS = {int: f" from 1 to {MOST_INT32}", timedelta: f", above 0 and up to {MOST_INT32} s"}


def _is_within(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return 1 <= value <= MOST_INT32
        case timedelta():
            return timedelta() < value <= timedelta(seconds=MOST_INT32)
        case _:
            return True


def check_shape(alias: str, params: Mapping[str, Any]) -> None:
    """Refuse an entry of TASKS that no backend can be made of.

    Raises:
      ImproperlyConfigured: with what is wrong.
    """
    options, queues = params.get("OPTIONS", {}), params.get("QUEUES")
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"TASKS[{alias!r}]['OPTIONS']: expected options by their names, got {options!r}")
    # A text would be taken for the queues of its letters.
    if queues is not None and not (isinstance(queues, list | tuple | set | frozenset) and all(isinstance(name, str) for name in queues)):
        raise ImproperlyConfigured(f"TASKS[{alias!r}]['QUEUES']: expected a list of names, empty for any, got {queues!r}")
