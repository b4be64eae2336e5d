"""What goes with time: ended runs, workers that are gone, runs that expired before they began. In batches, each a short transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from reproq_supervisor.core.runs import TERMINAL, RunId, RunStatus
from reproq_supervisor.store.errors import translated
from reproq_supervisor.store.statements import load

# Records that one call looks at: a few milliseconds.
ROWS = 1000
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Gone:
    """A run that was deleted, or would be. `logs_uri`: where the output of its last attempt is."""

    result_id: RunId
    status: str
    logs_uri: str | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one call did.

    Attributes:
      gone: runs that were deleted.
      spared: runs that are old enough, but belong to something that stays.
      left_over: runs that are locked, or that PostgreSQL refuses to delete; and workflows that somebody is at.
      looked_at: the id up to which it looked, None for all.
    """

    gone: list[Gone]
    spared: int
    left_over: int
    looked_at: RunId | None


def prune_parameters(
    ages_s: Mapping[RunStatus, float],
    after: int,
    *,
    rows: int = ROWS,
    most: int | None = None,
    field: str = "finished_at",
    dry: bool = False,
    early: bool = False,
) -> dict[str, Any]:
    """Return what the statement `prune` takes."""
    return {
        "after": after,
        "rows": rows,
        "statuses": [str(status) for status in ages_s],
        "ages_s": [float(age_s) for age_s in ages_s.values()],
        "field": field,
        "most": most or _NO_LIMIT,
        "dry": dry,
        "early": early,
    }


def as_pruned(row: tuple[Any, ...]) -> Pruned:
    """Return the row of the statement `prune` as what it means."""
    next_after, ids, statuses, logs_uris, spared, left_over = row
    gone = [Gone(*each) for each in zip(ids, statuses, logs_uris, strict=True)]
    return Pruned(gone, spared, left_over, next_after)


def prune(
    connection: psycopg.Connection[Any],
    ages_s: Mapping[RunStatus, float],
    *,
    limit: int | None = None,
    field: str = "finished_at",
    dry: bool = False,
) -> Iterator[Pruned]:
    """Delete ended runs that are older than their status may become, the smallest ids first; yield each batch when it is committed.

    Args:
      ages_s: seconds, by status; other statuses stay.
      limit: about how many at most: a workflow that is begun with goes whole.
      field: the column that the age counts from.
      dry: only say what would go.
    """
    after: int | None = 0
    left = limit
    while after is not None and (left is None or left > 0):
        with translated():
            row = connection.execute(load("pruning")["prune"], prune_parameters(ages_s, after, most=left, field=field, dry=dry)).fetchone()
        assert row is not None, "a function call has one row"
        pruned = as_pruned(row)
        yield pruned
        after = pruned.looked_at
        left = None if left is None else left - len(pruned.gone)


def prune_expired(connection: psycopg.Connection[Any], *, limit: int | None = None, dry: bool = False) -> Iterator[Pruned]:
    """Delete ended runs whose `expires_at` is over; others end by `expire`."""
    yield from prune(connection, dict.fromkeys(sorted(TERMINAL), 0.0), limit=limit, field="expires_at", dry=dry)


def expire(connection: psycopg.Connection[Any], *, dry: bool = False) -> Iterator[int]:
    """End every run that has expired and that nobody has begun, and with it what waits for it; yield how many, batch by batch."""
    after: str | None = "-infinity"
    after_id = 0
    while after is not None:
        with translated():
            parameters = {"after": after, "after_id": after_id, "limit": ROWS, "dry": dry}
            row = connection.execute(load("pruning")["expire"], parameters).fetchone()
        assert row is not None, "a function call has one row"
        ended, after, after_id = row
        yield ended


def prune_workers(connection: psycopg.Connection[Any], older_than_s: float, *, dry: bool = False) -> list[str]:
    """Remove workers that have not been seen for so long; return their ids."""
    with translated():
        rows = connection.execute(load("pruning")["old_workers" if dry else "prune_workers"], {"older_than_s": older_than_s})
        return [row[0] for row in rows]


def prune_flows(connection: psycopg.Connection[Any], ages_s: Mapping[RunStatus, float], field: str, *, dry: bool = False) -> int:
    """Delete workflows of the longest of these ages that have no runs any more; return how many.

    Args:
      dry: only say how many it would be after `prune` with the same ages and *field*.
    """
    age_s = max(ages_s.values())
    if dry:
        parameters = {"age_s": age_s, "statuses": [str(status) for status in ages_s], "ages_s": list(map(float, ages_s.values()))}
        with translated():
            row = connection.execute(load("pruning")["flows_to_prune"], {**parameters, "field": field}).fetchone()
        return int(row[0]) if row else 0
    total: int = 0
    while True:
        with translated():
            row = connection.execute(load("pruning")["prune_flows"], {"age_s": age_s, "limit": ROWS}).fetchone()
        assert row is not None, "a function call has one row"
        total += int(row[0])
        if row[0] < ROWS:
            return total
