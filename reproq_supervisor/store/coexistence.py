"""What there is to say of an older worker that goes on beside this product."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.schema.coexistence import coexists_since
from reproq_supervisor.store.statements import load

PRODUCT = "reproq-supervisor"
"""Stands before the version of our own workers, so that those of another product can be told from them."""


@dataclass(frozen=True, slots=True)
class OlderWorker:
    """A worker of another product, as it announced itself."""

    worker_id: str
    seen_s_ago: float


@dataclass(frozen=True, slots=True)
class Coexistence:
    """How things stand.

    Attributes:
      since: when the mode was switched on; None when it is off.
      older_workers: those seen lately, the latest first.
      held: runs that such workers hold now.
    """

    since: datetime | None
    older_workers: tuple[OlderWorker, ...]
    held: int


def coexistence(connection: psycopg.Connection[Any], within_s: float) -> Coexistence:
    """Return how things stand, with the older workers that were seen within so many seconds.

    Raises:
      StoreUnavailable: the database cannot be asked now.
    """
    with translated():
        rows = connection.execute(load("coexistence")["older_workers"], {"ours": PRODUCT, "within_s": within_s}).fetchall()
        held = connection.execute(load("coexistence")["held_by_older"]).fetchone()
        return Coexistence(coexists_since(connection), tuple(OlderWorker(*row) for row in rows), held[0] if held else 0)
