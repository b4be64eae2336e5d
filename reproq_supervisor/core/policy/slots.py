"""How many tasks one executor should run at once (`slots: {min, max}`): what gets most done, and of two that do as well the smaller.

    window full ──► compare its throughput with the one at the number before
                      more ──────► a step on in the same direction
                      less ──────► a step back
                      as much ───► a step down: fewer do as well
    trouble ──────► half, and climb again

It follows what gets done, not how long tasks take: the times of tasks span milliseconds to hours, and a rule that compares them with a
baseline chases the queue that it makes itself. Throughput is normalised: both windows weigh each task by the same seconds, so that another
mix of tasks is no gain. Where slots stand empty, or nothing waits, nothing can be learnt and nothing changes.

Pure: `(state, observation, now) -> (state, decision)`. Source of the rules: hill climbing on throughput as in elastic thread pools, with
the multiplicative decrease and the first doublings of TCP.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class SlotReason(StrEnum):
    """Why the number is what it is; the words of `explain`."""

    MEASURING = "measuring"  # the window is not over
    UNUSED = "unused"  # not all slots had work: nothing to learn
    TRIED = "tried"  # the first step from here, or a look beside a limit
    GAIN = "gain"  # the last step brought more: on in its direction
    LOSS = "loss"  # it brought less: back
    NO_GAIN = "no_gain"  # it made no difference: fewer
    TROUBLE = "trouble"  # runs out of time, dead executors, a loop that lags, no memory: half
    LIMIT = "limit"  # held by the pool's min and max


@dataclass(frozen=True, slots=True)
class SlotTuning:
    """The numbers of the rule.

    Attributes:
      window_s, window_ends: a window lasts at least so long, and until so many runs have ended in it; fewer after a large step, which
        shows, but never fewer than *least_ends*.
      full_part: so much of its looks must have found every slot taken and more waiting.
      gain: throughput that differs by less is the same.
      step: part of the number that it changes by, one at least.
      doubling_gain: as long as each step up brings so much, and nothing was learnt yet, it doubles.
      rest_windows: at a limit it looks to the other side after so many windows.
      trouble_part: of the runs of a window, above which their troubles are its fault.
      cool_s: it halves at most so often.
      settle_most_s: after a step the runs under way are waited for, one mean service time, but not longer.
    """

    window_s: float = 1.0
    window_ends: int = 300
    least_ends: int = 30
    full_part: float = 0.8
    gain: float = 0.02
    step: float = 0.2
    doubling_gain: float = 0.3
    rest_windows: int = 10
    trouble_part: float = 0.1
    cool_s: float = 5.0
    settle_most_s: float = 30.0


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """What the file allows."""

    least: int
    most: int

    def clamp(self, slots: int) -> int:
        """Return the allowed number next to *slots*."""
        return max(self.least, min(self.most, slots))


Done = Mapping[str, tuple[int, float]]
"""By task: how many of its runs have succeeded, and their seconds in all."""


@dataclass(frozen=True, slots=True)
class SlotLoad:
    """What is seen of a pool's work. Totals only grow, so that a lost or repeated look does no harm.

    Attributes:
      executors: that can be given work.
      is_full: no slot is free, and more waits.
      ended_total, troubles_total: runs that ended, however; those that ran out of time or died with their executor.
      chokes: a loop does not get round to its work, or the machine waits for memory.
    """

    executors: int
    is_full: bool
    done: Done
    ended_total: int
    troubles_total: int = 0
    chokes: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """What was done between two looks, with one number of slots in so many executors."""

    slots: int
    executors: int
    seconds: float
    done: Done


@dataclass(frozen=True, slots=True)
class SlotState:
    """What is remembered from decision to decision.

    Attributes:
      direction: of the last step, 1 or -1.
      before: the last full window, at the number before.
      began_mono, began: the first look of this window; it is put off until *settles_mono*.
      looks, full_looks: of this window.
      rested: windows at a limit.
    """

    slots: int
    began: SlotLoad
    began_mono: float
    seen_mono: float
    direction: int = 1
    doubles: bool = True
    before: Window | None = None
    looks: int = 0
    full_looks: int = 0
    rested: int = 0
    settles_mono: float = -math.inf
    halved_mono: float = -math.inf
    reason: SlotReason = SlotReason.MEASURING
    per_s: float = 0.0
    gained: float | None = None


@dataclass(frozen=True, slots=True)
class SlotDecision:
    """The number from now on, why, and the figures that it came from.

    Attributes:
      per_s: seconds of work that one executor got done a second in the last full window, 0 before the first.
      gained: how much more that was than at the number before, as a part of it; None where they could not be compared.
    """

    slots: int
    reason: SlotReason
    per_s: float
    gained: float | None


def start_slots(limits: SlotLimits, load: SlotLoad, now: float, slots: int | None = None) -> SlotState:
    """Begin with *slots*, such as what was right before a restart; else with the least."""
    return SlotState(limits.clamp(limits.least if slots is None else slots), load, now, now)


def decide_slots(tuning: SlotTuning, limits: SlotLimits, state: SlotState, load: SlotLoad, now: float) -> tuple[SlotState, SlotDecision]:
    """Decide how many tasks an executor may run at once from now on.

    Args:
      now: monotonic seconds; one that is earlier than before counts as no time at all.
    """
    now = max(now, state.seen_mono)
    state = _decide(tuning, limits, state, load, now)
    return state, SlotDecision(state.slots, state.reason, state.per_s, state.gained)


def _decide(tuning: SlotTuning, limits: SlotLimits, state: SlotState, load: SlotLoad, now: float) -> SlotState:
    if limits.clamp(state.slots) != state.slots:
        return _begin(replace(state, slots=limits.clamp(state.slots), before=None, reason=SlotReason.LIMIT), load, now)
    cool = now - state.halved_mono >= tuning.cool_s
    if load.chokes and cool:
        return _halve(limits, state, load, now)
    if load.executors != state.began.executors or load.ended_total < state.began.ended_total:
        return _begin(replace(state, before=None), load, now)  # nothing to compare with, or counted anew
    if now < state.settles_mono:
        return _begin(state, load, now, state.settles_mono - now)
    if now == state.seen_mono:
        return state
    state = replace(state, looks=state.looks + 1, full_looks=state.full_looks + load.is_full, seen_mono=now)
    seconds = now - state.began_mono
    if seconds < tuning.window_s:
        return state
    ended = load.ended_total - state.began.ended_total
    enough = _ends(tuning, state)
    if ended >= enough and cool and load.troubles_total - state.began.troubles_total > tuning.trouble_part * ended:
        return _halve(limits, state, load, now)
    if state.full_looks < tuning.full_part * state.looks:
        return _begin(replace(state, before=None, reason=SlotReason.UNUSED, gained=None), load, now)
    if ended < enough:
        return state
    window = Window(state.slots, load.executors, seconds, _difference(load.done, state.began.done))
    return _step(tuning, limits, state, window, load, now)


def _step(tuning: SlotTuning, limits: SlotLimits, state: SlotState, window: Window, load: SlotLoad, now: float) -> SlotState:
    """A window is full: go where more gets done."""
    direction, doubles, reason, gained = state.direction, state.doubles, SlotReason.TRIED, None
    before = state.before
    if before is not None and before.slots != window.slots:
        gained = compare(before, window) - 1.0
        if gained > tuning.gain:
            reason = SlotReason.GAIN
        elif gained < -tuning.gain:
            direction, reason = -direction, SlotReason.LOSS
        else:
            direction, reason = -1, SlotReason.NO_GAIN
        doubles = doubles and direction > 0 and gained >= tuning.doubling_gain
    change = state.slots if doubles else max(1, math.floor(tuning.step * state.slots))
    slots, rested = limits.clamp(state.slots + direction * change), 0
    if slots == state.slots:
        # At a limit: what lies beside it is worth a look from time to time only.
        rested, reason = state.rested + 1, SlotReason.LIMIT
        if rested > tuning.rest_windows:
            direction, rested, reason = -direction, 0, SlotReason.TRIED
            slots = limits.clamp(state.slots + direction * max(1, math.floor(tuning.step * state.slots)))
    known = replace(
        state,
        slots=slots,
        direction=direction,
        doubles=doubles,
        before=window,
        rested=rested,
        reason=reason,
        per_s=_per_s(window),
        gained=gained,
    )
    settle_s = min(tuning.settle_most_s, _mean_s(window)) if slots != state.slots else 0.0
    return _begin(known, load, now, settle_s)


def _halve(limits: SlotLimits, state: SlotState, load: SlotLoad, now: float) -> SlotState:
    slots = limits.clamp(state.slots // 2)
    return _begin(
        replace(
            state, slots=slots, direction=1, doubles=False, before=None, rested=0, halved_mono=now, reason=SlotReason.TROUBLE, gained=None
        ),
        load,
        now,
    )


def _begin(state: SlotState, load: SlotLoad, now: float, settle_s: float = 0.0) -> SlotState:
    """Begin a window; looks before *settle_s* are over begin it anew."""
    return replace(state, began=load, began_mono=now, seen_mono=now, settles_mono=now + settle_s, looks=0, full_looks=0)


def compare(before: Window, after: Window) -> float:
    """Return how many times as much an executor got done in *after* as in *before*, each task weighed alike in both."""
    count, seconds = _sums(before.done, after.done)
    weights = {task: seconds[task] / count[task] for task in count}
    rates = [
        sum(weights[task] * each for task, (each, _) in window.done.items()) / (window.seconds * max(1, window.executors))
        for window in (before, after)
    ]
    return rates[1] / rates[0] if rates[0] > 0 else math.inf if rates[1] > 0 else 1.0


def _ends(tuning: SlotTuning, state: SlotState) -> int:
    """Return how many ends tell what the last step brought: the noise of a count falls with its root, and must be small against it."""
    changed = abs(state.slots - state.before.slots) if state.before is not None else 0
    usual = tuning.step * state.slots
    part = min(1.0, usual / max(1.0, usual, changed))
    return max(tuning.least_ends, math.ceil(tuning.window_ends * part * part))


def _per_s(window: Window) -> float:
    return sum(seconds for _, seconds in window.done.values()) / (window.seconds * max(1, window.executors))


def _mean_s(window: Window) -> float:
    count = sum(each for each, _ in window.done.values())
    return sum(seconds for _, seconds in window.done.values()) / count if count else 0.0


def _difference(now: Done, before: Done) -> Done:
    """Return what was done since *before*; a task that is counted anew counts from nothing."""
    found: dict[str, tuple[int, float]] = {}
    for task, (count, seconds) in now.items():
        old_count, old_seconds = before.get(task, (0, 0.0))
        new = (count, seconds) if count < old_count else (count - old_count, max(0.0, seconds - old_seconds))
        if new[0]:
            found[task] = new
    return found


def _sums(*windows: Done) -> tuple[dict[str, int], dict[str, float]]:
    count: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for window in windows:
        for task, (each, took) in window.items():
            count[task] = count.get(task, 0) + each
            seconds[task] = seconds.get(task, 0.0) + took
    return count, seconds
