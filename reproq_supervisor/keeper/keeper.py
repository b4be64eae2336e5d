"""The keeper: wakes what is due, reclaims expired leases, releases what dead workers held, repairs what is inconsistent.

It never runs user code, and any number of keepers may run: every duty locks row by row, so that two of them share the work
instead of doing it twice. When it is frozen or dead, tasks in progress notice nothing; delayed tasks and the leases of dead
workers wait for its successor.
"""

import asyncio
import contextlib
import math
import os
import random
import signal
import time
from collections.abc import Mapping
from typing import Any

from reproq_supervisor.keeper.duties import Duty, Ran
from reproq_supervisor.keeper.truce import Truce
from reproq_supervisor.process import clock, stacks
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.own_log import follow_log_of
from reproq_supervisor.process.title import ProcessTitle
from reproq_supervisor.store.errors import StoreError, StoreUnavailable
from reproq_supervisor.store.keeper import KeeperStore
from reproq_supervisor.telemetry.state_lines import write_state

RELEASE_AGAIN_S = 1.0
"""Between two releases of a dead worker: a claim that its server process was still committing when it died is found by the second."""
RELEASE_ROUNDS = 60
"""How often that is tried for runs that somebody has locked; then they are left to the sweep for expired leases."""
WAKE_POLL_S = 0.5
"""The longest time between two looks for due rows: a row that becomes due sooner than known is found by then."""
REPAIR_INTERVAL_S = 3600.0
WORKERS_INTERVAL_S = 600.0
WORKERS_KEPT_S = 24 * 3600.0
WISHES_INTERVAL_S = 1.0
KEYS_INTERVAL_S = 1.0
SWEEP_INTERVAL_S = 30.0
BATCH = 500
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_LET_GO_AFTER_S = 0.1
_FIRST_RECLAIM_AFTER_S = 2.0
"""By then the supervisor has told a new keeper which workers are dead: what they held is released uncounted before a lease is reclaimed."""


class Keeper:
    """Runs the duties over one connection, which it makes again whenever it is lost."""

    def __init__(self, start: Mapping[str, Any], channel: Channel) -> None:
        self._channel = channel
        self._dsn: str = start["dsn"]
        self._worker_id: str = start["worker_id"]
        self._supervisor_pid = os.getppid()
        self._queues: dict[str, Any] = dict(start.get("queues_settings") or {})
        self._heartbeat_s = float(start.get("heartbeat") or 5.0)
        self._prepare = _prepares(start)
        self._store: KeeperStore | None = None
        self._store_prepares = self._prepare
        self._up = False
        self._since_mono = time.monotonic()
        self._error: str | None = None
        self._dead: dict[str, None] = {}  # workers whose leases are to be released, in the order they died
        self._released: dict[str, int] = {}  # released once; looked at once more, and while they hold runs at most so often
        self._ready = False
        self._truce = Truce()
        self._was_away = False
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        reclaim_s = float((start.get("keeper_settings") or {}).get("reclaim_interval") or 5.0)
        self._duties = [
            Duty("release", REPAIR_INTERVAL_S, self._release),
            Duty("settings", REPAIR_INTERVAL_S, self._sync_settings),
            Duty("wake", WAKE_POLL_S, self._wake_due),
            Duty("reclaim", reclaim_s, self._reclaim, due_mono=math.inf),
            Duty("wishes", WISHES_INTERVAL_S, self._settle_wishes),
            Duty("keys", KEYS_INTERVAL_S, self._settle_keys),
            Duty("flows", KEYS_INTERVAL_S, self._settle_flows),
            Duty("sweep", SWEEP_INTERVAL_S, self._sweep),
            Duty("repair", REPAIR_INTERVAL_S, self._repair),
            Duty("workers", WORKERS_INTERVAL_S, self._prune_workers),
        ]

    async def run(self) -> int:
        """Work until the supervisor says otherwise or is gone; return the exit code."""
        self._channel.attach(self._on_message, self._stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        self._channel.say("hello", pid=os.getpid())
        report = asyncio.create_task(self._keep_reporting())
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        report.cancel()
        stop.cancel()
        while not work.done():
            # Cancelled once, the driver asks the server to give up, and waits long for one that is frozen; the second time it lets go.
            work.cancel()
            await asyncio.wait([work], timeout=_LET_GO_AFTER_S)
        await self._close()
        if not work.cancelled() and (error := work.exception()) is not None:
            self._channel.say("failed", reason=f"keeper: {type(error).__name__}: {error}", permanent=False)
            return 70
        return 0

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "release_dead":
                self._dead |= dict.fromkeys(message["worker_ids"])
                self._hurry("release")
            case "adjust":
                self._queues = dict(message.get("queues_settings") or {})
                self._prepare = _prepares(message)
                self._hurry("settings")
                self._set_intervals(message.get("keeper_settings") or {})
            case "drain" | "quit":
                self._stop.set()
            case "dump":
                write_state("keeper", self._snapshot())
                stacks.ask_for_stacks(os.getpid())
            case "reopen":
                follow_log_of(self._supervisor_pid)

    def _set_intervals(self, settings: Mapping[str, Any]) -> None:
        for duty in self._duties:
            if duty.name == "reclaim":
                duty.interval_s = float(settings.get("reclaim_interval", duty.interval_s))
                duty.due_mono = min(duty.due_mono, time.monotonic() + duty.interval_s)
        self._wake.set()

    def _put_off(self, name: str, seconds: float) -> None:
        for duty in self._duties:
            if duty.name == name:
                duty.due_mono = time.monotonic() + seconds

    def _hurry(self, name: str) -> None:
        self._put_off(name, 0.0)
        self._wake.set()

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._connect()
                retry_s = _FIRST_RETRY_S
                while True:
                    if self._store_prepares != self._prepare:
                        await self._close()
                        await self._connect()
                    await self._run_due()
                    await self._sleep(min(duty.due_mono for duty in self._duties) - time.monotonic())
            except StoreUnavailable as error:
                # A connection that is still open was only refused something, by a lock for example.
                self._was_away = self._store is None or self._store.closed
                self._note_lost(str(error))
                await self._close()
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread, not a secret
                retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def _connect(self) -> None:
        self._store_prepares = self._prepare
        self._store = await KeeperStore.connect(self._dsn, application_name="reproq keeper", prepare=self._prepare)
        age_s = await self._store.server_age_s()
        self._truce.note_connected(time.monotonic(), after_outage=self._was_away, server_age_s=age_s)
        self._was_away = False
        if not self._up:
            self._up, self._since_mono, self._error = True, time.monotonic(), None
            self._channel.say("event", event={"name": "database.connected", "child": "keeper"})
        if not self._ready:
            self._ready = True
            self._put_off("reclaim", _FIRST_RECLAIM_AFTER_S)
            self._tell_snapshot()  # or who asks in the next second hears that there is no database
            self._channel.say("ready")

    def _note_lost(self, error: str) -> None:
        if self._up or self._error is None:
            self._up, self._since_mono = False, time.monotonic()
            self._channel.say("event", event={"name": "database.lost", "child": "keeper", "error": error})
        self._error = error

    async def _run_due(self) -> None:
        for duty in self._duties:
            if duty.due_mono > time.monotonic():
                continue
            try:
                duty.note(await duty.run(), time.monotonic())
            except StoreError as error:
                # One duty that the database refuses must not stop the others; it shows in `status` until it works again.
                if duty.error is None:
                    self._channel.say("event", event={"name": "duty.failed", "child": "keeper", "duty": duty.name, "error": str(error)})
                duty.note_failure(str(error), time.monotonic())

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.0, seconds))
        self._wake.clear()

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.close()
        self._store = None

    async def _keep_reporting(self) -> None:
        title = ProcessTitle()
        title.set("reproq: keeper")
        while True:
            self._tell_snapshot()
            await asyncio.sleep(min(1.0, self._heartbeat_s / 3))

    def _tell_snapshot(self) -> None:
        self._channel.say("snapshot", snapshot=self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "duties": {duty.name: duty.as_fields(now) for duty in self._duties},
            "database": {"up": self._up, "since_s": round(now - self._since_mono, 1), "error": self._error},
        }

    # -- the duties ---------------------------------------------------------------------------------------------------

    async def _release(self) -> Ran:
        assert self._store is not None
        workers, again = list(self._dead), list(self._released)
        if not workers and not again:
            return Ran(0)
        count = await self._store.release_workers([*workers, *again])
        holding = await self._store.holders(again) if again else frozenset()
        left = {worker: rounds - 1 for worker, rounds in self._released.items() if worker in holding and rounds > 1}
        self._released = left | dict.fromkeys(workers, RELEASE_ROUNDS)
        for worker in workers:
            self._dead.pop(worker, None)
        if workers:
            self._channel.say("released", worker_ids=workers, count=count)
        return Ran(count, RELEASE_AGAIN_S if self._released else math.inf)

    async def _sync_settings(self) -> Ran:
        assert self._store is not None
        aging = {name: float(queue["priority_aging"]) for name, queue in self._queues.items()}
        return Ran(len(await self._store.sync_queue_settings(aging)))

    async def _wake_due(self) -> Ran:
        assert self._store is not None
        asked_at = clock.boot_time_s()
        woken = await self._store.wake_due(BATCH)
        self._truce.note_answer(clock.boot_time_s() - asked_at, time.monotonic())
        if woken.count >= BATCH:
            return Ran(woken.count, 0.0)
        return Ran(woken.count, math.inf if woken.next_due_s is None else max(0.0, woken.next_due_s))

    async def _reclaim(self) -> Ran:
        assert self._store is not None
        if left_s := self._truce.left_s(time.monotonic()):
            return Ran(0, left_s)
        count = await self._store.reclaim(BATCH)
        return Ran(count, 0.0 if count >= BATCH else math.inf)

    async def _settle_keys(self) -> Ran:
        assert self._store is not None
        more = await self._store.settle_keys(BATCH)
        return Ran(0, again_in_s=0.05 if more else math.inf)

    async def _settle_flows(self) -> Ran:
        assert self._store is not None
        more = await self._store.settle_flows(BATCH)
        return Ran(0, again_in_s=0.05 if more else math.inf)

    async def _sweep(self) -> Ran:
        assert self._store is not None
        await self._store.sweep_keys()
        await self._store.sweep_flows()
        return Ran(0)

    async def _repair(self) -> Ran:
        assert self._store is not None
        repaired = await self._store.repair()
        return Ran(repaired.made + repaired.removed)

    async def _prune_workers(self) -> Ran:
        assert self._store is not None
        await self._store.prune_idle()
        return Ran(await self._store.prune_workers(WORKERS_KEPT_S))

    async def _settle_wishes(self) -> Ran:
        assert self._store is not None
        return Ran(await self._store.settle_wishes(BATCH))


def _prepares(message: Mapping[str, Any]) -> bool:
    """Whether prepared statements may be used: not behind every pooler."""
    return bool((message.get("store") or {}).get("prepare", True))
