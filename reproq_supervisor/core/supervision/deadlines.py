"""Everything that time brings about: kills, health, ends of overrides; and when to look again."""

from collections.abc import Iterator

from reproq_supervisor.core.policy.liveness import judge_silence, slept_too_long_s
from reproq_supervisor.core.supervision import deaths, ending, telling
from reproq_supervisor.core.supervision.commands import AskStacks, KillOrphan, Signal
from reproq_supervisor.core.supervision.events import (
    GroupRecovered,
    HungSpared,
    PoolScaled,
    ProcessCondemned,
    ProcessStalled,
    SupervisorOverslept,
)
from reproq_supervisor.core.supervision.facts import SignalName
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.readiness import proven_at, waits_for_database
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessEvent, ProcessState
from reproq_supervisor.core.supervision.units import ONE_SHOTS, Role

STACKS_S = 0.3
"""Between asking a hung process for its stacks and killing it."""

POSTGRES_QUIT_S = 2.0
"""Between the database's immediate shutdown and its kill."""

LOOK_AGAIN_S = 1.0
_WATCHED = (ProcessState.READY, ProcessState.DRAINING)


def forgive_oversleep(state: State, now: float) -> None:
    """Give everybody a new window when it was us who stood still."""
    slept_s = slept_too_long_s(now, state.wake_at)
    if not slept_s:
        return
    state.emit(SupervisorOverslept(round(slept_s, 3)))
    for process in state.roster:
        process.heard_mono = process.boot_mono = now
        if process.kill_at is not None and process.state is ProcessState.DRAINING:
            process.kill_at += slept_s
    if state.stopping is not None:
        state.stopping.deadline += slept_s


def check(state: State, now: float, jitter: float) -> None:
    """Act on every deadline that has passed."""
    for process in state.roster:
        if process.kill_at is not None and now >= process.kill_at:
            _kill_step(state, process, now)
        elif process.state is ProcessState.BOOTING:
            _check_boot(state, process, now, jitter)
        elif process.state is ProcessState.READY:
            _check_health(state, process, now)
    _check_silence(state, now, jitter)
    _end_overrides(state, now)


def _condemn_hung(state: State, process: Process, why: str, now: float, jitter: float, waited_s: float) -> None:
    """Decide to kill *process* for its own failure, and enter that now: its unit is empty from here on, and must not be filled at once."""
    process.hung = True
    _condemn(state, process, why, now)
    deaths.child_hung(state, process, now, jitter, waited_s)


def _condemn(state: State, process: Process, why: str, now: float) -> None:
    """Decide to kill *process*: first it writes its stacks (or, being a database, closes at once), then it is killed."""
    process.move(ProcessEvent.KILL_DECIDED)
    process.kill_why = why
    state.emit(ProcessCondemned(process.unit.name, process.pid, why))
    if process.unit.role is Role.POSTGRES:
        state.do(Signal(process.serial, SignalName.QUIT))
    else:
        state.do(AskStacks(process.serial))
    process.kill_at = now + _warning_s(state, process, now)


def _warning_s(state: State, process: Process, now: float) -> float:
    """Return the time between the last warning and the kill; in a stop at most half of what is left of its phase."""
    full_s = POSTGRES_QUIT_S if process.unit.role is Role.POSTGRES else STACKS_S
    if state.stopping is None:
        return full_s
    return min(full_s, max(0.0, state.stopping.ends_mono(state.stopping.phase) - now) / 2.0)


def _kill_step(state: State, process: Process, now: float) -> None:
    match process.state:
        case ProcessState.STOPPING:
            state.do(Signal(process.serial, SignalName.KILL))
            process.kill_at, process.killed_mono = None, now
        case ProcessState.LINGERING:
            for pid in sorted(process.left_behind):
                state.do(KillOrphan(pid))
            process.kill_at = now + LOOK_AGAIN_S
        case ProcessState.STARTING:
            process.kill_at = None  # there is nothing to kill yet, and if it starts it is looked at again
        case _:
            _condemn(state, process, "did not leave in time after being asked to", now)


def _check_boot(state: State, process: Process, now: float, jitter: float) -> None:
    limit_s = state.plan_of(process).deadlines(process.unit).boot_s
    if state.counts(process) and waits_for_database(process) and now - process.heard_mono < LOOK_AGAIN_S * 5:
        # It boots no sooner for being killed. A canary gets no such patience: somebody waits for the answer.
        process.boot_mono = now
        return
    if now - process.boot_mono >= limit_s:
        _condemn_hung(state, process, f"was not ready within {limit_s:g} s", now, jitter, now - process.started_mono)


def _check_health(state: State, process: Process, now: float) -> None:
    if process.ready_mono is not None and state.counts(process):
        ready_for_s = now - process.ready_mono
        if state.health(process.unit).note_health(process.unit, ready_for_s, process.boot_s):
            state.emit(GroupRecovered(process.unit.group))
    pool = state.plan_of(process).pools.get(process.unit.pool)
    running = process.snapshot.get("running", 0)
    if pool is None or process.stalled or not running:
        return
    # Nothing may run longer than its timeout and grace; later than that even the shard's own clock has failed.
    stalled_s = now - process.progress_mono
    if stalled_s > float(pool["timeout"]) + float(pool["grace"]) + 10.0:
        process.stalled = True
        state.emit(ProcessStalled(process.unit.name, process.pid, running, round(stalled_s, 1)))


def _check_silence(state: State, now: float, jitter: float) -> None:
    watched = [(process, limit) for process, limit in _liveness(state) if process.state in _WATCHED]
    silent = [(process, limit) for process, limit in watched if now - process.heard_mono >= limit]
    if not silent:
        state.spared = False
        return
    if now < state.spared_until:
        return
    longest = max(limit for _, limit in silent)
    spare = judge_silence(len(silent), len(watched), longest, now, spared_before=state.spared)
    if spare is not None:
        state.spared, state.spared_until = True, spare.until_mono
        state.emit(HungSpared(len(silent), len(watched)))
        return
    for process, limit in silent:
        _condemn_hung(state, process, f"gave no sign of life for {limit:g} s", now, jitter, now - process.heard_mono)


def _liveness(state: State) -> Iterator[tuple[Process, float]]:
    for process in state.roster:
        if process.unit.role in ONE_SHOTS:
            continue
        limit = state.plan_of(process).deadlines(process.unit).liveness_s
        if limit is not None:
            yield process, limit


def _end_overrides(state: State, now: float) -> None:
    for pool, override in tuple(state.overrides.items()):
        if now >= override.until_mono:
            del state.overrides[pool]
            state.emit(PoolScaled(pool, None, None))
            telling.tell_settings(state)


def next_look(state: State, now: float) -> float:
    """Return when the next deadline may pass, at most a second away: a cheap look each second needs no complete list."""
    soonest = now + LOOK_AGAIN_S
    for process in state.roster:
        if process.kill_at is not None:
            soonest = min(soonest, process.kill_at)
        elif process.state is ProcessState.BOOTING:
            soonest = min(soonest, process.boot_mono + state.plan_of(process).deadlines(process.unit).boot_s)
    for process, limit in _liveness(state):
        if process.state in _WATCHED:
            soonest = min(soonest, max(process.heard_mono + limit, state.spared_until))
    for override in state.overrides.values():
        soonest = min(soonest, override.until_mono)
    soonest = min(soonest, proven_at(state), ending.next_look(state, now))
    for health in state.healths.values():
        for unit in health.units:
            start_at = health.start_at(unit, now)
            if start_at is not None and start_at > now:
                soonest = min(soonest, start_at)
    return max(soonest, now)
