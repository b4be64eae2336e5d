"""The proof: what was planned, what the tasks said, what the database says and who was killed, held against each other. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from reproq_supervisor.cli.torture.recorder import Execution, How
from reproq_supervisor.cli.torture.workload import Planned
from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.torture import RunOutcome

# A death may be found out late, and what waited in a dead process's buffer is given back later still.
_EXPLAINS_FOR_S = 120.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that we killed, and when (monotonic)."""

    kind: str
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time, in seconds."""

    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out.

    Attributes:
      offenders: whatever breaks a promise, in sentences; empty is the point of it all.
      lost: tasks without a record, and those that have not ended.
      twice: tasks that came to their end more than once; allowed after a kill only.
      broken: executions that were cut off.
      most_at_once: by key, how many of its tasks ran at the same time.
      per_s: tasks a second, from the enqueue to the last end.
      waited: from enqueue to start; ran: from the first start to the end; both by the database.
    """

    count: int
    ended: int
    lost: int
    twice: int
    executions: int
    broken: int
    most_at_once: Mapping[str, int]
    per_s: float
    waited: Spread
    ran: Spread
    offenders: list[str] = field(default_factory=list)


def judge(
    planned: Mapping[RunId, Planned],
    outcomes: Mapping[RunId, RunOutcome],
    executions: Sequence[Execution],
    kills: Sequence[Kill],
    *,
    began: float,
    allows_kills: bool,
) -> Verdict:
    """Hold everything against everything.

    Args:
      planned: by the id that the enqueue gave.
      executions: in order of their starts.
      began: when the enqueue began (monotonic).
      allows_kills: without them each task has exactly the attempts that it was planned to have.
    """
    by_name: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        by_name[execution.name].append(execution)
    offenders: list[str] = []
    for run, plan in planned.items():
        offenders += _of_run(run, plan, outcomes.get(run), by_name[plan.name], kills, allows_kills=allows_kills)
    most = _most_at_once(planned.values(), by_name)
    limits = {plan.key: plan.limit for plan in planned.values() if plan.key}
    offenders += [f"{key}: expected at most {limits[key]} at once, found {count}" for key, count in most.items() if count > limits[key]]
    known = {plan.name for plan in planned.values()}
    offenders += [f"{name}: expected only what was planned to run, found this" for name in by_name if name not in known]
    done = {name: sum(each.how is How.DONE for each in runs) for name, runs in by_name.items()}
    ended = [each for each in outcomes.values() if each.lane_state is None]
    last = max((each.ended for each in executions if each.how is How.DONE), default=began)
    return Verdict(
        count=len(planned),
        ended=len(ended),
        lost=len(planned) - len(ended),
        twice=sum(count > 1 for count in done.values()),
        executions=len(executions),
        broken=sum(each.how is How.BROKEN for each in executions),
        most_at_once=most,
        per_s=len(ended) / max(last - began, 1e-6),
        waited=spread(each.waited_s for each in ended),
        ran=spread(each.ran_s for each in ended),
        offenders=offenders,
    )


def _of_run(
    run: RunId, plan: Planned, outcome: RunOutcome | None, runs: Sequence[Execution], kills: Sequence[Kill], *, allows_kills: bool
) -> Iterable[str]:
    """Say what is wrong with one task."""
    who = f"task {run} ({plan.name} of {plan.queue})"
    done = [each for each in runs if each.how is How.DONE]
    if outcome is None:
        yield f"{who}: expected its record, found none"
    elif outcome.lane_state is not None:
        parked = f", {outcome.park_reason}" if outcome.park_reason else ""
        yield f"{who}: expected to have ended, found it {outcome.lane_state}{parked}, {outcome.attempts} attempts"
    elif outcome.status != RunStatus.SUCCESSFUL:
        yield f"{who}: expected SUCCESSFUL, found {outcome.status}: {outcome.last_error or 'without an error'}"
    elif not done:
        yield f"{who}: expected an execution that came to its end, since it is {outcome.status}; found none among {len(runs)}"
    elif outcome.return_json != done[-1].id:
        yield f"{who}: expected the result of its last execution, {done[-1].id}, found {outcome.return_json!r}"
    elif not allows_kills and (outcome.attempts, outcome.errors) != (1 + plan.fails_once, int(plan.fails_once)):
        expected = f"{1 + plan.fails_once} attempts and {int(plan.fails_once)} errors"
        yield f"{who}: expected {expected}, found {outcome.attempts} and {outcome.errors}"
    for earlier, later in pairwise(runs):
        if later.began < earlier.ended:
            overlap_s = min(earlier.ended, later.ended) - later.began
            yield f"{who}: expected one execution at a time, found two that overlap by {overlap_s:.3f} s"
        if earlier.how is not How.FAILED and not _explained(earlier, later, kills):
            after_s = later.began - earlier.began
            yield f"{who}: expected no second execution without a kill before it, found one {after_s:.3f} s after the first"


def _explained(earlier: Execution, later: Execution, kills: Sequence[Kill]) -> bool:
    return any(earlier.began - _EXPLAINS_FOR_S <= kill.at <= later.began for kill in kills)


def _most_at_once(planned: Iterable[Planned], by_name: Mapping[str, Sequence[Execution]]) -> dict[str, int]:
    steps: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for plan in planned:
        if plan.key is not None:
            steps[plan.key] += [step for each in by_name.get(plan.name, ()) for step in ((each.began, 1), (each.ended, -1))]
    most: dict[str, int] = {}
    for key, changes in sorted(steps.items()):
        now = most[key] = 0
        for _, change in sorted(changes):  # of one moment, ends come first
            now += change
            most[key] = max(most[key], now)
    return most


def spread(values_s: Iterable[float | None]) -> Spread:
    """Return the percentiles (nearest rank) of those that are known; zeros of nothing."""
    ordered = sorted(value for value in values_s if value is not None) or [0.0]
    return Spread(*(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.9, 0.99, 1.0)))
