"""The desk: every run passes here, from its claim to its ending. It decides what is claimed, and what the end of an execution means."""

import contextlib
import math
import random
import time
from collections.abc import Callable
from typing import Any

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.policy.handout import MOST_HELD_BYTES, Patience, ServiceTimes, hold_target
from reproq_supervisor.core.runs import Outcome, QueueLoad, RunId
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.pool import verdicts
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.executor_log import ExecutorLogs
from reproq_supervisor.pool.held import PUT_BACK, End, Held, HeldRuns, Phase
from reproq_supervisor.pool.ledger import MOST_ENDINGS, Ledger
from reproq_supervisor.pool.output import OutputFiles
from reproq_supervisor.pool.recycling import Recycling
from reproq_supervisor.pool.sizing import Sizing
from reproq_supervisor.pool.slot_sizing import SlotSizing
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.pool.turns import PoolTurns
from reproq_supervisor.pool.watch import Watch
from reproq_supervisor.pool.worker import Executor, Output
from reproq_supervisor.process.deadlines import DeadlineTable, SoftReason


class Desk:
    """Held runs, the crew that executes them, the watch over their deadlines and the ledger for the database.

    Args:
      on_change: something ended or waits to be written.
      on_event: something for the log.
    """

    def __init__(self, start: ShardStart, table: DeadlineTable, *, on_change: Callable[[], None], on_event: Callable[..., None]) -> None:
        self.open = False
        """Whether runs may be claimed; while it is closed, what comes is given back."""
        self.held = HeldRuns()
        times = ServiceTimes()
        self.crew = Crew(
            table,
            times,
            start.lease_s,
            single_use=start.single_use,
            on_finished=self._on_finished,
            on_results=self._on_results,
            on_crashed=self._on_crashed,
        )
        self.recycling = Recycling(self.crew, times, PoolTurns(start.turns_path), start.recycle(), on_event)
        self.watch = Watch(self.crew, self.held, start.limits())
        self.ledger = Ledger(self.held, Turns(start.queues), start.lease_s)
        self.sizing = Sizing(self.crew, self.held, self.ledger.totals, start, on_event)
        self.slot_sizing = SlotSizing(self.crew, self.held, start, self._troubles, on_event)
        self.output = OutputFiles(start.logs_dir)
        self._executor_logs = ExecutorLogs(start.logs_dir, start.child)
        self._retry_of = start.retry_of
        self._stopping: set[RunId] = set()  # lost runs that have not left their executors
        self._mean_s = 1.0
        self._mean_bytes = 0.0
        self._patience = Patience()
        self._on_change = on_change
        self._on_event = on_event

    def adjust(self, start: ShardStart) -> None:
        """Take live settings over."""
        self.watch.limits = start.limits()
        self.ledger.turns = Turns(start.queues)
        self._retry_of = start.retry_of
        self.recycling.policy = start.recycle()
        self.sizing.adjust(start)

    def size(self, load: QueueLoad) -> None:
        """Have as many executors, and slots in each, as there is work for; while nothing may be claimed, none waits for us."""
        load = load if self.open else QueueLoad()
        self.slot_sizing.fit(load)
        self.sizing.fit(load)

    @property
    def most_counted(self) -> int:
        """How many waiting runs are worth counting, for those who decide about sizes; 0: none."""
        return max(self.sizing.most_counted, 0 if self.slot_sizing.is_fixed else 1)

    def _troubles(self) -> int:
        return self.watch.timeouts_total + self.ledger.totals.crashed

    def look(self) -> None:
        """Look at every executor: deadlines, whether it has done enough, and what it wrote that belongs to no run; and at what waits."""
        self.watch.look()
        self._look_at_waiting()
        self.recycling.look()
        for executor in self.crew.executors:
            if executor.shared and not executor.exited:
                self._executor_logs.look(executor, [held.claimed.result_id for held in executor.running()])

    def _look_at_waiting(self) -> None:
        """Give back what waits for too long, the last in line first."""
        buffer = self.crew.buffer
        # One that starts as soon as it is shown lets others pass.
        first = next((held for held in buffer if held.phase is Phase.BUFFERED and not held.is_next), None)
        waited_s = 0.0 if first is None else time.monotonic() - first.claimed_mono
        excess = self._patience.look(self.held.open, len(buffer), self.crew.slots, waited_s)
        for _ in range(excess):
            held = buffer.pop()
            if held.phase is not Phase.ENDED:
                self.held.end(held, PUT_BACK)
        if excess:
            self._on_change()

    def hear(self, message: dict[str, Any]) -> None:
        """The nursery says what became of an executor, or of a stranger."""
        match message["type"]:
            case "reaped":
                self.crew.forget(message["pid"])
                self.recycling.settle()
            case "stopped" | "continued" as what:
                self.crew.note_stopped(message["pid"], stopped=what == "stopped")
            case "not_forked":
                # There is no memory, process or descriptor left for one more.
                self.crew.note_not_forked(message["slot"])
                self.recycling.note_not_forked()
                self._on_event("executor.not_forked", error=message["error"])
            case "overdue":
                self.crew.note_overdue(message["pid"])
                self._on_event("executor.overdue", pid=message["pid"], late_s=message["late_s"])
            case "stranger":
                self._on_event("stranger.killed", pid=message["pid"], command=message["command"])

    def wanted(self) -> int:
        """Return how many runs to claim now."""
        if not self.open or self.held.ended >= MOST_ENDINGS:
            return 0
        if self.crew.buffer and self.held.open_bytes >= MOST_HELD_BYTES:
            return 0
        if not self.crew.wanted:
            # A pool without executors has one for what it holds: so a first run is claimed, as any that wakes a shard.
            return 0 if self.held.open or self.sizing.is_fixed else 1
        slots = self.crew.slots
        target = self._patience.limit(hold_target(slots, self._mean_s, self._mean_bytes), slots)
        missing = target - self.held.open
        # A claim of few rows costs as much as one of many: with enough in hand, wait until a good part is missing.
        return missing if missing * 4 >= target or self.crew.running < slots else 0

    def take_in(self, new: list[Held], lost: list[Held], cancel: frozenset[RunId]) -> None:
        """Take the answer of a cycle in: new runs, runs that are not ours any more, and runs that somebody cancelled."""
        for held in lost:
            self._stop_lost(held)
        limits = self.watch.limits
        for held in new:
            claimed = held.claimed
            held.told_limit_s = limits.time_limit_s(claimed.timeout_s)
            size = len(claimed.spec)
            self._mean_bytes += (0.5 if size > self._mean_bytes else 0.02) * (size - self._mean_bytes)
            if claimed.result_id in self._stopping:
                self.held.end(held, PUT_BACK)  # its earlier execution, lost meanwhile, is asked to stop and has not yet
            else:
                self.crew.buffer.append(held)
        if not self.open:
            self.release_unstarted()
        if new and not self.crew.wanted:
            self.sizing.decide_soon()
        self.crew.dispatch()
        for executor in self.crew.executors:
            self.crew.set_deadline(executor)
        for run in cancel:
            wanted = self.held.get(run)
            if wanted is not None and wanted.phase is not Phase.ENDED and self.watch.cancel(wanted):
                self._end(wanted, verdicts.cancelled_before_start())

    def release_unstarted(self) -> None:
        """Give back everything that has not started."""
        for executor in self.crew.executors:
            self.crew.put_back(executor.take_back())
        while self.crew.buffer:
            held = self.crew.buffer.popleft()
            if held.phase is not Phase.ENDED:
                self.held.end(held, PUT_BACK)
        self._on_change()

    def excuse_running(self) -> None:
        """What runs now is about to be killed through no fault of its own: it will be released."""
        for executor in self.crew.executors:
            executor.excuse = SoftReason.DRAIN

    def suspect_last_started(self) -> None:
        """The nursery died: of what ran, the run that started last may be the reason. If it is so again and again, it is charged."""
        running = [held for executor in self.crew.executors if not executor.exited for held in executor.running()]
        last = max(running, key=lambda held: math.inf if held.started_mono is None else held.started_mono, default=None)
        if last is not None:
            last.soft_reason = last.soft_reason or SoftReason.BEREFT

    def _stop_lost(self, held: Held) -> None:
        """Somebody else owns this run now: its execution here must end at once, and nothing of it is written."""
        held.soft_reason = SoftReason.LEASE_LOST
        for executor in self.crew.executors:
            if held in executor.in_hand:
                self.crew.put_back(executor.take_back())
                if held in executor.in_hand:
                    self._stopping.add(held.claimed.result_id)
                    self.watch.stop_lost(executor, held)
        with contextlib.suppress(ValueError):
            self.crew.buffer.remove(held)

    def _on_finished(self, held: Held, result: Result, output: Output | None) -> None:
        claimed = held.claimed
        self._stopping.discard(claimed.result_id)
        self.sizing.observe(held.seq, result.elapsed_s)
        self._mean_s += 0.1 * (result.elapsed_s - self._mean_s)
        logs_uri = None if output is None else self.output.save(claimed, output)
        delay_s = 0.0 if result.verdict is Verdict.SUCCEED else self._retry_delay_s(held)
        end = verdicts.end_of_result(held, result, logs_uri, delay_s)
        outcome = end.outcome
        self.slot_sizing.observe(claimed.task_path, result.elapsed_s, succeeded=outcome is Outcome.SUCCEED or outcome is Outcome.COMPLETED)
        self._note_end(held, end)
        if outcome is Outcome.FAIL or outcome is Outcome.FAIL_FINALLY:
            self._on_event("task.failed", result_id=claimed.result_id, task_path=claimed.task_path, attempt=claimed.attempt)

    def _on_results(self, executor: Executor) -> None:
        self._on_change()
        self.recycling.look_at(executor)

    def _on_crashed(self, executor: Executor, running: list[tuple[Held, Output | None]], status: int) -> None:
        self.sizing.note_exit(executor.pid)
        ids = [held.claimed.result_id for held, _ in running]
        if executor.shared:
            self._executor_logs.close(executor, ids)
        for held, output in running:
            self._stopping.discard(held.claimed.result_id)
            if held.soft_reason is None:
                self.ledger.totals.crashed += 1
            logs_uri = self.output.save(held.claimed, output)
            others = [each for each in ids if each != held.claimed.result_id]
            self._note_end(held, verdicts.end_of_death(held, status, logs_uri, self._retry_delay_s(held), others))
        if not (executor.leaving and status == 0):
            self._on_event("executor.exited", pid=executor.pid, status=status, result_id=ids[0] if ids else None)
        elif not running:
            self.recycling.note_left(executor)
        self._on_change()

    def _retry_delay_s(self, held: Held) -> float:
        claimed = held.claimed
        return self._retry_of(claimed.queue_name).delay_s(claimed.attempt, random.random())  # noqa: S311 - spread, not a secret

    def _end(self, held: Held, end: End) -> None:
        self._note_end(held, end)
        self._on_change()

    def _note_end(self, held: Held, end: End) -> None:
        # A run whose lease was lost is not held any more, and nothing of it is written.
        if self.held.get(held.claimed.result_id) is held:
            self.held.end(held, end)
