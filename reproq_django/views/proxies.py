"""What a worker's own server says, passed on: for dashboards that reach this site, and not the worker."""

import http.client
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from reproq_django.views.auth import for_readers
from reproq_django.views.places import has_events, internal_url, is_low_memory
from reproq_django.views.upstream import Upstream
from reproq_django.views.values import value_of

TIMEOUT_S = 5.0
EVENTS_TIMEOUT_S = 30.0
"""Twice the time between two signs of life in a stream without events."""


@never_cache
@require_GET
@for_readers
def metrics(request: HttpRequest) -> HttpResponseBase:
    """Pass the metrics on."""
    return _pass_on(request, "metrics")


@never_cache
@require_GET
@for_readers
def healthz(request: HttpRequest) -> HttpResponseBase:
    """Pass on whether it is healthy."""
    return _pass_on(request, "healthz")


@never_cache
@require_GET
@for_readers
def events(request: HttpRequest) -> HttpResponseBase:
    """Pass events on, each when it comes."""
    if not is_low_memory() and not has_events():
        return JsonResponse({"error": "events disabled"}, status=404)
    return _pass_on(request, "events")


def _pass_on(request: HttpRequest, kind: str) -> HttpResponseBase:
    if is_low_memory():
        hint = "workers have no server then; unset LOW_MEMORY_MODE"
        return JsonResponse({"error": f"{kind} disabled (LOW_MEMORY_MODE enabled)", "hint": hint}, status=503)
    query = request.META.get("QUERY_STRING", "")
    url = f"{internal_url(kind)}?{query}" if query and kind == "events" else internal_url(kind)
    timeout_s = EVENTS_TIMEOUT_S if kind == "events" else TIMEOUT_S
    try:
        answer = Upstream.ask(url, _headers(request), timeout_s)
        if kind == "events" and answer.response.status == 200:
            return _stream(request, answer)
        body = answer.read()
    except TimeoutError:
        return JsonResponse({"error": f"{kind} proxy timeout"}, status=504)
    except (OSError, http.client.HTTPException):
        return JsonResponse({"error": f"{kind} proxy failed"}, status=502)
    content_type = answer.response.getheader("Content-Type") or "text/plain"
    return HttpResponse(body, status=answer.response.status, content_type=content_type)


def _headers(request: HttpRequest) -> dict[str, str]:
    token = value_of("METRICS_AUTH_TOKEN")
    found = {"Authorization": f"Bearer {token}" if token else request.headers.get("Authorization", "")}
    # Where a dashboard left off.
    found["Last-Event-ID"] = request.headers.get("Last-Event-ID", "")
    return {name: value for name, value in found.items() if value}


def _stream(request: HttpRequest, answer: Upstream) -> StreamingHttpResponse:
    # Under ASGI Django would collect a plain iterator to its end, which does not come.
    pieces: Any = answer.apieces() if isinstance(request, ASGIRequest) else answer.pieces()
    found = StreamingHttpResponse(pieces, content_type="text/event-stream")
    found["X-Accel-Buffering"] = "no"
    return found
