"""How often somebody may try: counted by address, in fixed windows, in the cache that pairing uses.

The address is that of the peer: what a header says of it anybody can write.
"""

import time

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest

from reproq_django.views.values import value_of

WINDOW_S = 60


def pairing_cache() -> BaseCache:
    """Return the cache of pairings; processes that serve the same site must share it. REPROQ_TUI_CACHE names another than `default`."""
    return caches[value_of("REPROQ_TUI_CACHE") or "default"]


def is_too_often(request: HttpRequest, what: str, most: int) -> bool:
    """Count one try of *what*, and answer whether there were more than *most* in this minute."""
    cache = pairing_cache()
    key = _key(request, what)
    cache.add(key, 0, WINDOW_S * 2)
    try:
        return int(cache.incr(key)) > most
    except ValueError:
        return False  # it was forgotten in between: a new window


def _key(request: HttpRequest, what: str) -> str:
    window = int(time.time() // WINDOW_S)
    return f"reproq_tui_tries:{what}:{request.META.get('REMOTE_ADDR', '')}:{window}"
