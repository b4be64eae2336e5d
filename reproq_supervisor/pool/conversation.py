"""The shard's conversation with the database: one cycle after the other, reconnection, wake-up.

    idle ──wake (result, note, room, tick)──► cycle ──ok──► apply ──► idle
                                                │
                                            unavailable ──back-off──► connect ──► check what is still held ──► idle

While a cycle is under way results gather for the next one. When the database is away, endings are kept and nothing new is claimed; what is
still ours after a reconnection goes on, what is not is stopped.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from reproq_supervisor import __version__
from reproq_supervisor.core.runs import CycleReply, QueueLoad, RunId
from reproq_supervisor.pool.appetite import Appetite
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.ledger import Ledger
from reproq_supervisor.process import clock
from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.listener import Listener
from reproq_supervisor.store.shard import ShardStore

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
ANNOUNCE_EVERY_S = 30.0
COUNT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How to reach the database; `listen` off is poll-only, for transaction poolers."""

    dsn: str
    worker_id: str
    application_name: str
    listen: bool
    prepare: bool
    poll_min_s: float
    poll_max_s: float
    concurrency: int


class Conversation:
    """Runs cycles until told to stop.

    Args:
      wanted: asks how many runs to claim now.
      most_counted: asks up to how many waiting runs are worth counting; 0: none, nobody wants to know.
      is_busy: asks whether every executor has work; then a reply may wait for a moment.
      on_reply: newly held runs, runs to stop because their lease is lost, runs to cancel.
    """

    def __init__(
        self,
        options: StoreOptions,
        ledger: Ledger,
        *,
        wanted: Callable[[], int],
        most_counted: Callable[[], int],
        is_busy: Callable[[], bool],
        on_reply: Callable[[list[Held], list[Held], frozenset[RunId]], None],
        on_event: Callable[..., None],
    ) -> None:
        self.up = False
        self.since_mono = time.monotonic()
        self.error: str | None = None
        self.load = QueueLoad()
        self._announce_mono = 0.0
        self._count_mono = 0.0
        self._options = options
        self._ledger = ledger
        self._wanted = wanted
        self._most_counted = most_counted
        self._is_busy = is_busy
        self._on_reply = on_reply
        self._untold: tuple[list[Held], list[Held], frozenset[RunId]] | None = None
        self._on_event = on_event
        self._store: ShardStore | None = None
        self._listener: Listener | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._appetite = Appetite(options.poll_min_s, options.poll_max_s, listens=options.listen)
        self._noted = False  # a note came since the last claim

    def wake(self, *, work_may_wait: bool = False) -> None:
        """There is something to say to the database; with *work_may_wait* also something to claim."""
        if work_may_wait:
            self._appetite.may_rest = False
        self._wake.set()

    def _on_note(self) -> None:
        self._noted = True
        self.wake(work_may_wait=True)

    def stop(self) -> None:
        """End `run` after the cycle under way."""
        self._stopping = True
        self._wake.set()

    async def run(self, on_connected: Callable[[], None]) -> None:
        """Talk until `stop`; *on_connected* is called after every successful connection."""
        retry_s = _FIRST_RETRY_S
        try:
            while not self._stopping:
                try:
                    await self._connect()
                    on_connected()
                    retry_s = _FIRST_RETRY_S
                    await self._talk()
                except StoreUnavailable as error:
                    await self._disconnected(str(error))
                    await self._pause(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread, not a secret
                    retry_s = min(_LAST_RETRY_S, retry_s * 2)
        finally:
            await self.close()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until `stop`; other reasons to wake do not shorten a back-off."""
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)
            self._wake.clear()

    async def _connect(self) -> None:
        options = self._options
        self._store = await ShardStore.connect(
            options.dsn, options.worker_id, application_name=options.application_name, prepare=options.prepare
        )
        if options.listen:
            self._listener = await Listener.connect(options.dsn, on_note=self._on_note, application_name=options.application_name)
        if not self.up:
            self.up, self.since_mono, self.error = True, time.monotonic(), None
            self._on_event("database.connected")
        await self._check_held()

    async def _check_held(self) -> None:
        """Stop what is not ours any more: leases may have ended, and a crashed database may have forgotten a claim."""
        assert self._store is not None
        if ours := self._ledger.open_leases():
            kept = await self._store.held(ours)
            self._on_reply([], self._ledger.forget_lost(kept), frozenset())

    async def _disconnected(self, error: str) -> None:
        if self.up or self.error is None:
            self.up, self.since_mono = False, time.monotonic()
            self._on_event("database.lost", error=error)
        self.error = error
        await self.close()

    async def close(self) -> None:
        for part in (self._listener, self._store):
            if part is not None:
                await part.close()
        self._store = self._listener = None
        self._appetite.may_rest = False

    async def _talk(self) -> None:
        try:
            await self._cycle_on()
        finally:
            self._tell()

    async def _cycle_on(self) -> None:
        while not self._stopping:
            # Cleared first: what comes while we work wakes us again.
            self._wake.clear()
            asked = max(0, self._wanted())
            if not asked:
                self._tell()
            if not (self._noted and asked):  # nothing may stand between a note and its answer
                await self._announce_in_time()
                await self._count_in_time()
            boot_sent = clock.boot_time_s()
            await self._write_notes()
            request = self._ledger.request(asked, boot_sent)
            if request is None or (self._appetite.may_rest and request.only_claims):
                self._tell()
                await self._idle()
                continue
            assert self._store is not None
            is_quick = self._noted and request.only_claims and self._store.may_claim_ready()
            self._noted = False
            answer = self._store.claim_ready(request) if is_quick else self._store.cycle(request)
            reply = await (self._meanwhile(answer) if self._untold else answer)
            if asked:
                self._note_claim(asked, reply, is_quick=is_quick)
            held, lost = self._ledger.apply(request, reply, boot_sent)
            if reply.refused:
                self._tell_refused()
            self._untold = (held, lost, reply.cancel)
            if not (asked and self._appetite.was_full and self._is_busy()):
                self._tell()
            # Let results and control messages in between two cycles.
            await asyncio.sleep(0)

    async def _meanwhile(self, answer: Coroutine[Any, Any, CycleReply]) -> CycleReply:
        """Pass on what the last reply brought while the server works on the next one: with a backlog it need not wait for that."""
        asking = asyncio.create_task(answer)
        try:
            await asyncio.sleep(0)  # it is sent now
            self._tell()
            return await asking
        finally:
            if not asking.done():  # nobody would wait for it, and its connection is about to be closed
                asking.cancel()
                await asyncio.wait([asking])

    def _tell(self) -> None:
        """Hand over what the last reply brought: at the latest before anything but a cycle is awaited, for that may take long."""
        untold, self._untold = self._untold, None
        if untold is not None:
            self._on_reply(*untold)

    async def _write_notes(self) -> None:
        """Write what runs have noted down. Apart from the cycle: most tasks never do, and a look at what is held costs less."""
        if notes := self._ledger.notes():
            assert self._store is not None
            self._tell()
            self._ledger.apply_notes(notes, await self._store.note(notes))

    async def _announce_in_time(self) -> None:
        """Say in the table of workers that this one is here: at once, then every half minute, as readers of the contract expect."""
        now = time.monotonic()
        if now < self._announce_mono:
            return
        assert self._store is not None
        self._tell()
        self._announce_mono = now + ANNOUNCE_EVERY_S
        queues = list(self._ledger.turns.weights)
        await self._store.announce(hostname=socket.gethostname(), concurrency=self._options.concurrency, queues=queues, version=__version__)

    async def _count_in_time(self) -> None:
        """See what waits, for those who decide how many executors there are. After a claim that came back short nothing does."""
        if self._appetite.may_rest:
            self.load = QueueLoad(0, self.load.workers)
            return
        now = time.monotonic()
        most = self._most_counted()
        if most and now >= self._count_mono:
            assert self._store is not None
            self._tell()
            self._count_mono = now + COUNT_EVERY_S
            self.load = await self._store.load(list(self._ledger.turns.weights), most)

    async def flush(self, deadline_mono: float) -> bool:
        """Write back what has ended, without claiming; True when nothing is left. For the end of a shard, after `run` has ended."""
        self._ledger.hasten()
        while time.monotonic() < deadline_mono:
            if not self._ledger.unwritten:
                return True
            left = deadline_mono - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    if self._store is None:
                        await self._connect()
                    assert self._store is not None
                    await self._write_notes()
                    boot_sent = clock.boot_time_s()
                    request = self._ledger.request(0, boot_sent)
                    reply = await self._store.cycle(request) if request is not None and request.endings else None
            except (StoreUnavailable, TimeoutError):
                await self.close()
                request = reply = None
            if request is None or reply is None:
                # The database is away, or all of them wait for somebody's lock.
                await asyncio.sleep(min(_FIRST_RETRY_S, max(0.0, deadline_mono - time.monotonic())))
                continue
            self._ledger.apply(request, reply, boot_sent)
        return False

    def _tell_refused(self) -> None:
        """Tell of what PostgreSQL has begun to refuse: one event for all, with the first of them."""
        refused = self._ledger.take_newly_refused()
        for run, trouble in list(refused.items())[:1]:
            self._on_event("shard.refused", result_id=run, count=len(refused), error=trouble)

    def _note_claim(self, asked: int, reply: CycleReply, *, is_quick: bool) -> None:
        was_full = self._appetite.was_full
        self._appetite.note_claim(asked, reply, is_quick=is_quick)
        if self._appetite.was_full and not was_full:
            self._count_mono = 0.0  # there may be a heap of them

    async def _idle(self) -> None:
        """Wait for a reason to talk; polling is always one, with jitter so that shards spread."""
        settle_s = None
        if self._appetite.may_settle:
            assert self._store is not None
            settle_s = await self._store.settle_idle(list(self._ledger.turns.weights))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._appetite.wait_s(settle_s)):
                await self._wake.wait()
        self._appetite.note_time()
