"""What follows a death: back-off, quarantine, and which exits count at all."""

import pytest

from reproq_supervisor.core.policy.restart import (
    ExitKind,
    Quarantine,
    RestartIn,
    RestartPolicy,
    backoff_s,
    decide_restart,
    healthy_after_s,
    judge_exit,
    probe_pause_s,
)

POLICY = RestartPolicy()


def judge(code: int | None, **changes: bool) -> ExitKind:
    facts = {"asked": False, "hung": False, "failed_permanently": False, "may_end": True, **changes}
    return judge_exit(code, **facts)


def test_the_pause_doubles_from_half_a_second_to_a_minute() -> None:
    assert [backoff_s(POLICY, failures, 0.0) for failures in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_takes_up_to_half_of_the_pause_away() -> None:
    assert backoff_s(POLICY, 3, 0.999) == pytest.approx(1.0, abs=0.01)


def test_the_pause_is_bounded_after_any_number_of_failures() -> None:
    assert backoff_s(POLICY, 10**9, 0.0) == 60.0


def test_five_exits_in_a_minute_are_borne_and_six_are_not() -> None:
    assert decide_restart(POLICY, 5, tuple(range(5)), 5.0, 0.0) == RestartIn(8.0)
    assert decide_restart(POLICY, 6, tuple(range(6)), 6.0, 0.0) == Quarantine(30.0)


def test_exits_outside_of_the_window_are_forgotten() -> None:
    assert isinstance(decide_restart(POLICY, 6, (0.0, 1.0, 2.0, 3.0, 4.0, 64.5), 64.5, 0.0), RestartIn)


def test_a_larger_pool_bears_more_exits_but_not_in_proportion() -> None:
    assert [RestartPolicy(slots=slots).allowed_exits for slots in (1, 4, 16, 100)] == [5, 10, 20, 50]


def test_probes_become_rarer_up_to_five_minutes() -> None:
    assert [probe_pause_s(POLICY, failed) for failed in range(6)] == [30, 60, 120, 240, 300, 300]


def test_health_must_last_longer_than_the_longest_pause_and_ten_boots() -> None:
    assert healthy_after_s(POLICY, 0.5) == 60.0
    assert healthy_after_s(POLICY, 20.0) == 200.0


@pytest.mark.parametrize("code", [0, 1, 70, 78, None])
def test_what_was_asked_to_leave_is_planned_however_it_leaves(code: int | None) -> None:
    assert judge(code, asked=True) is ExitKind.PLANNED


@pytest.mark.parametrize("code", [0, 70, None])
def test_what_hung_counts_even_if_it_was_asked_to_leave(code: int | None) -> None:
    assert judge(code, asked=True, hung=True) is ExitKind.ABNORMAL


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, ExitKind.PLANNED),
        (1, ExitKind.ABNORMAL),
        (69, ExitKind.UNAVAILABLE),
        (70, ExitKind.ABNORMAL),
        (75, ExitKind.UNAVAILABLE),
        (78, ExitKind.PERMANENT),
        (None, ExitKind.ABNORMAL),
    ],
)
def test_exit_codes_mean_what_the_architecture_says(code: int | None, kind: ExitKind) -> None:
    assert judge(code) is kind


def test_a_clean_exit_before_readiness_is_a_failure() -> None:
    assert judge(0, may_end=False) is ExitKind.ABNORMAL


def test_who_said_that_it_is_hopeless_is_believed_whatever_the_code() -> None:
    assert judge(70, failed_permanently=True) is ExitKind.PERMANENT
