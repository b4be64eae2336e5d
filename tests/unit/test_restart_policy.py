"""What an exit says, and what follows it: the numbers that people see in logs and in `explain`."""

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

NOW = 1000.0


@pytest.mark.parametrize(
    ("code", "may_end", "kind"),
    [
        (0, True, ExitKind.PLANNED),
        (0, False, ExitKind.ABNORMAL),  # it never became ready
        (1, True, ExitKind.ABNORMAL),
        (70, True, ExitKind.ABNORMAL),
        (None, True, ExitKind.ABNORMAL),
        (69, True, ExitKind.UNAVAILABLE),
        (69, False, ExitKind.UNAVAILABLE),
        (75, True, ExitKind.UNAVAILABLE),
        (75, False, ExitKind.UNAVAILABLE),
        (78, True, ExitKind.PERMANENT),
        (78, False, ExitKind.PERMANENT),
    ],
)
def test_an_exit_that_nobody_asked_for_is_judged_by_its_code(code: int | None, may_end: bool, kind: ExitKind) -> None:
    assert judge_exit(code, asked=False, hung=False, failed_permanently=False, may_end=may_end) is kind


@pytest.mark.parametrize("code", [None, 0, 1, 69, 70, 75, 78])
@pytest.mark.parametrize("may_end", [True, False])
@pytest.mark.parametrize("permanent", [True, False])
class TestWhateverTheCode:
    def test_an_exit_that_was_asked_for_is_planned(self, code: int | None, may_end: bool, permanent: bool) -> None:
        assert judge_exit(code, asked=True, hung=False, failed_permanently=permanent, may_end=may_end) is ExitKind.PLANNED

    @pytest.mark.parametrize("asked", [True, False])
    def test_one_that_hung_is_counted(self, code: int | None, may_end: bool, permanent: bool, asked: bool) -> None:
        assert judge_exit(code, asked=asked, hung=True, failed_permanently=permanent, may_end=may_end) is ExitKind.ABNORMAL

    def test_one_that_called_its_failure_permanent_is_believed(self, code: int | None, may_end: bool, permanent: bool) -> None:
        assert judge_exit(code, asked=False, hung=False, failed_permanently=True, may_end=may_end) is ExitKind.PERMANENT


def test_pauses_double_from_half_a_second_to_a_minute() -> None:
    pauses = [backoff_s(RestartPolicy(), failures, 0.0) for failures in range(1, 11)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_jitter_takes_off_up_to_half() -> None:
    assert [backoff_s(RestartPolicy(), 3, jitter) for jitter in (0.0, 0.25, 0.5, 1.0)] == [2.0, 1.75, 1.5, 1.0]
    assert backoff_s(RestartPolicy(), 100, 0.5) == 45.0


def test_pauses_for_a_missing_dependency_stay_short() -> None:
    policy = RestartPolicy()
    assert [backoff_s(policy, failures, 0.0, cap_s=policy.unavailable_cap_s) for failures in (1, 4, 5, 50)] == [0.5, 4.0, 5.0, 5.0]


def test_a_thousand_failures_still_have_a_pause() -> None:
    assert backoff_s(RestartPolicy(), 10**9, 0.0) == 60.0
    assert backoff_s(RestartPolicy(cap_s=1e30), 10_000, 0.0) == 0.5 * 2.0**60


def test_the_exit_after_the_allowed_ones_means_quarantine() -> None:
    deaths = tuple(NOW - age for age in (4, 3, 2, 1, 0))
    assert decide_restart(RestartPolicy(), 5, deaths, NOW, 0.0) == RestartIn(8.0)
    assert decide_restart(RestartPolicy(), 6, (NOW - 5, *deaths), NOW, 0.0) == Quarantine(30.0)


def test_an_exit_as_old_as_the_window_does_not_count() -> None:
    recent = tuple(NOW - age for age in (4, 3, 2, 1, 0))
    assert decide_restart(RestartPolicy(), 6, (NOW - 60.0, *recent), NOW, 0.0) == RestartIn(16.0)
    assert decide_restart(RestartPolicy(), 6, (NOW - 59.9, *recent), NOW, 0.0) == Quarantine(30.0)


@pytest.mark.parametrize(("slots", "allowed"), [(0, 5), (1, 5), (2, 7), (4, 10), (9, 15), (16, 20), (100, 50)])
def test_the_allowance_of_a_group_grows_with_the_root_of_its_size(slots: int, allowed: int) -> None:
    assert RestartPolicy(slots=slots).allowed_exits == allowed


def test_probes_become_rarer() -> None:
    assert [probe_pause_s(RestartPolicy(), failed) for failed in range(6)] == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    assert probe_pause_s(RestartPolicy(), 10_000) == 300.0
    assert probe_pause_s(RestartPolicy(probe_cap_s=1e30), 10_000) == 30.0 * 2.0**60


def test_health_is_sustained_when_it_lasts_longer_than_every_pause_and_ten_boots() -> None:
    assert healthy_after_s(RestartPolicy(), 0.0) == 60.0
    assert healthy_after_s(RestartPolicy(), 6.0) == 60.0
    assert healthy_after_s(RestartPolicy(), 30.0) == 300.0
