"""The account of a group: pauses, quarantine, the half-open probe, and forgiveness."""

import pytest

from reproq_supervisor.core.policy.restart import ExitKind, RestartPolicy
from reproq_supervisor.core.supervision.health import Circuit, Health
from reproq_supervisor.core.supervision.units import Role, Unit

ONE, TWO = Unit(Role.SHARD, "mail", 0), Unit(Role.SHARD, "mail", 1)
NOW = 1000.0


def crash(health: Health, unit: Unit, now: float, jitter: float = 0.0) -> None:
    health.note_death(unit, ExitKind.ABNORMAL, "crashed", now, jitter)


def quarantined(policy: RestartPolicy | None = None) -> Health:
    """Return the account of a group that went into quarantine at NOW."""
    health = Health(policy or RestartPolicy())
    for _ in range(6):
        crash(health, ONE, NOW)
    assert health.circuit is Circuit.OPEN
    return health


def probing() -> Health:
    """Return the account of a group whose first probe, ONE, started at NOW + 30."""
    health = quarantined()
    assert health.note_start(ONE, NOW + 30.0)
    return health


def test_a_new_unit_may_start_at_once() -> None:
    at = Health(RestartPolicy()).start_at(ONE, NOW)
    assert at is not None
    assert at <= NOW


def test_two_starts_of_a_unit_are_a_tenth_of_a_second_apart() -> None:
    health = Health(RestartPolicy())
    assert not health.note_start(ONE, NOW)
    assert health.start_at(ONE, NOW) == NOW + 0.1
    assert health.start_at(TWO, NOW) == 0.0
    assert health.of(ONE).starts == 1


def test_pauses_after_crashes_are_those_of_the_policy_with_the_given_jitter() -> None:
    health = Health(RestartPolicy(exits=100))
    pauses = []
    for jitter in (0.0, 0.0, 0.5, 0.0):
        crash(health, ONE, NOW, jitter)
        pauses.append(health.of(ONE).not_before - NOW)
    assert pauses == [0.5, 1.0, 1.5, 4.0]


def test_each_unit_has_its_own_pauses_and_all_share_one_count() -> None:
    health = Health(RestartPolicy())
    for unit in (ONE, TWO) * 2:
        crash(health, unit, NOW)
    assert (health.of(ONE).failures, health.of(TWO).failures, len(health.deaths)) == (2, 2, 4)
    crash(health, ONE, NOW)
    assert health.circuit is Circuit.CLOSED
    crash(health, TWO, NOW)
    assert health.circuit is Circuit.OPEN


def test_crashes_further_apart_than_the_window_never_mean_quarantine() -> None:
    health = Health(RestartPolicy())
    for crash_no in range(50):
        crash(health, ONE, NOW + 12.0 * crash_no)
        assert health.circuit is Circuit.CLOSED
    assert len(health.deaths) == 5


def test_planned_exits_are_free_but_do_not_spin() -> None:
    health = Health(RestartPolicy())
    for at in range(100):
        health.note_start(ONE, NOW + at)
        health.note_death(ONE, ExitKind.PLANNED, "left", NOW + at + 0.2, 0.0)
        assert health.start_at(ONE, NOW) == NOW + at + 0.5
    assert (health.of(ONE).failures, health.deaths, health.circuit) == (0, [], Circuit.CLOSED)
    health.note_death(ONE, ExitKind.PLANNED, "left", NOW + 500.0, 0.0)
    assert health.start_at(ONE, NOW) == NOW + 500.0


def test_a_missing_dependency_is_waited_for_in_short_pauses_and_for_ever() -> None:
    health = Health(RestartPolicy())
    pauses = []
    for _ in range(20):
        health.note_death(ONE, ExitKind.UNAVAILABLE, "no database", NOW, 0.0)
        pauses.append(health.of(ONE).not_before - NOW)
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert set(pauses[5:]) == {5.0}
    assert (health.circuit, health.deaths) == (Circuit.CLOSED, [])


def test_what_cannot_work_is_not_tried_again() -> None:
    health = Health(RestartPolicy())
    health.note_death(ONE, ExitKind.PERMANENT, "exited with code 78", NOW, 0.0)
    assert (health.circuit, health.reason, health.can_start) == (Circuit.REFUSED, "exited with code 78", False)
    assert health.start_at(ONE, NOW + 1e6) is None
    assert health.start_at(TWO, NOW + 1e6) is None


def test_in_quarantine_nobody_starts_until_the_probe() -> None:
    health = quarantined()
    assert (health.start_at(ONE, NOW), health.start_at(TWO, NOW)) == (NOW + 30.0, NOW + 30.0)
    assert (health.reason, health.can_start) == ("crashed", True)


def test_a_quarantine_is_half_open_for_one_probe_alone() -> None:
    health = probing()
    assert health.circuit is Circuit.PROBING
    assert health.start_at(TWO, NOW + 1e6) is None
    at = health.start_at(ONE, NOW + 31.0)
    assert at == NOW + 30.1, "the probe that left by itself may be started again"
    assert not health.note_start(ONE, NOW + 31.0), "which is no new probe"


def test_failed_probes_become_rarer() -> None:
    health, now, pauses = probing(), NOW + 30.0, []
    for _ in range(5):
        crash(health, ONE, now)
        assert health.circuit is Circuit.OPEN
        pauses.append(health.probe_at - now)
        now = health.probe_at
        assert health.note_start(ONE, now)
    assert pauses == [60.0, 120.0, 240.0, 300.0, 300.0]


def test_the_crash_of_another_unit_is_not_the_failure_of_the_probe() -> None:
    health = probing()
    crash(health, TWO, NOW + 31.0)
    assert (health.circuit, health.probe, health.failed_probes) == (Circuit.PROBING, ONE, 0)


def test_crashes_in_quarantine_do_not_put_off_the_probe() -> None:
    health = quarantined()
    crash(health, TWO, NOW + 20.0)
    assert health.probe_at == NOW + 30.0


def test_a_probe_that_cannot_reach_its_dependency_stays_the_probe() -> None:
    health = probing()
    health.note_death(ONE, ExitKind.UNAVAILABLE, "no database", NOW + 31.0, 0.0)
    assert health.circuit is Circuit.PROBING
    at = health.start_at(ONE, NOW + 31.0)
    assert at is not None
    assert at > NOW + 31.0


def test_a_probe_that_fails_for_good_ends_the_trying() -> None:
    health = probing()
    health.note_death(ONE, ExitKind.PERMANENT, "bad module", NOW + 31.0, 0.0)
    assert (health.circuit, health.probe) == (Circuit.REFUSED, None)


def test_a_probe_that_stays_ready_for_ten_seconds_frees_the_group() -> None:
    health = probing()
    assert not health.note_health(ONE, 9.9, 0.1)
    assert not health.note_health(TWO, 10.0, 0.1)
    assert health.circuit is Circuit.PROBING
    assert health.note_health(ONE, 10.0, 0.1)
    assert (health.circuit, health.deaths, health.of(ONE).failures, health.start_at(TWO, NOW)) == (Circuit.CLOSED, [], 0, 0.0)


def test_failures_are_forgotten_after_a_sustained_time_only() -> None:
    health = Health(RestartPolicy())
    crash(health, ONE, NOW)
    crash(health, TWO, NOW)
    assert not health.note_health(ONE, 59.9, 1.0)
    assert health.of(ONE).failures == 1
    assert not health.note_health(ONE, 60.0, 1.0)
    assert (health.of(ONE).failures, health.of(TWO).failures) == (0, 1)


def test_who_boots_slowly_must_be_healthy_for_ten_times_as_long() -> None:
    health = Health(RestartPolicy())
    crash(health, ONE, NOW)
    health.note_health(ONE, 199.0, 20.0)
    assert health.of(ONE).failures == 1
    health.note_health(ONE, 200.0, 20.0)
    assert health.of(ONE).failures == 0


def test_a_probe_that_is_wanted_no_more_passes_to_another() -> None:
    health = probing()
    health.note_gone(TWO, NOW + 31.0)
    assert health.circuit is Circuit.PROBING
    health.note_gone(ONE, NOW + 31.0)
    assert (health.circuit, health.start_at(TWO, NOW), health.reason) == (Circuit.OPEN, NOW + 31.0, "crashed")
    assert health.note_start(TWO, NOW + 31.0)


@pytest.mark.parametrize("make", [quarantined, probing])
def test_a_reset_forgets_everything(make: object) -> None:
    health: Health = make()  # type: ignore[operator]
    health.reset()
    assert (health.circuit, health.probe, health.failed_probes, health.reason) == (Circuit.CLOSED, None, 0, "")
    assert (health.deaths, health.of(ONE).failures, health.start_at(ONE, NOW)) == ([], 0, 0.0)
