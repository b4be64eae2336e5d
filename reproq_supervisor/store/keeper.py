"""The keeper's duties in the database. Each is safe to run twice, by two keepers at once, and works in batches of short transactions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from reproq_supervisor.core.runs import RunStatus
from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.pruning import Pruned, as_pruned, prune_parameters
from reproq_supervisor.store.schedules import ScheduleStore
from reproq_supervisor.store.term import UNFENCED, KeeperTerm

_REPAIR_BATCH = 2_000
_REKEY_BATCH = 5_000
_SWEEP_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Woken:
    """What `wake_due` did. `next_due_s`: seconds until the next run is due, None if none is parked for time, 0 if more are due already."""

    count: int
    next_due_s: float | None


@dataclass(frozen=True, slots=True)
class Repaired:
    """Lane rows that were missing and made, or left over and removed. `next_after`: the id to go on after, None when that was the end."""

    made: int
    removed: int
    next_after: int | None


@dataclass(frozen=True, slots=True)
class ExpiryPlace:
    """Where to look on for what has expired: behind a time, as the database writes it, and a run of that time. `is_end`: all was seen."""

    at: str = "-infinity"
    result_id: int = 0
    is_end: bool = False


class KeeperStore:
    """The keeper's connection. Every call raises `StoreUnavailable` (try again later) or `StoreError` (a bug).

    Duties that one keeper does for all raise `TermLost` when its term is over. What concerns one host is not fenced: the release of its
    dead workers, and the settings of its file.
    """

    def __init__(self, connection: StoreConnection, term: KeeperTerm | None = None) -> None:
        self._connection = connection
        self._term = term
        self.schedules = ScheduleStore(connection, UNFENCED, connection) if term is None else ScheduleStore(term, {}, connection)
        self._unordered: set[str] = set()
        self._unordered_mark = 0

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        application_name: str = "reproq keeper",
        prepare: bool = True,
        holder: str | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Self:
        """Connect.

        Args:
          prepare: False for poolers that do not keep prepared statements.
          holder: the name under which this keeper stands for election; None: it does its duties without a term, as it may, being safe to
            run twice.
          on_warning: takes what a duty could not do for one row among many, in the database's words.
        """
        connection = await StoreConnection.open(dsn, application_name=application_name, prepare=prepare, on_warning=on_warning)
        return cls(connection, KeeperTerm(connection, holder) if holder is not None else None)

    @property
    def term(self) -> KeeperTerm:
        """The term that this keeper stands for."""
        assert self._term is not None, "connected without a holder"
        return self._term

    async def reclaim(self, limit: int = 200) -> int:
        """End up to *limit* attempts whose lease has expired, each counted as an attempt; return how many. *limit* means call again."""
        return await self._number("reclaim", limit=limit)

    async def release_workers(self, worker_ids: Sequence[str], batch: int = 500) -> int:
        """Give back, uncounted, all runs of workers of which no process is left, but for those that others have locked; return how many."""
        released = 0
        parameters = {"worker_ids": list(worker_ids), "limit": batch}
        while count := (await self._connection.ask("keeping", "release_workers", parameters))[0][0]:
            released += count
        return released

    async def server_age_s(self) -> float:
        """Return for how long the server has been up."""
        ((age_s,),) = await self._connection.ask("keeping", "server_age", {})
        return float(age_s)

    async def holders(self, worker_ids: Sequence[str]) -> frozenset[str]:
        """Return which of these workers still hold runs."""
        rows = await self._connection.ask("keeping", "holders", {"worker_ids": list(worker_ids)})
        return frozenset(row[0] for row in rows)

    async def wake_due(self, limit: int = 1000) -> Woken:
        """Make up to *limit* runs ready that have become due."""
        ((count, next_due_s),) = await self._ask("wake_due", {"limit": limit})
        return Woken(count, next_due_s)

    async def settle_wishes(self, limit: int = 500) -> int:
        """Cancel runs that wait although somebody wished them cancelled while they were held; return how many."""
        return await self._number("settle_wishes", limit=limit)

    async def settle_keys(self, limit: int = 500) -> bool:
        """Wake who waits for a rate that has tokens, or for a key of which somebody left word; answer whether more of that is left.

        Also looks, where a limit is new, for runs that wait for a wider one.
        """
        ((more_rates,),) = await self._ask("review_rates", {"limit": limit})
        await self._ask("wake_throttled", {})
        ((more_keys,),) = await self._ask("settle_keys", {"limit": limit})
        return bool(more_rates or more_keys)

    async def settle_flows(self, limit: int = 500) -> bool:
        """Wake and fail what follows from runs of workflows that have ended; answer whether more is left."""
        ((more,),) = await self._ask("settle_flows", {"limit": limit})
        return bool(more)

    async def sweep_flows(self, after: int = 0) -> int | None:
        """Leave word of the next ends that somebody waits for and nobody settled: an older producer may have died between two inserts.

        Returns:
          the id to go on after; None when that was the end.
        """
        ((next_after,),) = await self._ask("sweep_flows", {"after": after, "limit": _SWEEP_BATCH})
        return next_after  # type: ignore[no-any-return]

    async def sweep_keys(self, after: str = "") -> str | None:
        """Leave word of the next keys that somebody waits for: whatever was forgotten is found by that. Returns as `sweep_flows`."""
        ((next_after,),) = await self._ask("sweep_keys", {"after": after, "limit": _SWEEP_BATCH})
        return next_after  # type: ignore[no-any-return]

    async def repair(self, after: int = 0) -> Repaired:
        """Look at the next records and lane rows by id, and make the invariant hold: not ended exactly when there is a lane row.

        For tables that were restored or replicated without their triggers.
        """
        ((made, removed, next_after),) = await self._ask("repair", {"after": after, "limit": _REPAIR_BATCH})
        return Repaired(made, removed, next_after)

    async def sync_queue_settings(self, priority_aging_s: Mapping[str, float]) -> list[str]:
        """Store the aging of queues (seconds per unit of priority, 0 = strict) and reorder those where it changed; return their names.

        When it returns, all that waited is in the new order. What a producer inserts meanwhile, in a transaction that began before, comes
        in the old one: while `has_unordered`, call it again from time to time.
        """
        rows = await self._connection.ask(
            "keeping",
            "set_queue_settings",
            {"queues": list(priority_aging_s), "agings_s": [float(aging) for aging in priority_aging_s.values()]},
        )
        changed = sorted(row[0] for row in rows)
        if changed:
            self._unordered |= set(changed)
            ((self._unordered_mark,),) = await self._connection.ask("reproq_queue_idle", "mark", {})
        elif self._unordered:
            ((settled,),) = await self._connection.ask("reproq_queue_idle", "is_settled", {"mark": self._unordered_mark})
            if not settled:
                return []
        for queue in changed or sorted(self._unordered):
            await self._rekey(queue)
        if not changed:
            self._unordered.clear()
        return changed

    async def sync_queue_retries(self, retries_s: Mapping[str, tuple[float | None, float | None]]) -> None:
        """Store for queues the delay before a second attempt and the longest one (seconds, None = no own).

        For what no shard decides: retries after a crash, or after a lease that ended.
        """
        bases, caps = [base for base, _ in retries_s.values()], [cap for _, cap in retries_s.values()]
        await self._connection.ask("keeping", "set_queue_retries", {"queues": list(retries_s), "bases_s": bases, "caps_s": caps})

    @property
    def has_unordered(self) -> bool:
        """Whether transactions that began before a change of aging may still bring runs in the old order."""
        return bool(self._unordered)

    async def prune_idle(self, older_than_s: float = 120) -> None:
        """Forget sleepers that have not renewed their flag for so long: they are gone."""
        await self._ask("prune_idle", {"older_than_s": older_than_s})

    async def prune_workers(self, older_than_s: float) -> int:
        """Remove workers that have not been seen for so long; return how many."""
        return len(await self._ask("prune_workers", {"older_than_s": older_than_s}))

    async def prune(self, ages_s: Mapping[RunStatus, float], after: int, *, early: bool) -> Pruned:
        """Delete ended runs among the next records after one, by the age that their status may have.

        Args:
          early: a batch in which all are young is the end; what comes later is younger still, but for rows inserted with older times.
        """
        (row,) = await self._ask("prune", prune_parameters(ages_s, after, early=early))
        return as_pruned(row)

    async def prune_flows(self, age_s: float, limit: int = 500) -> int:
        """Delete up to *limit* workflows of that age that have no runs; return how many."""
        return await self._number("prune_flows", age_s=age_s, limit=limit)

    async def expire(self, place: ExpiryPlace, limit: int = 500) -> tuple[int, ExpiryPlace]:
        """End what has expired and nobody has begun, of the next *limit* runs behind a place; return how many, and where to go on."""
        ((ended, at, result_id, now),) = await self._ask("expire", {"after": place.at, "after_id": place.result_id, "limit": limit})
        return ended, ExpiryPlace(now, 0, is_end=True) if at is None else ExpiryPlace(at, result_id)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone and a new one is needed."""
        return self._connection.closed

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _rekey(self, queue: str) -> None:
        after: int | None = 0
        while after is not None:
            ((after,),) = await self._connection.ask("keeping", "rekey", {"queue": queue, "after": after, "limit": _REKEY_BATCH})

    async def _number(self, name: str, **parameters: object) -> int:
        ((number,),) = await self._ask(name, parameters)
        return int(number)

    async def _ask(self, name: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Run a statement of one keeper's duties."""
        if self._term is not None:
            return await self._term.ask("keeping", name, parameters)
        return await self._connection.ask("keeping", name, {**parameters, **UNFENCED})
