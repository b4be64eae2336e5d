"""Deadlines of running work, all kept here and none in the executor: time limits, leases, frozen and stuck executors.

running ──timeout──► soft signal ──grace──► stacks to the log ──0.2 s──► killed
lease about to end (it could not be renewed) ──────────────────────────► killed
holds work, starts none of it; or stopped by a signal ──heartbeat──────► killed
told to leave, nothing in hand, and still there ────────heartbeat──────► killed
"""

import time
from dataclasses import dataclass

from reproq_supervisor.core.policy.lease import shard_margin_s
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import PUT_BACK, Held, HeldRuns, Phase
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import clock, stacks
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason

TICK_S = 0.1
STACKS_BEFORE_KILL_S = 0.2
CANCEL_GRACE_S = 0.5
TAKE_BACK_AFTER_S = 0.05


@dataclass(slots=True)
class Limits:
    """Seconds, from the settings of the pool."""

    timeout_s: float
    grace_s: float
    lease_s: float
    heartbeat_s: float


class Watch:
    """Looks at every executor, ten times a second."""

    def __init__(self, crew: Crew, held: HeldRuns, table: DeadlineTable, limits: Limits) -> None:
        self.limits = limits
        self.timeouts_total = 0
        self._crew = crew
        self._held = held
        self._table = table
        self._dying: dict[int, float] = {}  # executor pid → when it is killed (monotonic), its stacks asked for

    def look(self) -> None:
        """Enforce every deadline once."""
        now = time.monotonic()
        for executor in self._crew.executors:
            if executor.exited:
                self._dying.pop(executor.pid, None)
                continue
            if executor.in_hand:
                self._look_at(executor, now)
            elif executor.leaving:
                self._look_at_lingering(executor, now)
            if executor.stopped_since_mono is not None and now - executor.stopped_since_mono > self.limits.heartbeat_s:
                # An idle one, too: it is given nothing, so nothing else would ever end it.
                self._crew.kill(executor)
        self._drop_expired()

    def _look_at(self, executor: Executor, now: float) -> None:
        executor.cut_output()
        unstarted = executor.unstarted()
        head = executor.in_hand[0]
        if unstarted >= len(executor.in_hand):
            self._look_at_stuck(executor, now)
        else:
            executor.unstarted_since_mono = None
            self._look_at_running(executor, head, now)
            if unstarted and head.started_mono is not None and now - head.started_mono > TAKE_BACK_AFTER_S:
                # The task in front turned out to be long: others must not wait behind it.
                self._crew.put_back(executor.take_back())
                self._crew.dispatch()

    def _look_at_stuck(self, executor: Executor, now: float) -> None:
        if executor.unstarted_since_mono is None:
            executor.unstarted_since_mono = now
        elif now - executor.unstarted_since_mono > self.limits.heartbeat_s:
            self._kill_with_stacks(executor, now)

    def _look_at_lingering(self, executor: Executor, now: float) -> None:
        # A thread that its task left behind may keep it from leaving.
        if executor.lingers_since_mono is None:
            executor.lingers_since_mono = now
        elif now - executor.lingers_since_mono > self.limits.heartbeat_s:
            self._crew.kill(executor)

    def _look_at_running(self, executor: Executor, head: Held, now: float) -> None:
        if clock.boot_time_s() >= head.lease_until - shard_margin_s(self.limits.lease_s):
            if head.soft_reason is None:
                head.soft_reason = SoftReason.LEASE_LOST
            self._crew.kill(executor)
            return
        if head.started_mono is None:
            head.started_mono = now
        own_s = head.claimed.timeout_s
        limit = min(own_s, self.limits.timeout_s) if own_s > 0 else self.limits.timeout_s
        if head.soft_reason is None and now - head.started_mono >= limit:
            self.timeouts_total += 1
            head.limit_s = limit
            self.stop(executor, head, SoftReason.TIMEOUT, self.limits.grace_s)
        elif head.kill_at_mono is not None and now >= head.kill_at_mono:
            self._kill_with_stacks(executor, now)

    def _kill_with_stacks(self, executor: Executor, now: float) -> None:
        due = self._dying.get(executor.pid)
        if due is None:
            stacks.ask_for_stacks(executor.pid)
            self._dying[executor.pid] = now + STACKS_BEFORE_KILL_S
        elif now >= due:
            self._crew.kill(executor)

    def stop(self, executor: Executor, head: Held, reason: SoftReason, grace_s: float) -> None:
        """Ask the running task to stop; its executor is killed after *grace_s*."""
        head.soft_reason = reason
        head.kill_at_mono = time.monotonic() + grace_s
        self._table.set_soft(executor.row, head.seq, reason)
        executor.send_signal(SOFT_SIGNAL)

    def stop_all(self, reason: SoftReason, grace_s: float) -> None:
        """Ask every running task to stop."""
        for executor in self._crew.executors:
            if executor.in_hand and not executor.exited:
                head = executor.in_hand[0]
                if head.soft_reason is None:
                    self.stop(executor, head, reason, grace_s)
                else:
                    head.kill_at_mono = min(head.kill_at_mono or float("inf"), time.monotonic() + grace_s)

    def cancel(self, held: Held) -> bool:
        """Cancel a held run; True when it had not started, so that it can be ended at once."""
        for executor in self._crew.executors:
            if held in executor.in_hand:
                self._crew.put_back(executor.take_back())
                if held.phase is Phase.BUFFERED:
                    return True
                if held.soft_reason is None:
                    self.stop(executor, held, SoftReason.CANCEL, min(CANCEL_GRACE_S, self.limits.grace_s))
                return False
        return held.phase is Phase.BUFFERED

    def _drop_expired(self) -> None:
        """Runs that never started and whose lease is about to end are given back (which the fence refuses if it is too late)."""
        limit = clock.boot_time_s() + shard_margin_s(self.limits.lease_s)
        for held in list(self._crew.buffer):
            if held.phase is Phase.BUFFERED and held.lease_until <= limit:
                self._held.end(held, PUT_BACK)
