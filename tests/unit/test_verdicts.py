"""From the word or the death of an executor to the ending that is written."""

import json
import signal

import pytest

from reproq_supervisor.core.runs import Claimed, LeaseNo, Outcome, RunId
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.pool import verdicts
from reproq_supervisor.pool.held import End, Held
from reproq_supervisor.process.deadlines import SoftReason

BODY = b'{"kind":"app_error"}'


def held(soft_reason: SoftReason | None = None) -> Held:
    claimed = Claimed(RunId(1), LeaseNo(1), 1, "default", 0, "a.b", 60.0, 3, b"{}")
    return Held(claimed, lease_until=0.0, claimed_mono=0.0, soft_reason=soft_reason)


def result(verdict: Verdict, delay_s: float | None = None) -> Result:
    return Result(1, verdict, BODY, delay_s=delay_s)


def error_of(end: End) -> dict[str, object]:
    assert end.value is not None
    return dict(json.loads(end.value))


@pytest.mark.parametrize(
    ("verdict", "outcome", "delay_s"),
    [(Verdict.SUCCEED, Outcome.SUCCEED, None), (Verdict.FAIL, Outcome.FAIL, 9.0), (Verdict.FAIL_FINALLY, Outcome.FAIL_FINALLY, None)],
)
def test_the_word_of_an_executor_is_passed_on(verdict: Verdict, outcome: Outcome, delay_s: float | None) -> None:
    assert verdicts.end_of_result(held(), result(verdict), "/log", 9.0) == End(outcome, BODY, delay_s, "/log")


def test_a_task_may_ask_for_its_own_delay() -> None:
    assert verdicts.end_of_result(held(), result(Verdict.FAIL, delay_s=0.0), None, 9.0).delay_s == 0.0


@pytest.mark.parametrize("verdict", [Verdict.SUCCEED, Verdict.FAIL])
def test_a_task_that_ended_by_itself_after_it_was_asked_to_stop_ended_by_itself(verdict: Verdict) -> None:
    assert verdicts.end_of_result(held(SoftReason.TIMEOUT), result(verdict), None, 9.0).value == BODY


def test_a_time_limit_is_a_failure_with_the_delay_of_the_policy() -> None:
    one = held(SoftReason.TIMEOUT)
    one.limit_s = 0.5
    end = verdicts.end_of_result(one, result(Verdict.STOPPED), "/log", 9.0)
    assert (end.outcome, end.delay_s, end.logs_uri) == (Outcome.FAIL, 9.0, "/log")
    assert error_of(end) == {"kind": "timeout", "message": "stopped after 0.5 s, its time limit"}
    assert verdicts.end_of_death(one, -9, "/log", 9.0) == end


@pytest.mark.parametrize("reason", [SoftReason.DRAIN, SoftReason.LEASE_LOST])
def test_who_is_stopped_through_no_fault_of_its_own_is_released(reason: SoftReason) -> None:
    assert verdicts.end_of_result(held(reason), result(Verdict.STOPPED), None, 9.0).outcome is Outcome.RELEASE
    assert verdicts.end_of_death(held(reason), -9, None, 9.0).outcome is Outcome.RELEASE


def test_the_one_that_may_have_killed_its_nursery_is_released_with_that_suspicion() -> None:
    end = verdicts.end_of_death(held(SoftReason.BEREFT), -9, "/log", 9.0)
    assert (end.outcome, end.delay_s, end.logs_uri) == (Outcome.RELEASE, None, "/log")
    assert error_of(end)["kind"] == "worker_crashed"


def test_a_cancelled_task_ends_as_cancelled() -> None:
    for end in (
        verdicts.end_of_result(held(SoftReason.CANCEL), result(Verdict.STOPPED), None, 9.0),
        verdicts.end_of_death(held(SoftReason.CANCEL), -9, None, 9.0),
        verdicts.cancelled_before_start(),
    ):
        assert (end.outcome, error_of(end)["kind"]) == (Outcome.CANCEL, "cancelled")


def test_a_task_that_nobody_asked_to_stop_and_that_says_it_was_is_released() -> None:
    assert verdicts.end_of_result(held(), result(Verdict.STOPPED), None, 9.0).outcome is Outcome.RELEASE


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (3, {"exit_code": 3, "message": "the executor exited with code 3 in the middle of the task"}),
        (-signal.SIGSEGV, {"signal": "SIGSEGV", "message": "the executor was killed by SIGSEGV"}),
        (-77, {"signal": "signal 77", "message": "the executor was killed by signal 77"}),
    ],
)
def test_a_crash_says_how_the_executor_ended_and_leaves_the_delay_to_the_store(status: int, fields: dict[str, object]) -> None:
    end = verdicts.end_of_death(held(), status, "/log", 9.0)
    assert (end.outcome, end.delay_s, end.logs_uri) == (Outcome.FAIL, None, "/log")
    assert error_of(end) == {"kind": "worker_crashed", **fields}
