"""The database as the older worker is told it: a URL or `key=value` words, with options that only its Go driver knows."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

# Of the Go driver and its pool; libpq refuses what it does not know.
_DRIVERS = re.compile(
    r"pool_\w+|(statement|description)_cache_capacity|default_query_exec_mode|prefer_simple_protocol|statement_cache_mode"
)
_UNPREPARED = {
    "default_query_exec_mode": ("exec", "simple_protocol", "describe_exec", "cache_describe"),
    "statement_cache_capacity": ("0",),
    "prefer_simple_protocol": ("true", "1"),
    "statement_cache_mode": ("describe",),
}
_WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']\S*|)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Dsn:
    """A URL for libpq.

    Attributes:
      prepares: prepared statements may be used: nobody asked the Go driver to do without.
      dropped: the driver's options that were left out.
    """

    url: str
    prepares: bool = True
    dropped: tuple[str, ...] = ()


def read_dsn(text: str) -> Dsn:
    """Return the database of *text*; what is neither a URL nor words is returned as it is, to be complained about."""
    words = None if "://" in text else _words(text)
    if words is None and "://" not in text:
        return Dsn(text)
    pairs = words if words is not None else parse_qsl(urlsplit(text).query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if not _DRIVERS.fullmatch(name)]
    dropped = tuple(name for name, _ in pairs if _DRIVERS.fullmatch(name))
    prepares = not any(value.lower() in _UNPREPARED.get(name, ()) for name, value in pairs)
    if words is not None:
        return Dsn(f"postgresql:///?{urlencode(kept, quote_via=quote)}", prepares, dropped)
    if not dropped:
        return Dsn(text, prepares)
    base = text.partition("?")[0]
    return Dsn(base + (f"?{urlencode(kept, quote_via=quote)}" if kept else ""), prepares, dropped)


def _words(text: str) -> list[tuple[str, str]] | None:
    found, at = [], 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None or match.end() == at:
            return None
        name, value = match.groups()
        found.append((name, re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith("'") else value))
        at = match.end()
    return found or None
