"""How a held run ends: what an executor said or how it died, until the database has acknowledged it."""

import json

import pytest

from reproq_supervisor.core.runs import Claimed, LeaseNo, Outcome, RunId
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.pool.held import RELEASED, End, Held, HeldRuns, Phase
from reproq_supervisor.pool.verdicts import cancelled_before_start, end_of_death, end_of_result, signal_name
from reproq_supervisor.process.deadlines import SoftReason

POLICY_S = 30.0


def held_run(number: int = 1, *, lease_no: int = 1, soft: SoftReason | None = None, limit_s: float | None = None) -> Held:
    claimed = Claimed(RunId(number), LeaseNo(lease_no), 1, "default", 0, "app.task", 60.0, 3, b"{}")
    return Held(claimed, lease_until=0.0, claimed_mono=0.0, soft_reason=soft, limit_s=limit_s)


def error_of(end: End) -> dict[str, object]:
    assert end.value is not None
    found: dict[str, object] = json.loads(end.value)
    return found


# -- what the executor said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "asked_s", "outcome", "delay_s"),
    [
        (Verdict.SUCCEED, None, Outcome.SUCCEED, None),
        (Verdict.SUCCEED, 5.0, Outcome.SUCCEED, None),
        (Verdict.FAIL, None, Outcome.FAIL, POLICY_S),
        (Verdict.FAIL, 5.0, Outcome.FAIL, 5.0),
        (Verdict.FAIL, 0.0, Outcome.FAIL, 0.0),
        (Verdict.FAIL_FINALLY, 5.0, Outcome.FAIL_FINALLY, None),
    ],
)
def test_a_result_ends_as_it_says_and_only_a_failure_has_a_delay(
    verdict: Verdict, asked_s: float | None, outcome: Outcome, delay_s: float | None
) -> None:
    end = end_of_result(held_run(), Result(1, verdict, b"body", delay_s=asked_s), "/logs/x", POLICY_S)
    assert end == End(outcome, b"body", delay_s, "/logs/x")


@pytest.mark.parametrize("soft", [SoftReason.TIMEOUT, SoftReason.CANCEL, SoftReason.DRAIN])
def test_a_task_that_ended_in_spite_of_the_soft_signal_ends_as_it_says(soft: SoftReason) -> None:
    assert end_of_result(held_run(soft=soft), Result(1, Verdict.SUCCEED, b"5"), None, POLICY_S) == End(Outcome.SUCCEED, b"5")


def by_result(held: Held) -> End:
    return end_of_result(held, Result(1, Verdict.STOPPED, b""), "/logs/x", POLICY_S)


def by_death(held: Held) -> End:
    return end_of_death(held, -9, "/logs/x", POLICY_S)


@pytest.mark.parametrize("how", [by_result, by_death])
class TestWhoeverWasStopped:
    def test_at_its_time_limit_fails_with_the_limit_in_words(self, how: object) -> None:
        end = how(held_run(soft=SoftReason.TIMEOUT, limit_s=1.5))  # type: ignore[operator]
        assert (end.outcome, end.delay_s, end.logs_uri) == (Outcome.FAIL, POLICY_S, "/logs/x")
        assert error_of(end) == {"kind": "timeout", "message": "stopped after 1.5 s, its time limit"}

    def test_at_the_limit_that_it_was_claimed_with_says_that_one(self, how: object) -> None:
        assert "after 60 s" in str(error_of(how(held_run(soft=SoftReason.TIMEOUT)))["message"])  # type: ignore[operator]

    def test_by_request_is_cancelled(self, how: object) -> None:
        end = how(held_run(soft=SoftReason.CANCEL))  # type: ignore[operator]
        assert (end.outcome, end.delay_s, end.logs_uri, error_of(end)["kind"]) == (Outcome.CANCEL, None, "/logs/x", "cancelled")

    @pytest.mark.parametrize("soft", [SoftReason.DRAIN, SoftReason.LEASE_LOST])
    def test_for_our_own_reasons_is_given_back_uncounted(self, how: object, soft: SoftReason) -> None:
        assert how(held_run(soft=soft)) == RELEASED  # type: ignore[operator]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (-9, {"kind": "worker_crashed", "signal": "SIGKILL", "message": "the executor was killed by SIGKILL"}),
        (-11, {"kind": "worker_crashed", "signal": "SIGSEGV", "message": "the executor was killed by SIGSEGV"}),
        (0, {"kind": "worker_crashed", "exit_code": 0, "message": "the executor exited with code 0 in the middle of the task"}),
        (3, {"kind": "worker_crashed", "exit_code": 3, "message": "the executor exited with code 3 in the middle of the task"}),
    ],
)
def test_an_executor_that_died_unasked_crashed_and_the_store_decides_about_the_delay(status: int, error: dict[str, object]) -> None:
    end = end_of_death(held_run(), status, "/logs/x", POLICY_S)
    assert (end.outcome, end.delay_s, end.logs_uri) == (Outcome.FAIL, None, "/logs/x")
    assert error_of(end) == error


def test_signals_without_a_name_have_a_number() -> None:
    assert (signal_name(15), signal_name(250)) == ("SIGTERM", "signal 250")


def test_what_never_started_ends_with_its_reason() -> None:
    cancelled = cancelled_before_start()
    assert (cancelled.outcome, error_of(cancelled)["kind"]) == (Outcome.CANCEL, "cancelled")


# -- until it is acknowledged -----------------------------------------------------------------------------------------


def test_an_ended_run_stays_held_but_takes_no_room() -> None:
    runs, first, second = HeldRuns(), held_run(1), held_run(2)
    runs.add(first)
    runs.add(second)
    assert (len(runs), runs.open) == (2, 2)
    runs.end(first, RELEASED)
    runs.end(first, End(Outcome.SUCCEED, b"5"))
    assert (len(runs), runs.open, first.phase, first.end) == (2, 1, Phase.ENDED, End(Outcome.SUCCEED, b"5"))
    assert runs.drop(RunId(1)) is first
    assert (len(runs), runs.open, runs.get(RunId(1))) == (1, 1, None)
    assert runs.drop(RunId(2)) is second
    assert (len(runs), runs.open) == (0, 0)


def test_only_the_lease_that_is_held_is_dropped() -> None:
    runs, held = HeldRuns(), held_run(1, lease_no=7)
    runs.add(held)
    assert runs.drop(RunId(1), LeaseNo(6)) is None
    assert runs.drop(RunId(2)) is None
    assert runs.values() == [held]
    assert runs.drop(RunId(1), LeaseNo(7)) is held


def test_an_ending_carries_the_fence_and_the_age_of_its_execution() -> None:
    held = held_run(5, lease_no=7)
    HeldRuns().end(held, End(Outcome.FAIL, b"{}", 3.0, "/logs/x"))
    assert held.ending(100.0).started_s_ago is None
    held.started_mono = 90.0
    ending = held.ending(100.0)
    assert (ending.result_id, ending.lease_no, ending.outcome, ending.value) == (5, 7, Outcome.FAIL, b"{}")
    assert (ending.delay_s, ending.started_s_ago, ending.logs_uri) == (3.0, 10.0, "/logs/x")
    assert held.ending(80.0).started_s_ago == 0.0
