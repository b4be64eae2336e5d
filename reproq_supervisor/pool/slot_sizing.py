"""How many tasks each executor of this shard runs at once: asks the rule of the core four times a second, and tells the crew.

A pool with a fixed number of slots, or with one task in each executor, is not asked about.
"""

import time
from collections.abc import Callable
from typing import Any

from reproq_supervisor.core.policy.capacity import MEMORY_STALLED
from reproq_supervisor.core.policy.slots import SlotDecision, SlotLimits, SlotLoad, SlotState, SlotTuning, decide_slots, start_slots
from reproq_supervisor.core.runs import QueueLoad
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import HeldRuns
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process.capacity import MachineGauge

DECIDE_EVERY_S = 0.25
LAGS_FROM_S = 0.5
"""An executor that has a slot and work for it, and has started none of it for so long, does not get round to it."""
FULL_FROM = 0.9
MOST_TASKS = 1000


class SlotSizing:
    """Sets the slots of the crew.

    Args:
      troubles: asks how many runs ran out of time or died with their executor so far.
      on_event: something for the log.
    """

    def __init__(self, crew: Crew, held: HeldRuns, start: ShardStart, troubles: Callable[[], int], on_event: Callable[..., None]) -> None:
        self._crew = crew
        self._held = held
        self._limits = SlotLimits(start.slots_min, start.slots)
        self._begin_with = start.slots_before
        self._troubles = troubles
        self._on_event = on_event
        self._tuning = SlotTuning()
        self._gauge = MachineGauge(start.cpus)
        self._done: dict[str, tuple[int, float]] = {}
        self._ended = 0
        self._lags: dict[int, tuple[int, float]] = {}  # by pid: the hand-out that starts next, and since when a slot is free for it
        self._state: SlotState | None = None
        self._decision: SlotDecision | None = None
        self._decided_mono = 0.0

    @property
    def is_fixed(self) -> bool:
        return self._limits.least == self._limits.most

    def observe(self, task_path: str, elapsed_s: float, *, succeeded: bool) -> None:
        """A run ended after *elapsed_s* seconds."""
        if self.is_fixed:
            return
        self._ended += 1
        if succeeded:
            if task_path not in self._done and len(self._done) >= MOST_TASKS:
                self._done.clear()
            count, seconds = self._done.get(task_path, (0, 0.0))
            self._done[task_path] = (count + 1, seconds + elapsed_s)

    def fit(self, queues: QueueLoad) -> None:
        """Decide when it is time to."""
        now = time.monotonic()
        if self.is_fixed or now - self._decided_mono < DECIDE_EVERY_S:
            return
        self._decided_mono = now
        load = self._load(queues, now)
        state = self._state or start_slots(self._limits, load, now, self._begin_with)
        self._state, decision = decide_slots(self._tuning, self._limits, state, load, now)
        before, self._decision = self._crew.slots_each, decision
        if decision.slots != before:
            self._crew.use_slots(decision.slots)
            if before is not None:
                self._on_event("pool.slots_changed", slots=decision.slots, count=before, reason=decision.reason.value)

    def _load(self, queues: QueueLoad, now: float) -> SlotLoad:
        crew = self._crew
        waits = self._held.open > crew.running or queues.waiting > 0
        is_full = waits and crew.slots > 0 and crew.running >= FULL_FROM * crew.slots
        chokes = self._lagging(now) or self._gauge.look().memory_stalled > MEMORY_STALLED
        return SlotLoad(crew.ready, is_full, dict(self._done), self._ended, self._troubles(), chokes)

    def _lagging(self, now: float) -> bool:
        """Answer whether an executor does not get round to its work."""
        lags: dict[int, tuple[int, float]] = {}
        for executor in self._crew.executors:
            seq = _next_with_a_slot(executor)
            if seq:
                before, since = self._lags.get(executor.pid, (0, now))
                lags[executor.pid] = (seq, since if before == seq else now)
        self._lags = lags
        return any(now - since >= LAGS_FROM_S for _, since in lags.values())

    def snapshot(self) -> dict[str, Any] | None:
        """Return the last decision for those who ask why; None for a fixed number."""
        decision = self._decision
        if decision is None:
            return None
        return {
            "slots": decision.slots,
            "min": self._limits.least,
            "max": self._limits.most,
            "reason": decision.reason.value,
            "work_s_per_s": round(decision.per_s, 2),
            "gained": None if decision.gained is None else round(decision.gained, 3),
        }


def _next_with_a_slot(executor: Executor) -> int:
    """Return the hand-out that could start now and has not; 0 for none."""
    if executor.exited or executor.leaving or executor.stopped_since_mono is not None:
        return 0
    unstarted = executor.unstarted()
    started = len(executor.in_hand) - unstarted
    return executor.in_hand.first_unstarted(unstarted) if unstarted and started < executor.in_hand.slots else 0
