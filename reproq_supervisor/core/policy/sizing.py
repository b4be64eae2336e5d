"""How many executors a pool should have: enough for what arrives, and for working off the backlog within its target time.

    want = ⌈ rate * service / utilisation  +  waiting * service / drain target ⌉

    size ──want above it──► up at once, to the want
      └──── largest want of the last two minutes below it ──► down, a little at a time

It never follows how many are busy at a moment: between two tasks nobody is. What grew again soon after it had shrunk learns patience, and
shrinks later the next time. On a saturated machine more executors would only make every task slower, which looks like a need for still
more: it never grows beyond what is useful there. What a heap of tasks asks of a processor is not known before some of them have run,
whatever ran before them: until then it grows no further than if they all computed.

Pure: `(state, observation, now) -> (state, decision)`. Source of the rules: the sizing of elastic pools by Little's law, the stabilisation
window of Kubernetes' autoscaler, and the learned penalty of uWSGI's busyness algorithm.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from reproq_supervisor.core.policy.heap import Heap, note_heap

IDLE_BELOW = 0.05
"""Who has use for less than this part of one executor, and nothing that waits or runs, has use for none."""


class SizeReason(StrEnum):
    """Why the size is what it is; the words of `explain`."""

    STEADY = "steady"
    BACKLOG = "backlog"  # up: more waits than the target time allows
    RATE = "rate"  # up: more arrives than this size can serve
    QUIET = "quiet"  # down: less was wanted for the whole window
    PATIENCE = "patience"  # less is wanted, but not for long enough yet
    LIMIT = "limit"  # held back or brought back by the pool's min and max
    SATURATED = "saturated"  # more is wanted, but the machine has nothing left
    UNSEEN = "unseen"  # more is wanted, but what waits may compute: nothing of it was seen running
    BUDGET = "budget"  # held back or brought down by the pool's share of the machine


@dataclass(frozen=True, slots=True)
class SizeTuning:
    """The numbers of the rule.

    Attributes:
      utilisation: part of its time that an executor shall be busy at a steady rate.
      drain_target_s: how fast a backlog should be worked off.
      sample_s: over how long arrivals are counted for one sample of the rate.
      confirmed_by: so many samples in a row, each far above the average, make it follow at once.
      rise, fall: weight of a new sample above and below the average.
      up_band, down_band: part of the size by which the wanted one must differ; a backlog need not.
      down_after_s: how long less must have been wanted.
      down_every_s, down_part: at most this part, and at least one, goes at a time, this long after the last change.
      patience_growth, most_patience: the window's factor when shrinking proved too early, and where that ends.
      give_back_after_s: how long it must have had more than its budget before it gives some of it back.
      unknown_service_s: what a task is taken to last while none was seen to end.
      unseen_s: how long a heap must have been there for what runs to be taken to be of it.
    """

    utilisation: float = 0.85
    drain_target_s: float = 10.0
    sample_s: float = 1.0
    confirmed_by: int = 3
    rise: float = 0.03
    fall: float = 0.02
    up_band: float = 0.1
    down_band: float = 0.25
    down_after_s: float = 120.0
    down_every_s: float = 60.0
    down_part: float = 0.1
    patience_growth: float = 2.0
    most_patience: float = 4.0
    give_back_after_s: float = 3.0
    unknown_service_s: float = 1.0
    unseen_s: float = 0.2


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """What the file, an operator or a budget allows.

    Attributes:
      budget: the pool's share of the machine, None without one; it never takes a pool below its least.
    """

    least: int
    most: int
    budget: int | None = None

    @property
    def highest(self) -> int:
        """The largest size that is allowed."""
        return self.most if self.budget is None else max(self.least, min(self.most, self.budget))


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool sees of its work: its own part of it, if other shards or hosts serve the same queues.

    Attributes:
      arrived_total: runs that became ready since the beginning; only grows, so that a lost or repeated look does no harm.
      waiting: runs that are ready and that nobody runs.
      running: runs under way.
      service_s: mean seconds of a run; None while none was ever seen to end.
      slots: runs at once in one executor.
      useful: more executors than that would wait for a processor or for memory; None: no such bound is near.
      useful_unseen: the same if each task computed; None: that would be no bound.
      is_seen: whether tasks were seen running, so that *useful* is more than a guess.
    """

    arrived_total: int
    waiting: int
    running: int
    service_s: float | None
    slots: int = 1
    useful: int | None = None
    useful_unseen: int | None = None
    is_seen: bool = True


@dataclass(frozen=True, slots=True)
class SizeState:
    """What is remembered from decision to decision.

    Attributes:
      rate_per_s: average of arrivals.
      samples: arrivals a second in the last few samples.
      sampled_mono, sampled_total: when the current sample began, and what had arrived until then.
      over_since_mono: since when it has had more than its budget, infinity while it has not.
      heap: what was wanted for the heap that waits; None while idle slots take all there is.
      wants: (mono, want), latest last: what was wanted since then at most, each less than the one before.
      patience: factor of the window before shrinking.
    """

    size: int
    rate_per_s: float
    samples: tuple[float, ...]
    sampled_mono: float
    sampled_total: int
    wants: tuple[tuple[float, int], ...]
    over_since_mono: float = math.inf
    heap: Heap | None = None
    shrunk_mono: float = -math.inf
    changed_mono: float = -math.inf
    patience: float = 1.0
    patient_since_mono: float = -math.inf


@dataclass(frozen=True, slots=True)
class SizeDecision:
    """The size from now on, why, and the figures that it came from.

    Attributes:
      use: what it would have without a budget: the largest want of the window, as far as that is of use.
    """

    size: int
    reason: SizeReason
    want: int
    for_rate: float
    for_backlog: float
    rate_per_s: float
    service_s: float
    use: int


def start_size(limits: SizeLimits, load: Load, now: float) -> SizeState:
    """Begin with the least, as if that had been wanted just now."""
    return SizeState(limits.least, 0.0, (), now, load.arrived_total, ((now, limits.least),))


def decide_size(tuning: SizeTuning, limits: SizeLimits, state: SizeState, load: Load, now: float) -> tuple[SizeState, SizeDecision]:
    """Decide how many executors there shall be from now on.

    Args:
      now: monotonic seconds; one that is earlier than before counts as no time at all.
    """
    now = max(now, state.wants[-1][0], state.sampled_mono)
    state = _sample(tuning, _calm_down(tuning, state, now), load, now)
    service_s = load.service_s if load.service_s is not None else tuning.unknown_service_s
    each_s = service_s / load.slots
    for_rate = state.rate_per_s * each_s / tuning.utilisation
    # What is idle takes its part at once.
    excess = max(0, load.waiting - max(0, state.size * load.slots - load.running))
    for_backlog = excess * each_s / tuning.drain_target_s
    wanted = for_rate + for_backlog
    # An average that fades never comes to nothing.
    want = 0 if wanted < IDLE_BELOW else math.ceil(round(wanted, 9))
    if load.waiting or load.running:
        want = max(want, 1)
    state = _remember(tuning, state, want, now)
    state = replace(
        state,
        over_since_mono=min(state.over_since_mono, now) if state.size > limits.highest else math.inf,
        heap=note_heap(state.heap, want if excess else 0, now, tuning.unseen_s),
    )
    useful, lacking = _useful(state.heap, load, want, for_rate)
    size, reason = _resize(tuning, limits, state, want, excess, useful, lacking, now)
    use = max(limits.least, min(limits.most, state.wants[0][1]))
    if useful is not None:
        use = max(limits.least, min(use, max(state.size, useful)))
    state = _note_size(tuning, state, size, now)
    return state, SizeDecision(size, reason, want, for_rate, for_backlog, state.rate_per_s, service_s, use)


def _sample(tuning: SizeTuning, state: SizeState, load: Load, now: float) -> SizeState:
    """Take a sample of the rate when it is due.

    The average rises and falls slowly, but follows at once where every one of the last samples is far above it: that is no chance and no
    heap that came in one piece, which is backlog and not rate.
    """
    elapsed = now - state.sampled_mono
    arrived = load.arrived_total - state.sampled_total
    if arrived < 0:  # counted anew
        return replace(state, sampled_mono=now, sampled_total=load.arrived_total)
    if elapsed < tuning.sample_s:
        return state
    sample = arrived / elapsed
    samples = (*state.samples, sample)[-tuning.confirmed_by :]
    rate = state.rate_per_s
    weight = tuning.rise if sample > state.rate_per_s else tuning.fall
    # A heap counts as no more than twice the usual.
    usual = max(state.rate_per_s, 1.0 / tuning.sample_s)
    rate = state.rate_per_s + weight * (min(sample, 2.0 * usual) - state.rate_per_s)
    sustained = min(samples) if len(samples) == tuning.confirmed_by else 0.0
    # Two standard deviations of a Poisson process, in each of several samples.
    if sustained > state.rate_per_s + 2.0 * math.sqrt(state.rate_per_s / tuning.sample_s):
        rate = max(rate, sustained)
    return replace(state, rate_per_s=rate, samples=samples, sampled_mono=now, sampled_total=load.arrived_total)


def _remember(tuning: SizeTuning, state: SizeState, want: int, now: float) -> SizeState:
    """Keep of all wants those that can still be the largest of the window."""
    window_s = tuning.down_after_s * state.patience
    larger = [(at, earlier) for at, earlier in state.wants if earlier > want and at > now - window_s]
    return replace(state, wants=(*larger, (now, want)))


def _useful(heap: Heap | None, load: Load, want: int, for_rate: float) -> tuple[int | None, SizeReason]:
    """Return how many are of use, as far as is known, and what it is called that there are no more."""
    seen = math.inf if load.useful is None else load.useful
    unseen = math.inf if load.useful_unseen is None else load.useful_unseen
    if load.is_seen:
        if heap is None or want <= heap.trusted:
            return load.useful, SizeReason.SATURATED
        # What arrives all the time was seen, whatever comes on top of it.
        unseen = max(unseen, heap.trusted, math.ceil(round(for_rate, 9)))
    return (load.useful, SizeReason.SATURATED) if seen < unseen or math.isinf(unseen) else (int(unseen), SizeReason.UNSEEN)


def _resize(
    tuning: SizeTuning, limits: SizeLimits, state: SizeState, want: int, excess: int, useful: int | None, lacking: SizeReason, now: float
) -> tuple[int, SizeReason]:
    size, most = state.size, limits.highest
    bound = SizeReason.LIMIT if most == limits.most else SizeReason.BUDGET
    if size < limits.least:
        return limits.least, SizeReason.LIMIT
    if size > limits.most:
        return most, bound
    if size > most:
        # A moment's part may be noise; and what somebody else needs is still needed then.
        return (most if now - state.over_since_mono >= tuning.give_back_after_s else size), bound
    if want > size * (1.0 if excess else 1.0 + tuning.up_band):
        if size == most:
            return size, bound
        if useful is not None and useful < min(want, most):
            return max(size, useful, 1), lacking
        return min(want, most), SizeReason.BACKLOG if excess else SizeReason.RATE
    largest = max(limits.least, state.wants[0][1])
    if largest < size * (1.0 - tuning.down_band) and now - state.changed_mono >= tuning.down_every_s:
        return max(largest, size - max(1, math.floor(tuning.down_part * size))), SizeReason.QUIET
    # What is within the band never makes it shrink.
    return size, SizeReason.PATIENCE if max(want, limits.least) < size * (1.0 - tuning.down_band) else SizeReason.STEADY


def _calm_down(tuning: SizeTuning, state: SizeState, now: float) -> SizeState:
    """Lose some patience after a calm window; before anything is decided, so that the same look again decides the same."""
    window_s = tuning.down_after_s * state.patience
    if state.patience <= 1.0 or now - max(state.patient_since_mono, state.changed_mono) < 2 * window_s:
        return state
    return replace(state, patience=max(1.0, state.patience / tuning.patience_growth), patient_since_mono=now)


def _note_size(tuning: SizeTuning, state: SizeState, size: int, now: float) -> SizeState:
    """Note a change of size; growth soon after a shrinking asks for more patience."""
    if size == state.size:
        return state
    window_s = tuning.down_after_s * state.patience
    if size > state.size and now - state.shrunk_mono < window_s and state.patient_since_mono < state.shrunk_mono:
        patience = min(tuning.most_patience, state.patience * tuning.patience_growth)
        return replace(state, size=size, changed_mono=now, patience=patience, patient_since_mono=now)
    return replace(state, size=size, changed_mono=now, shrunk_mono=now if size < state.size else state.shrunk_mono)
