"""What operators set for every worker of a database: rate limits, and queues that are paused."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of tokens; a claim spends one for each run.

    Attributes:
      key: `task:<path>`, `queue:<name>` or `global`; for a run the first of them that exists decides.
      tokens_per_second: 0 frees from the wider limits.
      burst: tokens that a full bucket holds.
      tokens: in it now.
      waiting: runs that wait for a token of it.
    """

    key: str
    tokens_per_second: float
    burst: int
    tokens: float
    last_refilled_at: datetime
    waiting: int


def set_limit(connection: psycopg.Connection[Any], key: str, tokens_per_second: float, burst: int) -> None:
    """Set the limit *key*, with a full bucket.

    Raises:
      StoreUnavailable: the database cannot be asked now.
    """
    with translated():
        connection.execute(load("controls")["set_limit"], {"key": key, "rate": tokens_per_second, "burst": burst})


def limits(connection: psycopg.Connection[Any]) -> list[RateLimit]:
    """Return every limit, by key."""
    with translated():
        return [RateLimit(*row) for row in connection.execute(load("controls")["limits"])]


def remove_limit(connection: psycopg.Connection[Any], key: str) -> bool:
    """Remove the limit *key*; answer whether there was one. Runs that wait for it are claimed by the next cycles."""
    with translated():
        return connection.execute(load("controls")["remove_limit"], {"key": key}).fetchone() is not None


def pause(connection: psycopg.Connection[Any], queue: str, reason: str | None) -> None:
    """Let nobody claim from *queue*; what runs goes on."""
    with translated():
        connection.execute(load("controls")["pause"], {"queue": queue, "reason": reason})


def resume(connection: psycopg.Connection[Any], queue: str) -> bool:
    """Let *queue* go on at once; answer whether it was paused."""
    with translated():
        return connection.execute(load("controls")["resume"], {"queue": queue}).fetchone() is not None
