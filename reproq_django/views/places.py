"""Where a worker's own server is: seen from this process, which alone may know, and as it is told to dashboards."""

from django.http import HttpRequest
from django.urls import reverse

from reproq_django.views.values import is_on, value_of

KINDS = ("metrics", "healthz", "events")
_NAMES = {"metrics": "REPROQ_TUI_WORKER_METRICS_URL", "healthz": "REPROQ_TUI_WORKER_HEALTH_URL", "events": "REPROQ_TUI_EVENTS_URL"}
_KEYS = {"metrics": "worker_metrics_url", "healthz": "worker_health_url", "events": "events_url"}
_VIEWS = {"metrics": "reproq-tui-metrics", "healthz": "reproq-tui-healthz", "events": "reproq-tui-events"}


def is_low_memory() -> bool:
    """Answer whether workers have no server."""
    return is_on("LOW_MEMORY_MODE")


def has_events() -> bool:
    """Answer whether events are passed on."""
    return not is_low_memory() and not is_on("REPROQ_TUI_DISABLE_EVENTS")


def internal_url(kind: str) -> str:
    """Return where this process asks a worker."""
    named = value_of("REPROQ_TUI_WORKER_INTERNAL_URL") or value_of("METRICS_ADDR") or f"127.0.0.1:{value_of('METRICS_PORT') or 9090}"
    address = f"127.0.0.1{named}" if named.startswith(":") else named
    return f"{address if '://' in address else f'http://{address}'}".rstrip("/") + f"/{kind}"


def public_config(request: HttpRequest) -> dict[str, object]:
    """Return what a dashboard is told: what the project has published, else the pages of this site. Nothing internal is among it."""
    base = value_of("REPROQ_TUI_WORKER_URL").rstrip("/")
    explicit = {kind: value_of(name) or (f"{base}/{kind}" if base else "") for kind, name in _NAMES.items()}
    found: dict[str, object] = {}
    if base:
        found["worker_url"] = base
    for kind in KINDS:
        if kind != "events" or has_events():
            found[_KEYS[kind]] = explicit[kind] or request.build_absolute_uri(reverse(_VIEWS[kind]))
    if is_low_memory():
        found["low_memory_mode"] = True
    return found
