"""What a paired dashboard shows: a signed statement (JWT, HS256) that names a superuser, and ends.

The key is not the token of the metrics: REPROQ_TUI_SECRET, or made from SECRET_KEY. A token is worth nothing any more when it has ended,
when its user changed the password, was deactivated or is no superuser any more, when the key was changed, or when it was revoked. Only the
last is remembered in the cache; everything else is asked of the user each time.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from django.contrib.auth import get_user_model
from django.utils.crypto import constant_time_compare, salted_hmac

from reproq_django.views.throttle import pairing_cache
from reproq_django.views.values import value_of

LIFETIME_S = 30 * 86400
ISSUER = "reproq-django"
AUDIENCE = "reproq-tui"
_SALT = "reproq_django.views.tokens"


def issue(user: Any) -> tuple[str, int]:
    """Return a token of *user*, and when it ends (Unix time)."""
    now = int(time.time())
    claims = {
        "sub": str(user.pk),
        "username": user.get_username(),
        "superuser": True,
        "iat": now,
        "exp": now + LIFETIME_S,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": secrets.token_hex(16),
        "gen": _generation_of(user),
    }
    body = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
    return f"{body}.{_sign(body)}", claims["exp"]


def user_of(token: str) -> Any:
    """Return the user whose token this is; None when it is worth nothing (any more)."""
    claims = read(token)
    if claims is None or pairing_cache().get(_revoked_key(claims)):
        return None
    model: Any = get_user_model()
    try:
        user = model._default_manager.filter(pk=claims.get("sub"), is_active=True).first()
    except (TypeError, ValueError):
        return None
    if user is None or not getattr(user, "is_superuser", False):
        return None
    return user if constant_time_compare(str(claims.get("gen")), _generation_of(user)) else None


def read(token: str) -> dict[str, Any] | None:
    """Return what a token says that we signed and that has not ended; None for every other."""
    body, _, signature = token.rpartition(".")
    if not constant_time_compare(signature, _sign(body)):
        return None
    head, _, claims_part = body.partition(".")
    head_said, claims = _decode(head), _decode(claims_part)
    if not (isinstance(head_said, dict) and head_said.get("alg") == "HS256" and isinstance(claims, dict)):
        return None
    ends = claims.get("exp")
    is_ours = claims.get("iss") == ISSUER and claims.get("aud") == AUDIENCE and claims.get("superuser") is True
    return claims if is_ours and isinstance(ends, int) and ends > time.time() else None


def revoke(claims: dict[str, Any]) -> None:
    """Let the token with these claims be worth nothing from now on."""
    pairing_cache().set(_revoked_key(claims), True, max(1, int(claims["exp"] - time.time())))


def _revoked_key(claims: dict[str, Any]) -> str:
    return f"reproq_tui_revoked:{claims.get('jti')}"


def _generation_of(user: Any) -> str:
    """Return what changes with the password of *user*, and tells nothing of it."""
    return str(salted_hmac(_SALT, user.password, algorithm="sha256").hexdigest()[:16])


def _sign(body: str) -> str:
    secret = value_of("REPROQ_TUI_SECRET")
    key = secret.encode() if secret else salted_hmac(_SALT, "key", algorithm="sha256").digest()
    return _base64(hmac.new(key, body.encode(), hashlib.sha256).digest())


def _encode(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _decode(part: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
