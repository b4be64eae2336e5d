"""How many executors this shard has: asks the rule of the core four times a second, and tells the crew.

What arrives and what waits is shared by all who serve the same queues, on whatever host: each takes its part of it. A pool of a fixed size
is not asked about.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from reproq_supervisor.core.policy.capacity import share_of, useful_size
from reproq_supervisor.core.policy.fresh import executors_to_keep
from reproq_supervisor.core.policy.sizing import Load, SizeDecision, SizeLimits, SizeReason, SizeState, SizeTuning, decide_size, start_size
from reproq_supervisor.core.runs import QueueLoad
from reproq_supervisor.pool.asked import Asked
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import HeldRuns
from reproq_supervisor.pool.ledger import Totals
from reproq_supervisor.pool.start import ShardStart
from reproq_supervisor.process.capacity import MachineGauge, asked_ns, asked_with_programs_ns
from reproq_supervisor.process.own_memory import private_bytes
from reproq_supervisor.process.proctable import programs_of

DECIDE_EVERY_S = 0.25
MOST_COUNTED = 20_000
"""More than so many waiting runs are not counted: it would cost more than it tells."""
LEAST_EXECUTOR_BYTES = 8 * 1024 * 1024
MEASURE_EVERY_S = 10.0


class Sizing:
    """Sets `crew.wanted`.

    Args:
      on_event: something for the log.
    """

    def __init__(self, crew: Crew, held: HeldRuns, totals: Totals, start: ShardStart, on_event: Callable[..., None]) -> None:
        self.decision: SizeDecision | None = None
        self._crew = crew
        self._held = held
        self._totals = totals
        self._start = start
        self._bounds = (start.executors_min, start.executors)
        self._budget = start.budget
        self._is_bound = bool(start.cpus)
        self._most_slots = start.slots
        self._tuning = SizeTuning(drain_target_s=start.drain_target_s)
        self._gauge = MachineGauge(start.cpus)
        self._machine = self._gauge.look()
        self._asks: float | None = None
        self._told_use = 0
        self._on_event = on_event
        self._state: SizeState | None = None
        self._arrived = 0
        self._service = MeanService()
        self._asked = Asked(asked_with_programs_ns if start.isolation == "exec" else asked_ns)
        self._executor_bytes = LEAST_EXECUTOR_BYTES
        self._measured_mono = -math.inf
        self._decided_mono = -math.inf

    def adjust(self, start: ShardStart) -> None:
        """Take live settings over; the size follows them with the next `fit`."""
        self._bounds = (start.executors_min, start.executors)
        self._tuning = SizeTuning(drain_target_s=start.drain_target_s)
        self._decided_mono = -math.inf

    def use_budget(self, executors: int | None) -> None:
        """Have no more than this shard's part of what the pools of the daemon share; None for no bound."""
        self._budget = executors
        self._told_use = 0
        self._decided_mono = -math.inf

    def decide_soon(self) -> None:
        """There is work for a pool that has no executor: decide with the next `fit`, without the usual pause."""
        self._decided_mono = -math.inf

    @property
    def wants_more_than_it_may(self) -> bool:
        """Answer whether somebody should hear that the budget holds it back; once for each size that it would have."""
        decision = self.decision
        if decision is None or decision.reason is not SizeReason.BUDGET or decision.use <= max(self._told_use, decision.size):
            return False
        self._told_use = decision.use
        return True

    @property
    def is_fixed(self) -> bool:
        least, most = self._bounds
        return least == most

    @property
    def most_counted(self) -> int:
        """How many waiting runs are worth counting: what the largest size works off in its target time, and some; none for a fixed one."""
        if self.is_fixed:
            return 0
        service_s = self._service.seconds or self._tuning.unknown_service_s
        enough = self._bounds[1] * (1 + self._tuning.drain_target_s / max(service_s, 1e-4))
        return int(min(MOST_COUNTED, 2 * enough + 100))

    @property
    def _slots(self) -> int:
        """Runs at once in one executor, as things are."""
        return self._crew.slots_each or self._most_slots

    def observe(self, seq: int, elapsed_s: float) -> None:
        """A run ended by itself after *elapsed_s* seconds."""
        self._service.observe(elapsed_s)
        if not self.is_fixed:
            self._asked.note_end(seq, elapsed_s)

    def note_exit(self, pid: int) -> None:
        """An executor is dead, but not reaped."""
        if not self.is_fixed:
            self._asked.note_exit(pid)

    def fit(self, queues: QueueLoad) -> None:
        """Decide when it is time to."""
        now = time.monotonic()
        if now - self._decided_mono < DECIDE_EVERY_S:
            return
        self._decided_mono = now
        if self.is_fixed:
            self._state = self.decision = None
            self._crew.wanted = self._bounds[0]
            return
        limits = SizeLimits(*self._bounds, self._budget)
        load = self._load(queues, now)
        state = self._state or start_size(limits, load, now)
        self._state, decision = decide_size(self._tuning, limits, state, load, now)
        if decision.size != self._crew.wanted and self.decision is not None:
            self._on_event(
                "pool.sized",
                executors=decision.size,
                count=self._crew.wanted,
                reason=decision.reason.value,
                running=load.running,
                total=load.waiting,
            )
        self._crew.wanted, self.decision = decision.size, decision

    def _load(self, queues: QueueLoad, now: float) -> Load:
        crew, tuning = self._crew, self._tuning
        mine = math.ceil(queues.waiting / queues.workers)
        waiting = self._held.open - crew.running + mine
        # What others claim from our part makes it smaller, but has arrived all the same.
        self._arrived = max(self._arrived, self._totals.claimed - self._totals.released + mine)
        living = [executor for executor in crew.executors if not executor.exited]
        running_s = {held.seq: now - held.started_mono for each in living for held in each.running() if held.started_mono is not None}
        service_s = self._service.seconds
        if running_s:
            # Where all that run have lasted longer than those that ended, the mean of these says too little.
            service_s = max(min(running_s.values()), tuning.unknown_service_s if service_s is None else service_s)
        self._look([executor.pid for executor in living], running_s, now)
        useful, useful_unseen = self._useful(self._asks), self._useful(None)
        return Load(self._arrived, waiting, crew.running, service_s, self._slots, useful, useful_unseen, is_seen=self._asks is not None)

    def _look(self, pids: list[int], running_s: dict[int, float], now: float) -> None:
        self._asks = self._asked.by_each(pids, running_s, now)
        if now - self._measured_mono > MEASURE_EVERY_S:
            self._measure(pids, now)
        self._machine = self._gauge.look()

    def _useful(self, asked: float | None) -> int | None:
        return useful_size(self._machine, self._crew.wanted, asked=asked, slots=self._slots, executor_bytes=self._bytes_each())

    def _measure(self, pids: list[int], now: float) -> None:
        """Learn what one executor takes. One for single use shows it while it runs its task, and the program of that is a part of it."""
        if self._start.single_use:
            pids = [executor.pid for executor in self._crew.executors if executor.in_hand and not executor.exited]
        if pids:
            self._measured_mono = now
            programs = programs_of(pids[0]) if self._start.isolation == "exec" else []
            self._executor_bytes = max(LEAST_EXECUTOR_BYTES, sum(private_bytes(pid) or 0 for pid in (pids[0], *programs)))

    def _bytes_each(self) -> int:
        """Return what one executor takes, with its part of those that wait for single use."""
        wanted = max(1, self._crew.wanted)
        return self._executor_bytes * executors_to_keep(wanted, single_use=self._start.single_use) // wanted

    def snapshot(self) -> dict[str, Any] | None:
        """Return the last decision for those who ask why; None for a fixed size."""
        decision = self.decision
        if decision is None:
            return None
        return {
            "size": decision.size,
            "min": self._bounds[0],
            "max": self._bounds[1],
            "reason": decision.reason.value,
            "want": decision.want,
            "rate_per_s": round(decision.rate_per_s, 2),
            "service_s": round(decision.service_s, 4),
            "for_rate": round(decision.for_rate, 2),
            "for_backlog": round(decision.for_backlog, 2),
            "use": decision.use,
            "budget": self._budget,
            # Who is bound to processors shares them with nobody that we know of.
            "takes": {"processors": 0.0 if self._is_bound else round(share_of(self._asks, self._slots), 2), "memory": self._bytes_each()},
            "machine": {
                "processors": self._machine.processors,
                "memory_left_bytes": self._machine.memory_left_bytes,
                "crowded": round(self._machine.crowded, 2),
                "memory_stalled": round(self._machine.memory_stalled, 3),
            },
        }


class MeanService:
    """Mean seconds of a run: of all runs at first, then of about the last two hundred."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._count = 0

    def observe(self, elapsed_s: float) -> None:
        self._count += 1
        mean = self.seconds or 0.0
        self.seconds = mean + max(0.01, 1.0 / self._count) * (elapsed_s - mean)
