"""Who may read: whoever has the token of the metrics, a paired dashboard, or staff that has logged in."""

import functools
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.crypto import constant_time_compare

from reproq_django.views import tokens
from reproq_django.views.throttle import is_too_often
from reproq_django.views.values import value_of

MOST_FAILURES = 30
View = Callable[..., HttpResponseBase]


def bearer_of(request: HttpRequest) -> str:
    """Return the token that a request shows, in either of its headers; empty without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return str(request.headers.get("X-Reproq-Token", ""))


def may_read(request: HttpRequest) -> bool:
    """Answer whether whoever asks may read."""
    shown, wanted = bearer_of(request), value_of("METRICS_AUTH_TOKEN")
    if shown:
        is_token = bool(wanted) and constant_time_compare(shown, wanted)
        return is_token or tokens.user_of(shown) is not None
    user: Any = getattr(request, "user", None)
    return user is not None and user.is_authenticated and user.is_active and user.is_staff


def for_readers(view: View) -> View:
    """Let only readers see *view*; whoever guesses too often is told so."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # Who has the right always gets in: behind a reverse proxy all come from one address, and one who guesses must not shut out others.
        if may_read(request):
            return view(request, *args, **kwargs)
        if bearer_of(request) and is_too_often(request, "auth", MOST_FAILURES):
            return JsonResponse({"error": "rate limited"}, status=429)
        return JsonResponse({"error": "Unauthorized"}, status=403)

    return guarded
