"""How a dashboard comes to a token: it shows a code, a superuser approves it, and the dashboard fetches the token, once.

    dashboard ──pair──► code, verify_url            the code has 64 random bits, and lives for ten minutes
    superuser ──authorize──► sees the code, approves
    dashboard ──pair/<code>──► pending … approved, token      then the code is gone

Both ends are throttled by address. State is in the cache (see `throttle`).
"""

import secrets
import time
from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import reverse, reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from reproq_django.views import tokens
from reproq_django.views.auth import bearer_of
from reproq_django.views.places import public_config
from reproq_django.views.throttle import is_too_often, pairing_cache
from reproq_django.views.values import value_of

PENDING_S = 600
FETCH_S = 300
MOST_PAIRINGS = 10
MOST_QUESTIONS = 120
_CODE_BYTES = 8


@csrf_exempt
@never_cache
@require_http_methods(["GET", "POST"])
def pair(request: HttpRequest) -> HttpResponseBase:
    """Begin a pairing."""
    if not value_of("METRICS_AUTH_TOKEN"):
        return JsonResponse({"error": "tui auth disabled"}, status=404)
    if is_too_often(request, "pair", MOST_PAIRINGS):
        return _wait()
    code = secrets.token_hex(_CODE_BYTES)
    pairing_cache().set(_key(code), {"status": "pending"}, PENDING_S)
    verify = request.build_absolute_uri(f"{reverse('reproq-tui-authorize')}?code={code}")
    return JsonResponse({"code": code, "verify_url": verify, "expires_at": int(time.time()) + PENDING_S, **public_config(request)})


@never_cache
def pair_status(request: HttpRequest, code: str) -> HttpResponseBase:
    """Tell the dashboard how its pairing stands; an approved one is told once, for whoever has the token then has it alone."""
    if is_too_often(request, "status", MOST_QUESTIONS):
        return _wait()
    cache = pairing_cache()
    found = cache.get(_key(code))
    if not isinstance(found, dict):
        return JsonResponse({"status": "expired"}, status=404)
    if found["status"] == "approved" and not cache.delete(_key(code)):
        return JsonResponse({"status": "expired"}, status=404)  # somebody else was faster
    return JsonResponse(found)


@never_cache
@csrf_protect
@login_required(login_url=reverse_lazy("reproq-tui-login"))
@require_http_methods(["GET", "POST"])
def authorize(request: HttpRequest) -> HttpResponse:
    """Show a superuser the code, and approve it."""
    user: Any = request.user
    if not (user.is_active and user.is_superuser):
        return HttpResponse("only a superuser may pair a dashboard", status=403, content_type="text/plain")
    code = str(request.POST.get("code") or request.GET.get("code") or "")
    found = pairing_cache().get(_key(code))
    state = found["status"] if isinstance(found, dict) else "expired"
    if request.method == "POST" and state == "pending":
        token, ends = tokens.issue(user)
        pairing_cache().set(_key(code), {"status": "approved", "token": token, "expires_at": ends}, FETCH_S)
        state = "approved"
    status = 404 if state == "expired" else 200
    return render(request, "reproq_tui/authorize.html", {"code": code, "state": state}, status=status)


@csrf_exempt
@never_cache
@require_POST
def revoke(request: HttpRequest) -> HttpResponseBase:
    """Let the token that the request shows be worth nothing any more: what a dashboard does when it logs out."""
    claims = tokens.read(bearer_of(request))
    if claims is None:
        return JsonResponse({"error": "Unauthorized"}, status=403)
    tokens.revoke(claims)
    return JsonResponse({"ok": True})


@never_cache
@require_safe
def config(request: HttpRequest) -> HttpResponseBase:
    """Tell a dashboard where it reads."""
    return JsonResponse(public_config(request))


class Login(LoginView):
    """Log in to approve a dashboard."""

    template_name = "reproq_tui/login.html"


def _key(code: str) -> str:
    # Only what we hand out is looked up: a cache may be particular about keys.
    return f"reproq_tui_pair:{code if len(code) == 2 * _CODE_BYTES and code.isascii() and code.isalnum() else '-'}"


def _wait() -> JsonResponse:
    answer = JsonResponse({"error": "rate limited"}, status=429)
    answer["Retry-After"] = "60"
    return answer
