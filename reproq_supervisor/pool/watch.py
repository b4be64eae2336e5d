"""Deadlines of running work, all kept here and none in the executor: time limits, leases, frozen and stuck executors.

running ──timeout──► soft signal ──grace──► stacks to the log ──0.2 s──► killed
lease about to end (it could not be renewed) ──────────────────────────► killed
has a free slot and work, starts none of it; or stopped ──heartbeat────► killed
told to leave, nothing in hand, and still there ────────heartbeat──────► killed

The soft signal is of a run, the kill of an executor. Where several runs share one, it takes no more work once one of them did not stop;
the others have another `grace` to end, and what is then still running is released uncounted. A lease that is about to end does not wait
for that: its run is asked to stop a moment earlier instead.
"""

import time
from dataclasses import dataclass

from reproq_supervisor.core.policy.lease import shard_margin_s, soft_notice_s, start_margin_s
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import PUT_BACK, Held, HeldRuns, Phase
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import clock, stacks
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, SoftReason

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

    def time_limit_s(self, own_s: float) -> float:
        """Return how long a task may run whose own limit is *own_s*; 0 or less is none."""
        return min(own_s, self.timeout_s) if own_s > 0 else self.timeout_s


class Watch:
    """Looks at every executor, ten times a second."""

    def __init__(self, crew: Crew, held: HeldRuns, limits: Limits) -> None:
        self.limits = limits
        self.timeouts_total = 0
        self._crew = crew
        self._held = held

    def look(self) -> None:
        """Enforce every deadline once."""
        now = time.monotonic()
        for executor in self._crew.executors:
            if executor.exited:
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
        running = executor.in_hand.started(unstarted)
        if unstarted and len(running) < executor.in_hand.slots:
            self._look_at_stuck(executor, running, executor.in_hand.first_unstarted(unstarted), now)
        for held in running:
            self._look_at_running(executor, held, now)
        self._look_at_overdue(executor, running, now)
        if unstarted and len(running) >= executor.in_hand.slots and all(held.runs_longer_than(TAKE_BACK_AFTER_S, now) for held in running):
            # What runs turned out to be long: others must not wait behind it.
            self._crew.put_back(executor.take_back())
            self._crew.dispatch()

    def _look_at_stuck(self, executor: Executor, running: list[Held], seq: int, now: float) -> None:
        waiting, since = executor.waiting
        if waiting != seq:
            executor.waiting = (seq, now)
            return
        if executor.shared and now - since > self.limits.heartbeat_s / 2:
            executor.send_signal(SOFT_SIGNAL)  # who keeps its loop busy? The answer will be in the table
        if now - since > self.limits.heartbeat_s and self._kill_with_stacks(executor, now):
            culprit = running[0] if len(running) == 1 else self._crew.busy_run(executor)
            if culprit is not None:
                culprit.soft_reason = culprit.soft_reason or SoftReason.BLOCKED

    def _look_at_lingering(self, executor: Executor, now: float) -> None:
        # A thread that its task left behind may keep it from leaving.
        if executor.lingers_since_mono is None:
            executor.lingers_since_mono = now
        elif now - executor.lingers_since_mono > self.limits.heartbeat_s:
            self._crew.kill(executor)

    def _look_at_running(self, executor: Executor, held: Held, now: float) -> None:
        lease_s = held.lease_until - clock.boot_time_s() - shard_margin_s(self.limits.lease_s)
        if lease_s <= 0:
            held.soft_reason = held.soft_reason or SoftReason.LEASE_LOST
            self._crew.kill(executor, SoftReason.LEASE_LOST)
            return
        if held.soft_reason is None and executor.shared and lease_s <= soft_notice_s(self.limits.lease_s):
            self.stop(executor, held, SoftReason.LEASE_LOST, lease_s)
        if held.started_mono is None:
            held.started_mono = now
        limit = self.limits.time_limit_s(held.claimed.timeout_s)
        if held.soft_reason is None and now - held.started_mono >= limit:
            self.timeouts_total += 1
            held.limit_s = limit
            self.stop(executor, held, SoftReason.TIMEOUT, self.limits.grace_s)

    def _look_at_overdue(self, executor: Executor, running: list[Held], now: float) -> None:
        """Kill an executor of which a run does not stop, when the others have ended or had their time to."""
        overdue = [held for held in running if held.kill_at_mono is not None and now >= held.kill_at_mono]
        if not overdue:
            return
        if len(overdue) == len(running) or any(held.soft_reason is SoftReason.LEASE_LOST for held in overdue):
            self._kill_with_stacks(executor, now)
        elif executor.condemned_mono is None:
            executor.condemned_mono = now
            self._crew.dismiss(executor)
        elif now - executor.condemned_mono >= self.limits.grace_s:
            self._kill_with_stacks(executor, now)

    def _kill_with_stacks(self, executor: Executor, now: float) -> bool:
        """Ask for its stacks first, and kill it a moment later; True when that was now."""
        if executor.dies_mono is None:
            stacks.ask_for_stacks(executor.pid)
            executor.dies_mono = now + STACKS_BEFORE_KILL_S
        elif now >= executor.dies_mono:
            self._crew.kill(executor, SoftReason.DRAIN)
            return True
        return False

    def stop(self, executor: Executor, held: Held, reason: SoftReason, grace_s: float) -> None:
        """Ask a running task to stop; its executor is killed after *grace_s*."""
        held.soft_reason = reason
        held.kill_at_mono = time.monotonic() + grace_s
        self._crew.ask_to_stop(executor, held)

    def stop_lost(self, executor: Executor, held: Held) -> None:
        """Stop a run that is somebody else's now: at once where it has an executor to itself."""
        if executor.shared:
            self.stop(executor, held, SoftReason.LEASE_LOST, CANCEL_GRACE_S)
        else:
            self._crew.kill(executor)

    def stop_all(self, reason: SoftReason, grace_s: float) -> None:
        """Ask every running task to stop."""
        for executor in self._crew.executors:
            for held in () if executor.exited else executor.in_hand:
                if held.soft_reason is None:
                    self.stop(executor, held, reason, grace_s)
                else:
                    held.kill_at_mono = min(held.kill_at_mono or float("inf"), time.monotonic() + grace_s)

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
        """Runs that never started and now may not any more are given back (which the fence refuses if it is too late)."""
        limit = clock.boot_time_s() + start_margin_s(self.limits.lease_s)
        for held in list(self._crew.buffer):
            if held.phase is Phase.BUFFERED and held.lease_until <= limit:
                self._held.end(held, PUT_BACK)
