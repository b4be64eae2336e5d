"""The shard: claims runs from its queues, hands them to executors, writes back how they ended.

    BOOTING ──connected, preloaded, executors up──► READY ──drain / quit──► DRAINING ──nothing running──► flush ──► leave
       │                                              │
       └──── nursery failed, schema old ──► failed    └── supervisor or nursery gone: kill all, release, leave

When it fails: killed, its nursery sees the channel end, kills its executors and leaves; the supervisor then has the leases
released. Frozen, the supervisor kills it; until then its nursery watches the leases. Its database away, running tasks go on
while their lease lasts.
"""

import asyncio
import os
import signal
import time
from enum import StrEnum
from typing import Any

from reproq_supervisor.pool import log_orders
from reproq_supervisor.pool.conversation import Conversation
from reproq_supervisor.pool.crew import MOST_EXECUTORS
from reproq_supervisor.pool.desk import Desk
from reproq_supervisor.pool.farewell import Farewell, end_within
from reproq_supervisor.pool.nursery_link import NurseryLink
from reproq_supervisor.pool.report import Report
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.pool.strangers import kill_strangers
from reproq_supervisor.pool.watch import TICK_S
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.deadlines import DeadlineTable, SoftReason
from reproq_supervisor.process.limits import allow_all_descriptors

PERMANENT = 78
SOFTWARE = 70
_USELESS_EXITS = 5


class State(StrEnum):
    """Where the shard is in its life."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"


class Shard:
    """The life of a shard: puts desk, conversation, nursery and channel together, and ends them in the right order."""

    def __init__(self, start: ShardStart, channel: Channel, marks: tuple[int, ...] = ()) -> None:
        self.state = State.BOOTING
        self._exit_code = 0
        self._start = start
        self._channel = channel
        self._table = DeadlineTable.create(MOST_EXECUTORS)
        self._given = (self._table.fd, *marks)  # marks: descriptors that everything gets which may run a task under our id
        self._desk = Desk(start, self._table, on_change=self._on_change, on_event=self._event)
        self._crew = self._desk.crew
        self._conversation = Conversation(
            start.store_options(),
            self._desk.ledger,
            wanted=self._desk.wanted,
            most_counted=lambda: self._desk.most_counted,
            is_busy=lambda: self._crew.running >= self._crew.slots,
            on_reply=self._desk.take_in,
            on_event=self._event,
        )
        self._report = Report(start.child, start.isolation, self._desk, self._conversation)
        self._nursery: NurseryLink | None = None
        self._paused = False
        self._connected = False
        self._preloaded = False
        self._farewell = Farewell()
        self._leave = asyncio.Event()

    async def run(self) -> int:
        """Live; return the exit code."""
        self._channel.attach(self._on_message, self._on_lost)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_term)
        self._channel.say("hello", pid=os.getpid())
        self._start_nursery()
        talk = asyncio.create_task(self._conversation.run(self._on_connected), name="conversation")
        others = [
            asyncio.create_task(self._keep_watch(), name="watch"),
            asyncio.create_task(self._keep_reporting(), name="report"),
        ]
        for task in (talk, *others):
            task.add_done_callback(self._on_task_done)
        await self._leave.wait()
        self._conversation.stop()
        await self._go(talk)
        for task in others:
            task.cancel()
        return self._exit_code

    # -- the end ------------------------------------------------------------------------------------------------------

    def _drain(self, timeout_s: float, grace_s: float) -> None:
        """Claim nothing more, give back what has not started, and leave when nothing runs; after *timeout_s* ask the rest to stop."""
        self._close_desk()
        self._crew.wanted = 0
        self._crew.fit()
        stop = asyncio.get_running_loop().call_later
        stop(max(0.0, timeout_s), lambda: self._desk.watch.stop_all(SoftReason.DRAIN, grace_s))
        self._on_change()

    def _close_desk(self) -> None:
        self.state = State.DRAINING
        self._desk.open = False
        self._desk.release_unstarted()

    def _end_now(self) -> None:
        """Kill everything that runs, give everything back, leave."""
        self._crew.wanted = 0
        self._desk.excuse_running()
        if self._nursery is None or self._nursery.status is not None:
            self._crew.bury_all()
        else:
            for executor in self._crew.executors:
                self._crew.kill(executor)
                # Only when it is dead can nothing of it be written any more, so that its runs may be given to others.
                executor.wait_dead(2.0)
                self._crew.bury(executor.pid, -signal.SIGKILL)
        self._close_desk()
        self._leave.set()

    def _fail(self, reason: str, *, permanent: bool) -> None:
        """Leave, with the reason told; running tasks are released uncounted."""
        if self._leave.is_set():
            return
        self._channel.say("failed", reason=reason, permanent=permanent)
        self._exit_code = PERMANENT if permanent else SOFTWARE
        self._end_now()

    async def _go(self, talk: "asyncio.Task[None]") -> None:
        """Write back what ended, then see that nothing of ours is left."""
        nursery = self._nursery
        if nursery is not None:
            nursery.send({"type": "leave"})
            if not self._preloaded:
                nursery.kill()  # it hears us only after its imports, and owns nothing yet
        flush_s = self._farewell.flush_s
        deadline = time.monotonic() + flush_s
        # Half of the time for the cycle under way: a database that is frozen would hold it for long.
        await end_within(talk, flush_s / 2)
        flush = asyncio.create_task(self._conversation.flush(deadline), name="flush")
        if not await end_within(flush, flush_s):
            # Their leases end, and then they are reclaimed.
            self._event("shard.left_unwritten", count=self._desk.held.ended)
        await self._conversation.close()
        if nursery is not None:
            await nursery.wait_gone(self._farewell.nursery_s)
        kill_strangers()

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._fail(f"{task.get_name()}: {type(error).__name__}: {error}", permanent=False)

    def _on_change(self) -> None:
        """Something ended: the database must hear of it, and a draining shard may be done."""
        self._conversation.wake()
        if self.state is State.DRAINING and not self._desk.held.open:
            self._leave.set()

    # -- the supervisor -----------------------------------------------------------------------------------------------

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "drain" | "quit":
                self._drain(*self._farewell.order(message, self._desk.watch.limits.grace_s))
            case "pause" | "resume" as order:
                self._paused = order == "pause"
                self._open_or_close()
            case "adjust":
                self._adjust(message)
            case "budget":
                self._desk.sizing.use_budget(message["executors"])
                self._fit()
            case "dump":
                log_orders.dump(self._start.child, self._snapshot(), self._nursery, [each.pid for each in self._crew.executors])
            case "reopen":
                log_orders.reopen(self._start.supervisor_pid, self._nursery)
            case unknown:
                self._event("shard.message_ignored", message=str(unknown))

    def _open_or_close(self) -> None:
        if self.state is State.READY:
            self._desk.open = not self._paused
            if self._paused:
                self._desk.release_unstarted()
            self._conversation.wake(work_may_wait=True)

    def _adjust(self, message: dict[str, Any]) -> None:
        self._start = self._start.adjusted(message)
        self._desk.adjust(self._start)
        self._fit()
        self._conversation.wake(work_may_wait=True)

    def _on_lost(self) -> None:
        """The supervisor is gone: nobody restarts or stops us any more, so nothing of ours may stay."""
        self._farewell.orphaned = True
        self._end_now()

    def _on_term(self) -> None:
        if os.getppid() != self._start.supervisor_pid:
            self._on_lost()
        else:
            self._drain(self._start.shutdown_timeout_s, self._desk.watch.limits.grace_s)

    def _event(self, name: str, **fields: object) -> None:
        self._channel.say("event", event={"name": name, "child": self._start.child, **fields})

    # -- the nursery --------------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        if self.state is not State.DRAINING and self._preloaded:
            self._desk.size(self._conversation.load)
            if self._desk.sizing.wants_more_than_it_may:
                self._say_snapshot()  # it may have more as soon as that is known
        self._crew.fit()

    def _start_nursery(self) -> None:
        message = self._start.nursery_message(os.getpid(), keep_output=self._desk.output.enabled)
        self._nursery = NurseryLink(message, self._given, self._on_nursery, self._on_nursery_death, secret=self._start.task_dsn)
        self._channel.say("nursery", pid=self._nursery.pid)
        allow_all_descriptors()  # six for each executor; after the spawn, so that user code keeps the limit it knows

    def _on_nursery(self, message: dict[str, Any], executor: Executor | None) -> None:
        match message["type"]:
            case "ready":
                self._preloaded = True
                assert self._nursery is not None
                self._crew.use(self._nursery)
                self._fit()
                self._become_ready()
            case "failed":
                self._fail(message["reason"], permanent=message["permanent"])
            case "forked":
                assert executor is not None
                self._crew.take_in(executor)
                self._become_ready()
                self._conversation.wake(work_may_wait=True)
            case "exited":
                self._crew.bury(message["pid"], message["status"])
                if self._crew.useless_exits >= _USELESS_EXITS:
                    self._fail(f"{_USELESS_EXITS} executors in a row ended before they had done anything", permanent=False)
            case _:
                self._desk.hear(message)

    def _on_nursery_death(self) -> None:
        if self._leave.is_set():
            return
        assert self._nursery is not None
        self._desk.suspect_last_started()
        self._desk.excuse_running()
        self._crew.bury_all()
        kill_strangers()
        self._fail(f"the nursery ended with status {self._nursery.status}", permanent=False)

    def _on_connected(self) -> None:
        self._connected = True
        self._become_ready()

    def _become_ready(self) -> None:
        complete = self._connected and self._preloaded and self._crew.ready >= self._start.executors_min
        if self.state is State.BOOTING and complete:
            self.state = State.READY
            self._say_snapshot()  # or who asks in the next second hears that there is no database
            self._channel.say("ready")
            self._open_or_close()

    # -- time ---------------------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._fit()
            self._desk.look()
            if self._nursery is not None and (
                reason := self._nursery.look(self._desk.watch.limits.heartbeat_s, self._start.import_timeout_s)
            ):
                self._fail(reason, permanent=False)
            if self._desk.held.open:
                # Leases to renew, runs to show, cancel requests to look for: the ledger knows whether there is anything.
                self._conversation.wake()
            self._on_change()

    async def _keep_reporting(self) -> None:
        while True:
            self._say_snapshot()
            await asyncio.sleep(min(1.0, self._desk.watch.limits.heartbeat_s / 3))

    def _say_snapshot(self) -> None:
        self._channel.say("snapshot", snapshot=self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        return self._report.snapshot(self.state, self._report.why(preloaded=self._preloaded, paused=self._paused))
