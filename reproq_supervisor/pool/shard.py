"""The shard: claims runs from its queues, hands them to executors, writes back how they ended.

    BOOTING ──connected, preloaded, executors up──► READY ──drain / quit──► DRAINING ──nothing running──► flush ──► leave
       │                                              │
       └──── nursery failed, schema old ──► failed    └── supervisor or nursery gone: kill all, release, leave

When it fails: killed, its nursery sees the channel end, kills its executors and leaves; the supervisor then has the leases
released. Frozen, the supervisor kills it; until then its nursery watches the leases. Its database away, running tasks go on
while their lease lasts.
"""

import asyncio
import contextlib
import os
import signal
import time
from enum import StrEnum
from typing import Any

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.policy.handout import ServiceTimes, hold_target
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.pool import verdicts
from reproq_supervisor.pool.conversation import Conversation, StoreOptions
from reproq_supervisor.pool.crew import MOST_EXECUTORS, Crew, executor_snapshot
from reproq_supervisor.pool.held import RELEASED, Held, HeldRuns, Phase
from reproq_supervisor.pool.ledger import MOST_ENDINGS, Ledger
from reproq_supervisor.pool.nursery_link import NurseryLink
from reproq_supervisor.pool.output import OutputFiles
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.pool.watch import TICK_S, Watch
from reproq_supervisor.pool.worker import Executor, Output
from reproq_supervisor.process import proctable, stacks
from reproq_supervisor.process.channel import Channel
from reproq_supervisor.process.deadlines import DeadlineTable, SoftReason
from reproq_supervisor.process.title import ProcessTitle

_USELESS_EXITS = 5
_QUIT_GRACE_S = 1.0
_FLUSH_S = 5.0
_ORPHAN_FLUSH_S = 1.0
_NURSERY_LEAVES_WITHIN_S = 5.0


class State(StrEnum):
    """Where the shard is in its life."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"


class Shard:
    """Composition of a shard: crew, watch, ledger, conversation, and the channel to the supervisor."""

    def __init__(self, start: ShardStart, channel: Channel) -> None:
        self.state = State.BOOTING
        self.exit_code = 0
        self._start = start
        self._channel = channel
        self._held = HeldRuns()
        self._times = ServiceTimes()
        self._mean_s = 1.0
        self._table = DeadlineTable.create(MOST_EXECUTORS)
        self._crew = Crew(self._table, self._times, on_finished=self._on_finished, on_crashed=self._on_crashed, on_event=self._event)
        self._watch = Watch(self._crew, self._held, self._table, start.limits())
        self._ledger = Ledger(self._held, Turns(start.queues), start.lease_s)
        self._output = OutputFiles(start.logs_dir)
        self._conversation = Conversation(
            StoreOptions(
                start.dsn,
                start.worker_id,
                f"reproq shard {start.child}",
                start.listen,
                start.prepare,
                start.poll_min_s,
                start.poll_max_s,
            ),
            self._ledger,
            wanted=self._wanted,
            on_reply=self._on_reply,
            on_event=self._event,
        )
        self._nursery: NurseryLink | None = None
        self._paused = False
        self._connected = False
        self._preloaded = False
        self._orphaned = False
        self._leave = asyncio.Event()
        self._nursery_gone = asyncio.Event()
        self._last_pong_mono = time.monotonic()
        self._rate = 0.0
        self._title = ProcessTitle()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Live; return the exit code."""
        loop = asyncio.get_running_loop()
        self._channel.attach(self._on_message, self._on_lost)
        loop.add_signal_handler(signal.SIGTERM, self._on_term)
        self._channel.say("hello", pid=os.getpid())
        self._start_nursery()
        talk = asyncio.create_task(self._conversation.run(self._on_connected), name="conversation")
        ticks = [asyncio.create_task(self._tick(), name="tick"), asyncio.create_task(self._report(), name="report")]
        for task in (talk, *ticks):
            task.add_done_callback(self._on_task_done)
        await self._leave.wait()
        self._conversation.stop()
        await asyncio.wait([talk])
        for task in ticks:
            task.cancel()
        await self._go(_ORPHAN_FLUSH_S if self._orphaned else _FLUSH_S)
        return self.exit_code

    async def _go(self, flush_s: float) -> None:
        """Write back what ended, then see that nothing of ours is left."""
        if self._nursery is not None and self._nursery.status is None:
            self._nursery.send({"type": "leave"})
        if not await self._conversation.flush(time.monotonic() + flush_s):
            self._event("shard.left_unwritten", count=self._held.ended)
        await self._conversation.close()
        if self._nursery is not None and self._nursery.status is None:
            try:
                await asyncio.wait_for(self._nursery_gone.wait(), _NURSERY_LEAVES_WITHIN_S)
            except TimeoutError:
                self._nursery.kill()
                await self._nursery_gone.wait()
        _kill_strangers()

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is None:
            return
        error = task.exception()
        self._fail(f"{task.get_name()}: {type(error).__name__}: {error}", permanent=False, code=70)

    def _fail(self, reason: str, *, permanent: bool, code: int) -> None:
        """Leave, with the reason told; running tasks are released uncounted."""
        if self._leave.is_set():
            return
        self._channel.say("failed", reason=reason, permanent=permanent)
        self.exit_code = 78 if permanent else code
        self._end_now()

    def _end_now(self) -> None:
        """Kill everything that runs, give everything back, leave."""
        self.state = State.DRAINING
        self._crew.wanted = 0
        for executor in self._crew.executors:
            if executor.in_hand and executor.in_hand[0].soft_reason is None:
                executor.in_hand[0].soft_reason = SoftReason.DRAIN
            self._crew.kill(executor)
        if self._nursery is None or self._nursery.status is not None:
            self._crew.bury_all()
        else:
            for executor in self._crew.executors:
                _wait_dead(executor.pidfd)
                self._crew.bury(executor.pid, -signal.SIGKILL)
        self._release_buffer()
        self._leave.set()

    # -- supervisor ---------------------------------------------------------------------------------------------------

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "drain":
                self._drain(message.get("timeout", 0.0), self._watch.limits.grace_s)
            case "quit":
                self._drain(0.0, min(_QUIT_GRACE_S, self._watch.limits.grace_s))
            case "pause":
                self._paused = True
                self._crew.put_back([held for e in self._crew.executors for held in e.take_back()])
                self._release_buffer()
            case "resume":
                self._paused = False
                self._conversation.wake(work_may_wait=True)
            case "adjust":
                self._adjust(message)
            case "dump":
                os.kill(os.getpid(), stacks.STACK_SIGNAL)
            case unknown:
                self._event("shard.message_ignored", message=str(unknown))

    def _adjust(self, message: dict[str, Any]) -> None:
        self._start = self._start.adjusted(message)
        self._watch.limits = self._start.limits()
        self._ledger.turns = Turns(self._start.queues)
        if self.state is not State.DRAINING:
            self._crew.wanted = self._start.executors
            self._crew.fit()
        self._conversation.wake(work_may_wait=True)

    def _on_lost(self) -> None:
        """The supervisor is gone: nobody restarts or stops us any more, so nothing of ours may stay."""
        self._orphaned = True
        self._end_now()

    def _on_term(self) -> None:
        if os.getppid() != self._start.supervisor_pid:
            self._on_lost()
        else:
            self._drain(self._start.shutdown_timeout_s, self._watch.limits.grace_s)

    def _drain(self, timeout_s: float, grace_s: float) -> None:
        self.state = State.DRAINING
        self._crew.wanted = 0
        for executor in self._crew.executors:
            self._crew.put_back(executor.take_back())
        self._crew.fit()
        self._release_buffer()
        asyncio.get_running_loop().call_later(max(0.0, timeout_s), lambda: self._watch.stop_all(SoftReason.DRAIN, grace_s))
        self._conversation.wake()
        self._leave_when_empty()

    def _release_buffer(self) -> None:
        while self._crew.buffer:
            held = self._crew.buffer.popleft()
            if held.phase is not Phase.ENDED:
                self._held.end(held, RELEASED)
        self._conversation.wake()

    def _leave_when_empty(self) -> None:
        if self.state is State.DRAINING and not self._held.open:
            self._leave.set()

    # -- nursery ------------------------------------------------------------------------------------------------------

    def _start_nursery(self) -> None:
        self._nursery = NurseryLink(
            {
                "shard_pid": os.getpid(),
                "child": self._start.child,
                "app": self._start.app,
                "pool_settings": self._start.pool_settings,
                "keep_output": self._output.enabled,
                "tick_s": min(1.0, self._start.lease_s / 20),
            },
            self._table,
            self._on_nursery,
            self._on_nursery_death,
        )
        self._channel.say("nursery", pid=self._nursery.pid)

    def _on_nursery(self, message: dict[str, Any], executor: Executor | None) -> None:
        match message["type"]:
            case "ready":
                self._preloaded = True
                assert self._nursery is not None
                self._crew.use(self._nursery)
                if self.state is not State.DRAINING:
                    self._crew.wanted = self._start.executors
                    self._crew.fit()
            case "failed":
                self._fail(message["reason"], permanent=message["permanent"], code=70)
            case "forked":
                assert executor is not None
                self._crew.take_in(executor)
                self._become_ready()
                self._conversation.wake(work_may_wait=True)
            case "exited":
                self._crew.bury(message["pid"], message["status"])
                self._give_up_if_useless()
            case "reaped":
                self._crew.forget(message["pid"])
            case "stopped" | "continued":
                self._crew.note_stopped(message["pid"], stopped=message["type"] == "stopped")
            case "overdue":
                self._event("executor.overdue", pid=message["pid"])
            case "stranger":
                self._event("stranger.killed", pid=message["pid"], command=message["command"])
            case _:
                self._last_pong_mono = time.monotonic()

    def _on_nursery_death(self) -> None:
        self._nursery_gone.set()
        if self._leave.is_set():
            return
        status = self._nursery.status if self._nursery is not None else None
        for executor in self._crew.executors:
            if executor.in_hand and executor.in_hand[0].soft_reason is None:
                executor.in_hand[0].soft_reason = SoftReason.DRAIN  # its death is not the task's fault
        self._crew.bury_all()
        _kill_strangers()
        self._fail(f"the nursery ended with status {status}", permanent=False, code=70)

    def _give_up_if_useless(self) -> None:
        if self._crew.useless_exits >= _USELESS_EXITS:
            self._fail(f"{_USELESS_EXITS} executors in a row ended before they had done anything", permanent=False, code=70)

    def _on_connected(self) -> None:
        self._connected = True
        self._become_ready()

    def _become_ready(self) -> None:
        if self.state is State.BOOTING and self._connected and self._preloaded and self._crew.ready >= self._start.executors_min:
            self.state = State.READY
            self._channel.say("ready")
            self._conversation.wake(work_may_wait=True)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _wanted(self) -> int:
        if self.state is not State.READY or self._paused or self._held.ended >= MOST_ENDINGS:
            return 0
        target = hold_target(self._crew.ready, self._mean_s)
        missing = target - self._held.open
        # Claims of a few rows cost as much as claims of many: while there is enough in hand, wait until a good part is missing.
        return missing if missing * 4 >= target or self._crew.busy < self._crew.ready else 0

    def _on_reply(self, new: list[Held], lost: list[Held], cancel: frozenset[RunId]) -> None:
        for held in lost:
            self._stop_lost(held)
        self._crew.buffer.extend(new)
        if self.state is not State.READY or self._paused:
            self._release_buffer()
        self._crew.dispatch()
        for executor in self._crew.executors:
            self._crew.set_deadline(executor)
        for run in cancel:
            wanted = self._held.get(run)
            if wanted is not None and wanted.phase is not Phase.ENDED and self._watch.cancel(wanted):
                self._held.end(wanted, verdicts.cancelled_before_start())
                self._conversation.wake()
        self._leave_when_empty()

    def _stop_lost(self, held: Held) -> None:
        """Somebody else owns this run now: its execution here must end at once, and nothing of it is written."""
        held.soft_reason = SoftReason.LEASE_LOST
        for executor in self._crew.executors:
            if held in executor.in_hand:
                self._crew.put_back(executor.take_back())
                if held in executor.in_hand:
                    self._crew.kill(executor)
        with contextlib.suppress(ValueError):
            self._crew.buffer.remove(held)

    def _on_finished(self, held: Held, result: Result, output: Output | None) -> None:
        self._mean_s += 0.1 * (result.elapsed_s - self._mean_s)
        logs_uri = self._output.save(held.claimed, output)
        self._end(held, verdicts.end_of_result(held, result, logs_uri))
        if result.verdict is not Verdict.SUCCEED:
            self._event("task.failed", result_id=held.claimed.result_id, task_path=held.claimed.task_path, attempt=held.claimed.attempt)

    def _on_crashed(self, executor: Executor, running: Held | None, status: int, output: Output | None) -> None:
        planned = executor.leaving and status == 0
        if running is not None:
            if running.soft_reason is None:
                self._ledger.totals.crashed += 1
            logs_uri = self._output.save(running.claimed, output)
            self._end(running, verdicts.end_of_death(running, status, logs_uri))
        elif output is not None:
            output.close()
        if not planned:
            self._event(
                "executor.exited",
                pid=executor.pid,
                status=status,
                result_id=None if running is None else running.claimed.result_id,
            )

    def _end(self, held: Held, end: Any) -> None:
        if self._held.get(held.claimed.result_id) is held:
            self._held.end(held, end)
        self._conversation.wake()
        self._leave_when_empty()

    # -- time ---------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        last_ping = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            self._watch.look()
            self._leave_when_empty()
            if self._held.open:
                self._conversation.wake()
            now = time.monotonic()
            heartbeat = self._watch.limits.heartbeat_s
            if self._preloaded and now - last_ping >= heartbeat / 2 and self._nursery is not None:
                if last_ping and now - self._last_pong_mono > 3 * heartbeat:
                    self._nursery.kill()
                last_ping = now
                self._nursery.send({"type": "ping"})

    async def _report(self) -> None:
        """Tell the supervisor how it goes: once a second, more often where liveness asks for it."""
        interval = min(1.0, self._watch.limits.heartbeat_s / 3)
        last_total, last_mono = 0, time.monotonic()
        while True:
            totals = self._ledger.totals
            now = time.monotonic()
            finished = totals.completed + totals.failed + totals.retried
            if now > last_mono:
                self._rate = (finished - last_total) / (now - last_mono)
            last_total, last_mono = finished, now
            self._channel.say("snapshot", snapshot=self.snapshot())
            self._title.set(f"reproq: shard {self._start.child} ({self._crew.busy} running, {self._rate:.0f}/s)")
            await asyncio.sleep(interval)

    def snapshot(self) -> dict[str, Any]:
        """Return the shard as `status` shows it."""
        totals, talk = self._ledger.totals, self._conversation
        return {
            "executors": executor_snapshot(self._crew),
            "running": self._crew.busy,
            "held": len(self._held),
            "claimed_total": totals.claimed,
            "completed_total": totals.completed,
            "failed_total": totals.failed,
            "retried_total": totals.retried,
            "released_total": totals.released,
            "lost_total": totals.lost,
            "crashed_total": totals.crashed,
            "timeouts_total": self._watch.timeouts_total,
            "rate_per_s": round(self._rate, 1),
            "queues": {name: {"claimed_total": count} for name, count in totals.by_queue.items()},
            "database": {"up": talk.up, "since_s": round(time.monotonic() - talk.since_mono, 1), "error": talk.error},
            "state": self.state,
            "why": self._why(),
            "progress": totals.completed + totals.failed + totals.retried + totals.released,
        }

    def _why(self) -> str:
        if not self._conversation.up:
            return f"no database: {self._conversation.error or 'connecting'}"
        if not self._preloaded:
            return "importing the application"
        if self._paused:
            return "paused by an operator"
        return ""

    def _event(self, name: str, **fields: object) -> None:
        self._channel.say("event", event={"name": name, "child": self._start.child, **fields})


def _wait_dead(pidfd: int) -> None:
    """Wait until a killed process is dead: then nothing of it can write any more."""
    import select

    select.select([pidfd], [], [], 2.0)


def _kill_strangers() -> None:
    """Kill and reap what fell to us: we are a subreaper, and our only own child is the nursery."""
    while strangers := proctable.children_of_self():
        for pid in strangers:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
