"""What torture proves: each way in which tasks, database and kills can contradict each other is named."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from reproq_supervisor.cli.torture.proof import Kill, Verdict, judge, spread
from reproq_supervisor.cli.torture.recorder import Execution, How
from reproq_supervisor.cli.torture.workload import Planned
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.torture import RunOutcome

PLAIN = Planned("t0", "mail")
RUN = RunId(7)


def outcome(**parts: Any) -> RunOutcome:
    return replace(RunOutcome(RUN, "SUCCESSFUL", return_json="e1", waited_s=0.1, ran_s=0.2), **parts)


def execution(name: str = "t0", id: str = "e1", began: float = 1.0, ended: float = 2.0, how: How = How.DONE) -> Execution:
    return Execution(name, id, began, ended, how)


def judged(
    *executions: Execution, plan: Planned = PLAIN, found: RunOutcome | None = None, kills: Sequence[Kill] = (), allows_kills: bool = False
) -> Verdict:
    outcomes = {RUN: found} if found is not None else {}
    return judge({RUN: plan}, outcomes, executions, kills, began=0.0, allows_kills=allows_kills or bool(kills))


def test_what_agrees_offends_nobody() -> None:
    verdict = judged(execution(), found=outcome())
    assert verdict.offenders == []
    assert (verdict.ended, verdict.lost, verdict.twice, verdict.broken, verdict.per_s) == (1, 0, 0, 0, 0.5)


@pytest.mark.parametrize(
    ("executions", "found", "word"),
    [
        ([], None, "expected its record, found none"),
        ([], outcome(status="READY", lane_state="parked", park_reason="key"), "expected to have ended, found it parked, key"),
        ([execution()], outcome(status="FAILED", last_error="it broke"), "expected SUCCESSFUL, found FAILED: it broke"),
        ([], outcome(), "found none among 0"),
        ([execution(how=How.BROKEN)], outcome(), "found none among 1"),
        ([execution()], outcome(return_json="e2"), "expected the result of its last execution, e1, found 'e2'"),
        ([execution()], outcome(attempts=2), "expected 1 attempts and 0 errors, found 2 and 0"),
        ([execution(), execution(id="e2", began=3.0)], outcome(return_json="e2"), "expected no second execution without a kill"),
    ],
)
def test_a_contradiction_is_named_with_its_task(executions: list[Execution], found: RunOutcome | None, word: str) -> None:
    (told,) = judged(*executions, found=found).offenders
    assert told.startswith("task 7 (t0 of mail): ")
    assert word in told


def test_what_nobody_planned_is_an_offender() -> None:
    assert judged(execution(), execution(name="t1"), found=outcome()).offenders == ["t1: expected only what was planned to run, found this"]


def test_an_attempt_that_was_told_to_fail_is_followed_by_another() -> None:
    plan = replace(PLAIN, fails_once=True)
    both = [execution(id="e0", began=0.0, ended=0.5, how=How.FAILED), execution()]
    assert judged(*both, plan=plan, found=outcome(attempts=2, errors=1)).offenders == []
    assert len(judged(*both, plan=plan, found=outcome()).offenders) == 1


@pytest.mark.parametrize(("at", "explains"), [(2.5, True), (0.9, True), (3.1, False), (-200.0, False)])
def test_a_second_execution_is_allowed_after_a_kill_and_not_before(at: float, explains: bool) -> None:
    twice = [execution(), execution(id="e2", began=3.0, ended=4.0)]
    verdict = judged(*twice, found=outcome(return_json="e2"), kills=[Kill("shard", 1, at)])
    assert (verdict.offenders == []) == explains
    assert verdict.twice == 1


def test_no_kill_allows_two_executions_at_once() -> None:
    both = [execution(how=How.BROKEN), execution(id="e2", began=1.5)]
    (told,) = judged(*both, found=outcome(return_json="e2"), kills=[Kill("shard", 1, 1.0)]).offenders
    assert "two that overlap by 0.500 s" in told


def test_a_key_with_more_than_it_admits_is_named() -> None:
    planned = {RunId(n): Planned(f"t{n}", "mail", key="limit 1", limit=2) for n in range(4)}
    outcomes = {run: RunOutcome(run, "SUCCESSFUL", return_json=f"e{run}") for run in planned}
    # The last one begins at the moment at which the first one ends.
    spans = [(1.0, 3.0), (1.5, 2.5), (2.0, 4.0), (3.0, 4.0)]
    executions = [execution(f"t{n}", f"e{n}", *span) for n, span in enumerate(spans)]
    verdict = judge(planned, outcomes, executions, [], began=0.0, allows_kills=False)
    assert verdict.offenders == ["limit 1: expected at most 2 at once, found 3"]
    assert verdict.most_at_once == {"limit 1": 3}


def test_percentiles_are_of_what_is_known() -> None:
    found = spread([None, *(n / 100 for n in range(100))])
    assert (found.p50_s, found.p90_s, found.p99_s, found.max_s) == (0.5, 0.9, 0.99, 0.99)
    assert spread([]).max_s == 0.0
