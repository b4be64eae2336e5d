"""A walk through the record in batches by id, each a short transaction, that comes back for what others had locked."""

import time
from collections.abc import Callable

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.schema.step import Connection, Work
from reproq_supervisor.store.statements import load

# A batch of runs that wait takes about 100 ms, one of history 5 ms.
_ROWS = 2_000
_BEFORE_ALL = -(2**63)
_TELL_EVERY_S = 1.0
_PAUSE_S = 0.5

# Deals with the records above the first and up to the second id; returns how many it passed over because somebody else has them locked.
Batch = Callable[[Connection, int, int], int]


def walk(work: Work, batch: Batch) -> None:
    """Call *batch* for all records, and again where it passed some over.

    Raises:
      StoreUnavailable: some were locked by others for the whole patience of *work*.
    """
    behind: list[tuple[int, int]] = []
    rows, told_at = 0, time.monotonic()
    after = _BEFORE_ALL
    while (upto := _next_upto(work, after)) is not None:
        rows += _ROWS
        if _deal_with(work, batch, after, upto):
            behind.append((after, upto))
        after = upto
        if time.monotonic() - told_at > _TELL_EVERY_S:
            work.tell(f"about {rows:,} records done")
            told_at = time.monotonic()
    deadline = time.monotonic() + work.patience_s
    while behind:
        behind = [part for part in behind if _deal_with(work, batch, *part)]
        if behind and time.monotonic() > deadline:
            raise StoreUnavailable(f"task_runs: expected to reach every record within {work.patience_s:.0f} s, some stay locked by others")
        if behind:
            work.tell(f"waits for records that others hold, near id {behind[0][1]}")
            time.sleep(_PAUSE_S)


def _deal_with(work: Work, batch: Batch, after: int, upto: int) -> int:
    return work.commit(lambda connection: batch(connection, after, upto))


def _next_upto(work: Work, after: int) -> int | None:
    row = work.connection.execute(load("migrating")["next_upto"], {"after": after, "rows": _ROWS}).fetchone()
    return row[0] if row else None
