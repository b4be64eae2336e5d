"""The spec of a run is the canonical JSON of its payload, however often others like it were written before."""

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.new_run import NewRun
from tests.property.test_client_arguments import JSON, TEXTS

NAMES = TEXTS | st.none()
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=1)), timezone(-timedelta(minutes=90))])
RUNS = st.builds(
    NewRun,
    task_path=TEXTS,
    args=st.lists(JSON, max_size=3) | st.tuples(JSON),
    kwargs=st.dictionaries(TEXTS, JSON, max_size=3),
    queue_name=TEXTS,
    priority=st.integers(-3, 3) | st.booleans() | st.sampled_from([1.0, -0.0]),
    run_after=st.none() | st.datetimes(timezones=ZONES),
    max_attempts=st.integers(0, 3),
    timeout_seconds=st.integers(0, 3),
    takes_context=st.booleans(),
    lock_key=NAMES,
    concurrency_key=NAMES,
    concurrency_limit=st.integers(0, 3),
    code_ref=NAMES,
    pip_lock_hash=NAMES,
)


def canonical(run: NewRun) -> str:
    return json.dumps(run.payload(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@given(st.lists(RUNS, min_size=1, max_size=5))
def test_the_spec_is_the_payload(runs: list[NewRun]) -> None:
    for run in [*runs, *runs]:
        assert run.spec() == canonical(run)


def test_equal_values_that_are_written_in_two_ways_are_told_apart() -> None:
    at = datetime(2030, 1, 2, 3, tzinfo=UTC)
    for run in (
        NewRun("a", run_after=at),
        NewRun("a", run_after=at.astimezone(timezone(timedelta(hours=1)))),
        NewRun("a", priority=1),
        NewRun("a", priority=True),
    ):
        assert run.spec() == canonical(run)
