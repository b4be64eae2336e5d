"""The keeper: wakes what is due, fires schedules, reclaims leases, releases what dead workers held, repairs, and deletes what is old.

It never runs user code, and any number of keepers may run: one of them acts, under a term (`store/term.py`), the others stand by. Each
releases the dead workers of its own host and brings the settings of its own file. Should two act, every duty locks row by row, so that they
would share the work instead of doing it twice. When it is frozen or dead, tasks in progress notice nothing; delayed tasks and expired
leases wait for its successor.
"""

import asyncio
import contextlib
import math
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from reproq_supervisor.keeper.beat import Beat
from reproq_supervisor.keeper.dead_workers import DeadWorkers
from reproq_supervisor.keeper.declared import DeclaredSchedules
from reproq_supervisor.keeper.duties import BATCH, REPAIR_INTERVAL_S, Duty, Ran, wake_again_in_s
from reproq_supervisor.keeper.housekeeping import housekeeping
from reproq_supervisor.keeper.remarks import Remarks
from reproq_supervisor.keeper.retention import Retention
from reproq_supervisor.keeper.truce import Truce
from reproq_supervisor.process import clock, stacks
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.own_log import follow_log_of
from reproq_supervisor.process.title import ProcessTitle
from reproq_supervisor.store.errors import StoreUnavailable, TermLost
from reproq_supervisor.store.keeper import KeeperStore
from reproq_supervisor.telemetry.state_lines import write_state

WAKE_POLL_S = 0.5
"""The longest time between two looks for due rows: a row that becomes due sooner than known is found by then."""
UNORDERED_INTERVAL_S = 2.0
"""Between two looks whether producers that began before a change of a queue's aging have ended."""
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_LET_GO_AFTER_S = 0.1
_RESIGN_WITHIN_S = 0.3
"""A database that does not answer must not keep it; then its term ends by itself."""
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
        self._dead = DeadWorkers(
            lambda workers, count: channel.say("released", worker_ids=workers, count=count),
            lambda workers: channel.say("settled", worker_ids=workers),
        )
        self._ready = False
        self._truce = Truce()
        self._was_away = False
        self._acts = False
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._remarks = Remarks(self._tell_event)
        self._beat = Beat(self._tell_event)
        self._beats = True
        self._retention = Retention()
        self._retention.adopt(start)
        self._declared = DeclaredSchedules(socket.gethostname())
        self._declared.follow(start)
        self._duties = [
            Duty("release", REPAIR_INTERVAL_S, self._dead.release, is_everywhere=True),
            Duty("settings", REPAIR_INTERVAL_S, self._sync_settings, is_everywhere=True),
            Duty("declare", REPAIR_INTERVAL_S, self._declared.declare, is_everywhere=True),
            Duty("wake", WAKE_POLL_S, self._wake_due),
            Duty("beat", 1.0, self._fire),
            Duty("reclaim", 5.0, self._reclaim, due_mono=math.inf),
            *housekeeping(),
            *self._retention.duties(),
        ]
        self._follow(start.get("keeper_settings") or {})

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
        await self._resign()
        await self._close()
        if not work.cancelled() and (error := work.exception()) is not None:
            self._channel.say("failed", reason=f"keeper: {type(error).__name__}: {error}", permanent=False)
            return 70
        return 0

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "release_dead":
                self._dead.add(message["worker_ids"])
                self._hurry("release")
            case "adjust":
                self._queues = dict(message.get("queues_settings") or {})
                self._prepare = _prepares(message)
                self._declared.follow(message)
                self._follow(message.get("keeper_settings") or {})
                self._retention.adopt(message)
                self._hurry("settings", "declare", "prune")
            case "drain" | "quit":
                self._stop.set()
            case "dump":
                write_state("keeper", self._snapshot())
                stacks.ask_for_stacks(os.getpid())
            case "reopen":
                follow_log_of(self._supervisor_pid)

    def _follow(self, settings: Mapping[str, Any]) -> None:
        self._beats = bool(settings.get("beat", True))
        for duty in self._duties:
            if duty.name in ("beat", "reclaim"):
                duty.interval_s = float(settings.get(f"{duty.name}_interval", duty.interval_s))
                if duty.due_mono != math.inf:
                    duty.due_mono = min(duty.due_mono, time.monotonic() + duty.interval_s)
        self._wake.set()

    def _put_off(self, name: str, seconds: float) -> None:
        for duty in self._duties:
            if duty.name == name:
                duty.due_mono = time.monotonic() + seconds

    def _hurry(self, *names: str) -> None:
        for name in names:
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
                    await self._stand_for_election()
                    await self._run_due()
                    await self._sleep(self._idle_s())
            except TermLost:
                # Frozen, or kept from its connection for longer than its term: whoever acts now, the next election tells.
                self._note_term(acts=False)
            except StoreUnavailable as error:
                self._note_term(acts=False)
                # A connection that is still open was only refused something, by a lock for example.
                self._was_away = self._store is None or self._store.closed
                self._note_lost(str(error))
                await self._close()
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread, not a secret
                retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def _connect(self) -> None:
        self._store_prepares = self._prepare
        if self._store is not None:
            return
        self._store = await KeeperStore.connect(self._dsn, prepare=self._prepare, holder=self._worker_id, on_warning=self._remarks.take)
        age_s = await self._store.server_age_s()
        self._truce.note_connected(time.monotonic(), after_outage=self._was_away, server_age_s=age_s)
        self._was_away = False
        if not self._up:
            self._up, self._since_mono, self._error = True, time.monotonic(), None
            self._tell_event({"name": "database.connected"})
        await self._stand_for_election()
        if not self._ready:
            self._ready = True
            self._put_off("reclaim", _FIRST_RECLAIM_AFTER_S)
            self._tell_snapshot()  # or who asks in the next second hears that there is no database
            self._channel.say("ready")

    async def _stand_for_election(self) -> None:
        assert self._store is not None
        if self._store.term.look_again_in_s(time.monotonic()) <= 0:
            await self._store.term.elect()
            self._note_term(acts=self._store.term.is_ours)

    def _note_term(self, *, acts: bool) -> None:
        if acts != self._acts:
            self._acts = acts
            self._tell_event({"name": "keeper.elected" if acts else "keeper.deposed"})

    def _is_mine(self, duty: Duty) -> bool:
        if duty.name == "beat" and not self._beats:
            return False
        return self._acts or duty.is_everywhere

    def _idle_s(self) -> float:
        assert self._store is not None
        now = time.monotonic()
        return min(self._store.term.look_again_in_s(now), *(duty.due_mono - now for duty in self._duties if self._is_mine(duty)))

    async def _resign(self) -> None:
        if self._store is None or self._store.closed or not self._acts:
            return
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(_RESIGN_WITHIN_S):
                await self._store.term.resign()

    def _note_lost(self, error: str) -> None:
        if self._up or self._error is None:
            self._up, self._since_mono = False, time.monotonic()
            self._tell_event({"name": "database.lost", "error": error})
        self._error = error

    async def _run_due(self) -> None:
        assert self._store is not None
        for duty in self._duties:
            if duty.due_mono <= time.monotonic() and self._is_mine(duty):
                try:
                    await duty.attempt(self._store, self._tell_event)
                finally:
                    self._remarks.end_run()

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

    def _tell_event(self, event: dict[str, Any]) -> None:
        self._channel.say("event", event={"child": "keeper", **event})

    def _tell_snapshot(self) -> None:
        self._channel.say("snapshot", snapshot=self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "duties": {duty.name: duty.as_fields(now, is_mine=self._is_mine(duty)) for duty in self._duties},
            "term": self._store.term.as_fields() if self._store is not None else None,
            "database": {"up": self._up, "since_s": round(now - self._since_mono, 1), "error": self._error},
        }

    # -- duties that depend on what this process has seen ------------------------------------------------------------------

    async def _sync_settings(self, store: KeeperStore) -> Ran:
        aging = {name: float(queue["priority_aging"]) for name, queue in self._queues.items()}
        await store.sync_queue_retries({name: (queue.get("retry_base"), queue.get("retry_cap")) for name, queue in self._queues.items()})
        count = len(await store.sync_queue_settings(aging))
        return Ran(count, UNORDERED_INTERVAL_S if store.has_unordered else math.inf)

    async def _wake_due(self, store: KeeperStore) -> Ran:
        asked_at = clock.boot_time_s()
        woken = await store.wake_due(BATCH)
        self._truce.note_answer(clock.boot_time_s() - asked_at, time.monotonic())
        return Ran(woken.count, wake_again_in_s(woken))

    async def _fire(self, store: KeeperStore) -> Ran:
        return await self._beat.run(store.schedules)

    async def _reclaim(self, store: KeeperStore) -> Ran:
        if left_s := self._truce.left_s(time.monotonic()):
            return Ran(0, left_s)
        count = await store.reclaim(BATCH)
        return Ran(count, 0.0 if count >= BATCH else math.inf)


def _prepares(message: Mapping[str, Any]) -> bool:
    """Whether prepared statements may be used: not behind every pooler."""
    return bool((message.get("store") or {}).get("prepare", True))
