"""Duties that need nothing but the database: settling, sweeping, repairing and pruning."""

import math
import time

from reproq_supervisor.keeper.duties import BATCH, REPAIR_INTERVAL_S, Duty, Ran
from reproq_supervisor.store.keeper import KeeperStore

WORKERS_INTERVAL_S = 600.0
WORKERS_KEPT_S = 24 * 3600.0
WISHES_INTERVAL_S = 1.0
KEYS_INTERVAL_S = 1.0
SWEEP_INTERVAL_S = 30.0
_AGAIN_S = 0.05
_REPAIR_REST = 9
"""A look at everything rests so many times as long as it worked: what it reads, those who claim want to read, too."""


def housekeeping() -> list[Duty]:
    """Return these duties, in the order in which they run."""
    return [
        Duty("wishes", WISHES_INTERVAL_S, _settle_wishes),
        Duty("keys", KEYS_INTERVAL_S, _settle_keys),
        Duty("flows", KEYS_INTERVAL_S, _settle_flows),
        Duty("sweep", SWEEP_INTERVAL_S, _sweep),
        Duty("repair", REPAIR_INTERVAL_S, _Repair().run),
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


async def _sweep(store: KeeperStore) -> Ran:
    await store.sweep_keys()
    await store.sweep_flows()
    return Ran(0)


class _Repair:
    """Looks at everything once an hour, in slices: a slice of milliseconds holds up no other duty, and no claim."""

    def __init__(self) -> None:
        self._after = 0

    async def run(self, store: KeeperStore) -> Ran:
        began = time.monotonic()
        repaired = await store.repair(self._after)
        self._after = repaired.next_after or 0
        rest_s = math.inf if repaired.next_after is None else _REPAIR_REST * (time.monotonic() - began)
        return Ran(repaired.made + repaired.removed, rest_s)


async def _prune_workers(store: KeeperStore) -> Ran:
    await store.prune_idle()
    return Ran(await store.prune_workers(WORKERS_KEPT_S))


async def _forget_firings(store: KeeperStore) -> Ran:
    count = await store.schedules.forget_firings(BATCH)
    return Ran(count, again_in_s=_AGAIN_S if count >= BATCH else math.inf)
