"""What pg_cron calls: whenever its job starts, it names the firing that the line means, and enters it once. No extension is needed here."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.keeper.beat import Beat
from reproq_supervisor.settings.cron import parse_schedule
from reproq_supervisor.store.migrate import migrate
from tests.store.actors import Keeper, ended
from tests.support.postgres import Cluster, Database

FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, ("jan", "FEB", "dec")), (0, 7, ("sun", "Mon", "fri")))


@st.composite
def field(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...]) -> str:
    numbers = st.integers(low, high)
    step = st.integers(1, 30).map(lambda n: f"/{n}")
    spans = st.tuples(numbers, numbers).map(lambda two: f"{min(two)}-{max(two)}")
    part = st.one_of(
        *(numbers.map(str), spans, st.just("*"), step.map(lambda n: f"*{n}"), st.tuples(spans, step).map("".join)),
        *([st.sampled_from(names)] if names else []),
    )
    return draw(st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join)))


LINES = st.tuples(*(field(*each) for each in FIELDS)).map(" ".join)
TIMES = st.integers(0, 15 * 365 * 86_400_000).map(lambda ms: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))


ORDINARY = (
    *(
        "* * * * *",
        "*/5 * * * *",
        "0 9-17 * * mon-fri",
        "30 2 1,15 * *",
        "0 0 13 * FRI",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "5,10-20/5 3 * jan-mar 7",
    ),
    *("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "  0  0 * *  0 "),
)


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Database]:
    """A database that no test changes."""
    with cluster.new_database(cluster.ensure_template(migrate)) as database:
        yield database


def assert_same_as_the_beat(database: Database, asked: Sequence[tuple[str, datetime]]) -> None:
    rows = database.query(
        "SELECT line, until, reproq_cron_latest(line, until) FROM unnest(%s::text[], %s::timestamptz[]) AS u (line, until)",
        [line for line, _ in asked],
        [until for _, until in asked],
    )
    for line, until, latest in rows:
        cron, zone = parse_schedule(line)
        if latest is not None:
            assert latest <= until, line
            assert next_firing(cron, zone, latest - timedelta(microseconds=1)) == latest, line
            following = next_firing(cron, zone, latest)
            assert following is None or following > until, line


@settings(max_examples=50, phases=[Phase.generate])
@given(asked=st.lists(st.tuples(LINES, TIMES), min_size=10, max_size=10))
def test_the_database_finds_no_other_firings_than_the_beat(server: Database, asked: list[tuple[str, datetime]]) -> None:
    assert_same_as_the_beat(server, asked)


@settings(max_examples=20, phases=[Phase.generate])
@given(until=TIMES)
def test_ordinary_lines_are_understood(server: Database, until: datetime) -> None:
    assert_same_as_the_beat(server, [(line, until) for line in ORDINARY])
    rows = server.query("SELECT line FROM unnest(%s::text[]) AS u (line) WHERE (reproq_cron_parts(line)).minutes IS NULL", list(ORDINARY))
    assert rows == []


@pytest.mark.parametrize(
    "line", ["H * * * *", "0 0 L * *", "0 0 * * mon#2", "* * * * * 0", "5/15 * * * *", "CRON_TZ=UTC 0 0 * * *", "22-3 * * * *", "x", ""]
)
def test_a_line_with_other_words_is_not_guessed_at(database: Database, line: str) -> None:
    assert database.query("SELECT reproq_cron_latest(%s, now())", line) == [(None,)]


def add(database: Database, name: str, line: str, due: str, **columns: object) -> None:
    row = {"cron_expr": line, "task_path": "app.task", **columns}
    names, values = ", ".join(row), ", ".join(["%s"] * len(row))
    database.query(f"INSERT INTO periodic_tasks (name, next_run_at, {names}) VALUES (%s, {due}, {values})", name, *row.values())


def fire(database: Database, name: str) -> None:
    database.query("SELECT reproq_enqueue_periodic_task(%s)", name)


def assert_each_firing_once(database: Database) -> None:
    assert database.query("SELECT count(*) - count(DISTINCT (name, fire_at)) FROM reproq_firings") == [(0,)]
    assert database.query("SELECT count(*) FROM task_runs") == database.query("SELECT count(DISTINCT result_id) FROM reproq_firings")


def test_a_job_that_starts_late_names_the_firing_that_it_is(database: Database, keeper: Keeper) -> None:
    add(database, "hourly", "0 * * * *", "date_trunc('hour', now())")
    add(database, "daily", "@daily", "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'")
    for name in ("hourly", "daily", "hourly", "daily"):
        fire(database, name)
    keeper.run(Beat(lambda _: None).run(keeper.store.schedules))
    found = database.query("SELECT name, extract(epoch FROM fire_at)::bigint % 3600, count(*) FROM reproq_firings GROUP BY 1, 2 ORDER BY 1")
    assert [(name, rest) for name, rest, _ in found] == [("daily", 0), ("hourly", 0)]
    assert all(count <= 2 for *_, count in found)  # two, if an hour or a day began in between
    assert_each_firing_once(database)


def test_jobs_and_beats_at_once_enter_each_firing_once(database: Database) -> None:
    add(database, "minutely", "* * * * *", "date_trunc('minute', now())")
    together = threading.Barrier(6)

    def job() -> None:
        with database.connect() as connection:
            for _ in range(10):
                together.wait(60)
                connection.execute("SELECT reproq_enqueue_periodic_task('minutely')")

    def beat() -> None:
        with ended(keeper := Keeper(database.dsn)):
            for _ in range(10):
                together.wait(60)
                keeper.run(Beat(lambda _: None).run(keeper.store.schedules))

    threads = [threading.Thread(target=each) for each in (job, job, job, job, beat, beat)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert_each_firing_once(database)
    assert database.query("SELECT count(*) > 0, bool_and(extract(second FROM fire_at) = 0) FROM reproq_firings") == [(True, True)]


def test_what_an_older_beat_has_fired_is_not_fired_again(database: Database) -> None:
    add(database, "s", "@hourly", "date_trunc('hour', now()) + interval '1 h'", last_run_at=datetime.now(UTC) + timedelta(minutes=1))
    fire(database, "s")
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


def test_an_overlap_is_skipped_under_the_firings_own_time(database: Database) -> None:
    add(database, "s", "* * * * *", "now()", overlap="skip")
    fire(database, "s")
    # As if that had been the minute before.
    database.query("UPDATE reproq_firings SET fire_at = fire_at - interval '1 min'")
    database.query("UPDATE periodic_tasks SET last_run_at = last_run_at - interval '1 min'")
    fire(database, "s")
    assert database.query("SELECT outcome, extract(second FROM fire_at) FROM reproq_firings ORDER BY fire_at")[1] == ("skipped", 0)
    assert_each_firing_once(database)


def test_a_line_that_only_the_program_understands_needs_its_meaning_in_the_job(database: Database) -> None:
    add(database, "spread", "H 3 * * *", "now()")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"schedule spread: expected a line in UTC"):
        fire(database, "spread")
    database.query("SELECT reproq_enqueue_periodic_task('spread', '17 3 * * *')")
    assert database.query("SELECT extract(hour FROM fire_at AT TIME ZONE 'UTC'), extract(minute FROM fire_at) FROM reproq_firings") == [
        (3, 17)
    ]


def test_a_schedule_that_was_given_a_zone_since_is_left_to_the_beat(database: Database) -> None:
    add(database, "far", "0 3 * * *", "now()", timezone="Asia/Tokyo")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Asia/Tokyo"):
        fire(database, "far")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Asia/Tokyo"):
        database.query("SELECT reproq_enqueue_periodic_task('far', '0 3 * * *')")
