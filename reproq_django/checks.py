"""System checks: what is wrong with the settings of a backend, told by `manage.py check` and at every start."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from reproq_django.conf import problems_of
from reproq_django.routing import queue_aliases


def backend_problems(alias: str, options: Mapping[str, Any]) -> list[CheckMessage]:
    """Return what is wrong with TASKS[*alias*] and with the settings that all backends share."""
    found: list[CheckMessage] = []
    found += [Error(f"TASKS[{alias!r}][{problem}", id="reproq_django.E002") for problem in _places(options)]
    found += _of_other_settings()
    try:
        aliases = queue_aliases()
    except ImproperlyConfigured as error:
        return [*found, Error(str(error), id="reproq_django.E003")]
    for name in aliases:
        if name not in settings.DATABASES:
            known = ", ".join(sorted(settings.DATABASES))
            found.append(
                Error(
                    f"database {name!r}: expected one of DATABASES ({known})",
                    hint="REPROQ_DEFAULT_DB_ALIAS and the values of REPROQ_QUEUE_DATABASES name databases.",
                    id="reproq_django.E004",
                )
            )
        elif connections[name].vendor != "postgresql":
            found.append(
                Warning(
                    f"database {name!r}: expected PostgreSQL, got {connections[name].display_name}: tasks can be enqueued, but never run",
                    hint="Good for tests; silence it there with SILENCED_SYSTEM_CHECKS.",
                    id="reproq_django.W001",
                )
            )
    return found


def _of_other_settings() -> Iterator[CheckMessage]:
    pools = getattr(settings, "REPROQ", None)
    if pools is not None and not isinstance(pools, Mapping):
        yield Error(f"REPROQ: expected the keys of supervisor.yaml, got {pools!r}", id="reproq_django.E005")
    chosen = getattr(settings, "REPROQ_STATS_DATABASES", None) or ()
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if name != "*" and name not in settings.DATABASES:
            yield Error(f'REPROQ_STATS_DATABASES: expected databases of DATABASES, or "*", got {name!r}', id="reproq_django.E006")
    cache = getattr(settings, "REPROQ_TUI_CACHE", None)
    if cache and cache not in settings.CACHES:
        yield Error(
            f"REPROQ_TUI_CACHE: expected one of CACHES ({', '.join(sorted(settings.CACHES))}), got {cache!r}", id="reproq_django.E007"
        )


def _places(options: Mapping[str, Any]) -> list[str]:
    return [problem.replace("OPTIONS.", "'OPTIONS']['", 1).replace(":", "']:", 1) for problem in problems_of(options)]
