"""A group's account: back-off, quarantine, half-open probe, refusal."""

from reproq_supervisor.core.policy.restart import ExitKind, RestartPolicy
from reproq_supervisor.core.supervision.health import PROBE_HEALTHY_S, Circuit, Health
from reproq_supervisor.core.supervision.units import Role, Unit

FIRST, SECOND = Unit(Role.SHARD, "mail", 0), Unit(Role.SHARD, "mail", 1)


def crash(health: Health, unit: Unit = FIRST, now: float = 0.0) -> None:
    health.note_death(unit, ExitKind.ABNORMAL, "exited with code 70", now, 0.0)


def quarantined(now: float = 100.0) -> Health:
    health = Health(RestartPolicy(exits=2))
    for _ in range(3):
        crash(health, now=now)
    assert health.circuit is Circuit.OPEN
    return health


def test_a_crash_delays_its_own_unit_only() -> None:
    health = Health(RestartPolicy())
    crash(health, FIRST, now=10.0)
    assert health.start_at(FIRST, 10.0) == 10.5
    assert health.start_at(SECOND, 10.0) == 0.0


def test_quarantine_stops_every_unit_until_the_probe() -> None:
    health = quarantined(now=100.0)
    assert health.start_at(FIRST, 100.0) == 130.0
    assert health.start_at(SECOND, 100.0) == 130.0


def test_one_unit_is_probed_and_the_others_wait() -> None:
    health = quarantined()
    assert health.note_start(SECOND, 130.0) is True
    assert health.circuit is Circuit.PROBING
    assert health.start_at(FIRST, 1e9) is None


def test_a_failed_probe_doubles_the_pause() -> None:
    health = quarantined()
    health.note_start(FIRST, 130.0)
    crash(health, FIRST, now=140.0)
    assert health.circuit is Circuit.OPEN
    assert health.start_at(FIRST, 140.0) == 200.0


def test_a_probe_that_stays_healthy_ends_the_quarantine_for_all() -> None:
    health = quarantined()
    health.note_start(FIRST, 130.0)
    assert health.note_health(FIRST, PROBE_HEALTHY_S - 0.1, 0.5) is False
    assert health.note_health(FIRST, PROBE_HEALTHY_S, 0.5) is True
    assert health.circuit is Circuit.CLOSED
    assert health.start_at(SECOND, 141.0) == 0.0


def test_a_probe_whose_dependency_is_away_is_tried_again_without_blame() -> None:
    health = quarantined()
    health.note_start(FIRST, 130.0)
    health.note_death(FIRST, ExitKind.UNAVAILABLE, "exited with code 69", 140.0, 0.0)
    assert health.circuit is Circuit.PROBING
    at = health.start_at(FIRST, 140.0)
    assert at is not None
    assert at <= 145.0


def test_a_probe_that_is_wanted_no_more_passes_on() -> None:
    health = quarantined()
    health.note_start(FIRST, 130.0)
    health.note_gone(FIRST, 140.0)
    assert health.start_at(SECOND, 140.0) == 140.0


def test_a_missing_dependency_never_leads_to_quarantine_and_is_noticed_within_seconds_when_it_returns() -> None:
    health = Health(RestartPolicy(exits=2))
    for turn in range(100):
        health.note_death(FIRST, ExitKind.UNAVAILABLE, "exited with code 69", float(turn), 0.0)
    assert health.circuit is Circuit.CLOSED
    assert health.start_at(FIRST, 99.0) == 104.0


def test_a_permanent_failure_waits_for_a_person() -> None:
    health = Health(RestartPolicy())
    health.note_death(FIRST, ExitKind.PERMANENT, "exited with code 78", 0.0, 0.0)
    assert health.start_at(FIRST, 1e12) is None
    health.reset()
    assert health.start_at(FIRST, 0.0) == 0.0


def test_failures_are_forgotten_after_sustained_health_only() -> None:
    health = Health(RestartPolicy())
    crash(health, now=0.0)
    crash(health, now=1.0)
    health.note_health(FIRST, 59.0, 0.5)
    assert health.of(FIRST).failures == 2
    health.note_health(FIRST, 60.0, 0.5)
    assert health.of(FIRST).failures == 0


def test_a_planned_exit_is_followed_at_once_but_never_faster_than_the_base_pause() -> None:
    health = Health(RestartPolicy())
    health.note_start(FIRST, 10.0)
    health.note_death(FIRST, ExitKind.PLANNED, "exited with code 0", 10.1, 0.0)
    assert health.start_at(FIRST, 10.1) == 10.5
    health.note_death(FIRST, ExitKind.PLANNED, "exited with code 0", 50.0, 0.0)
    assert health.start_at(FIRST, 50.0) == 50.0


def test_a_unit_is_never_started_twice_in_the_same_moment() -> None:
    health = Health(RestartPolicy())
    health.note_start(FIRST, 10.0)
    at = health.start_at(FIRST, 10.0)
    assert at is not None
    assert at > 10.0
