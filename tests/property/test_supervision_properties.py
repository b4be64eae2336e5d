"""Laws of the supervisor's decisions."""

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.restart import ExitKind, RestartPolicy, backoff_s
from reproq_supervisor.core.supervision.health import Circuit, Health
from reproq_supervisor.core.supervision.releases import BATCH, DeadWorkers
from reproq_supervisor.core.supervision.units import Role, Unit

UNITS = [Unit(Role.SHARD, "mail", shard) for shard in range(3)]
jitters = st.floats(0, 1, exclude_max=True)


@given(failures=st.integers(1, 10**6), jitter=jitters)
def test_a_pause_is_between_a_quarter_second_and_a_minute(failures: int, jitter: float) -> None:
    assert 0.25 <= backoff_s(RestartPolicy(), failures, jitter) <= 60.0


@given(failures=st.integers(1, 100), jitter=jitters)
def test_one_more_failure_never_shortens_the_pause(failures: int, jitter: float) -> None:
    assert backoff_s(RestartPolicy(), failures + 1, jitter) >= backoff_s(RestartPolicy(), failures, jitter)


exits = st.lists(st.tuples(st.sampled_from(UNITS), st.sampled_from(ExitKind), st.floats(0.01, 100), jitters), max_size=40)


@given(exits=exits, allowed=st.integers(1, 10))
def test_any_sequence_of_exits_leaves_a_way_to_start_again_unless_one_was_permanent(
    exits: list[tuple[Unit, ExitKind, float, float]], allowed: int
) -> None:
    health, now = Health(RestartPolicy(exits=allowed)), 0.0
    for unit, kind, after, jitter in exits:
        now += after
        at = health.start_at(unit, now)
        if at is not None and at <= now:
            health.note_start(unit, now)
        health.note_death(unit, kind, "x", now, jitter)
        starts = [health.start_at(each, now) for each in UNITS]
        if health.circuit is Circuit.REFUSED:
            assert starts == [None, None, None]
            continue
        soonest = min(start for start in starts if start is not None)
        assert soonest <= now + health.policy.probe_cap_s
    assert (health.circuit is Circuit.REFUSED) == any(kind is ExitKind.PERMANENT for _, kind, _, _ in exits)


@given(
    exits=st.lists(
        st.tuples(st.sampled_from(UNITS), st.sampled_from([ExitKind.PLANNED, ExitKind.UNAVAILABLE]), st.floats(0.01, 100)), max_size=60
    )
)
def test_planned_exits_and_missing_dependencies_never_lead_to_quarantine(exits: list[tuple[Unit, ExitKind, float]]) -> None:
    health, now = Health(RestartPolicy(exits=1)), 0.0
    for unit, kind, after in exits:
        now += after
        health.note_death(unit, kind, "x", now, 0.0)
    assert health.circuit is Circuit.CLOSED
    assert health.deaths == []


class ReleaseModel:
    """What must be true of dead workers: none is forgotten before a keeper has looked at it twice."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.released: set[str] = set()


steps = st.lists(
    st.one_of(st.tuples(st.just("die"), st.integers(0, 50)), st.tuples(st.sampled_from(["tell", "lose", "release", "settle"]), st.just(0)))
)


@given(steps=steps)
def test_every_dead_worker_is_told_until_it_is_settled(steps: list[tuple[str, int]]) -> None:
    dead, model, told = DeadWorkers(), ReleaseModel(), set[str]()
    for what, number in steps:
        match what:
            case "die":  # found out once or twice, it is told once
                dead.add(f"w{number}", 0.0)
                model.open |= {f"w{number}"} - model.released
            case "tell":
                batches = dead.take_untold()
                assert all(len(batch) <= BATCH for batch in batches)
                now = {worker for batch in batches for worker in batch}
                assert now == model.open - told
                told |= now
            case "lose":
                dead.forget_telling()
                told.clear()
                model.open |= model.released
                model.released.clear()
            case "release":
                dead.release(sorted(told))
                model.open -= told
                model.released |= told
                told.clear()
            case "settle":
                dead.settle(sorted(model.released))
                model.released.clear()
        assert len(dead) == len(model.open)
