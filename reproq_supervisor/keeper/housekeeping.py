"""Duties that need nothing but the database: settling, sweeping, repairing and pruning."""

import math
import time
from collections.abc import Awaitable, Callable

from reproq_supervisor.keeper.duties import BATCH, REPAIR_INTERVAL_S, Duty, Ran
from reproq_supervisor.store.keeper import KeeperStore

WORKERS_INTERVAL_S = 600.0
WORKERS_KEPT_S = 24 * 3600.0
WISHES_INTERVAL_S = 1.0
KEYS_INTERVAL_S = 1.0
SWEEP_INTERVAL_S = 30.0
_AGAIN_S = 0.05
_Place = str | int | None
_REST = 9
"""A round over everything rests so many times as long as it works: what it reads, those who claim want to read, too."""
_REST_OF_REPAIR = 29
"""That round reads every record there is, for what hardly ever happens; with less rest claims beside a large table were 5 % slower."""


def housekeeping() -> list[Duty]:
    """Return these duties, in the order in which they run."""
    return [
        Duty("wishes", WISHES_INTERVAL_S, _settle_wishes),
        Duty("keys", KEYS_INTERVAL_S, _settle_keys),
        Duty("flows", KEYS_INTERVAL_S, _settle_flows),
        Duty("sweep", SWEEP_INTERVAL_S, _Rounds(_REST, _sweep_keys, _sweep_flows).run),
        Duty("repair", REPAIR_INTERVAL_S, _Rounds(_REST_OF_REPAIR, _repair).run),
        Duty("workers", WORKERS_INTERVAL_S, _prune_workers),
        Duty("firings", WORKERS_INTERVAL_S, _forget_firings),
    ]


async def _settle_wishes(store: KeeperStore) -> Ran:
    return Ran(await store.settle_wishes(BATCH))


async def _settle_keys(store: KeeperStore) -> Ran:
    more = await store.settle_keys(BATCH)
    return Ran(0, again_in_s=_AGAIN_S if more else math.inf)


async def _settle_flows(store: KeeperStore) -> Ran:
    more = await store.settle_flows(BATCH)
    return Ran(0, again_in_s=_AGAIN_S if more else math.inf)


async def _sweep_keys(store: KeeperStore, after: _Place) -> tuple[int, _Place]:
    return 0, await store.sweep_keys(str(after or ""))


async def _sweep_flows(store: KeeperStore, after: _Place) -> tuple[int, _Place]:
    return 0, await store.sweep_flows(int(after or 0))


async def _repair(store: KeeperStore, after: _Place) -> tuple[int, _Place]:
    repaired = await store.repair(int(after or 0))
    return repaired.made + repaired.removed, repaired.next_after


class _Rounds:
    """Goes over whole tables, one after the other, in slices: a slice of milliseconds holds up no other duty, and no claim.

    Args:
      rest: how many times as long as a slice took until the next.
      looks: each looks at what comes after a place (None: the beginning); it returns what it changed and the next place (None: the end).
    """

    def __init__(self, rest: float, *looks: Callable[[KeeperStore, _Place], Awaitable[tuple[int, _Place]]]) -> None:
        self._rest = rest
        self._looks = looks
        self._at = 0
        self._after: _Place = None

    async def run(self, store: KeeperStore) -> Ran:
        began = time.monotonic()
        count, self._after = await self._looks[self._at](store, self._after)
        if self._after is None:
            self._at = (self._at + 1) % len(self._looks)
        is_round = self._after is None and self._at == 0
        return Ran(count, math.inf if is_round else self._rest * (time.monotonic() - began))


async def _prune_workers(store: KeeperStore) -> Ran:
    await store.prune_idle()
    return Ran(await store.prune_workers(WORKERS_KEPT_S))


async def _forget_firings(store: KeeperStore) -> Ran:
    count = await store.schedules.forget_firings(BATCH)
    return Ran(count, again_in_s=_AGAIN_S if count >= BATCH else math.inf)
