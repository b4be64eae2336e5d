"""What pg_cron calls: whenever its job starts, it fires what the beat would fire, and enters it once. No extension is needed here."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.core.policy.schedule import Firings, Missed, decide_firings
from reproq_supervisor.keeper.beat import Beat
from reproq_supervisor.settings.cron import parse_schedule
from reproq_supervisor.store import timetable
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


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime, datetime | None, datetime, Missed]:
    """A line, when it is due, when it fired last, what time it is, and the rule."""
    line = draw(st.one_of(LINES, st.sampled_from(ORDINARY)))
    now = draw(TIMES)
    cron, zone = parse_schedule(line)
    ago = st.one_of(st.integers(0, 200_000), st.integers(0, 86_400_000 * 3), st.integers(0, 86_400_000 * 800)).map(
        lambda ms: timedelta(milliseconds=ms)
    )
    due = now - draw(ago)
    if draw(st.booleans()) and (named := next_firing(cron, zone, due)) is not None and named <= now:
        due = named
    last = now - draw(ago) if draw(st.booleans()) else None
    if last is not None and draw(st.booleans()):
        last = next_firing(cron, zone, last) or last
    return line, due, last, now, draw(st.sampled_from(Missed))


@settings(max_examples=40, phases=[Phase.generate], deadline=None)
@given(asked=st.lists(moments(), min_size=20, max_size=20))
def test_the_database_decides_as_the_beat_does(
    server: Database, asked: list[tuple[str, datetime, datetime | None, datetime, Missed]]
) -> None:
    rows = server.query(
        "SELECT u.line, u.due, u.last, u.now, u.rule, f.times, f.next_run_at, (reproq_cron_parts(u.line)).minutes IS NOT NULL"
        " FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::text[]) AS u (line, due, last, now, rule),"
        " reproq_cron_firings(u.line, u.due, u.last, u.now, u.rule) AS f",
        *([each[column] for each in asked] for column in range(5)),
    )
    for line, due, last, now, rule, times, following, is_plain in rows:
        if is_plain:
            expected = decide_firings(due, last, now, Missed(rule), partial(next_firing, *parse_schedule(line)))
            assert Firings(tuple(times), following) == expected, (line, due, last, now, rule)


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
    add(database, "s", "* * * * *", "date_trunc('minute', now()) - interval '1 min'", overlap="skip")
    fire(database, "s")
    # As if that had been some minutes before.
    database.query("UPDATE reproq_firings SET fire_at = fire_at - interval '9 min'")
    database.query("UPDATE periodic_tasks SET last_run_at = last_run_at - interval '9 min', next_run_at = date_trunc('minute', now())")
    fire(database, "s")
    assert database.query("SELECT outcome, extract(second FROM fire_at) FROM reproq_firings ORDER BY fire_at")[1] == ("skipped", 0)
    assert_each_firing_once(database)


def test_a_line_that_only_the_program_understands_needs_its_meaning_in_the_job(database: Database) -> None:
    add(database, "spread", "H 3 * * *", "now() - interval '2 days'", missed="one")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"schedule spread: expected a line in UTC"):
        fire(database, "spread")
    for of in ("", ", 'H 3 * * *'"):  # jobs that were made before know no more than the meaning
        database.query(f"SELECT reproq_enqueue_periodic_task('spread', '17 3 * * *'{of})")
    assert database.query(
        "SELECT DISTINCT extract(hour FROM fire_at AT TIME ZONE 'UTC'), extract(minute FROM fire_at) FROM reproq_firings"
    ) == [(3, 17)]


def test_the_zone_that_a_line_names_itself_wins(database: Database) -> None:
    add(database, "s", "CRON_TZ=UTC 0 3 * * *", "now()", timezone="Asia/Tokyo")
    database.query("SELECT reproq_enqueue_periodic_task('s', '0 3 * * *', 'CRON_TZ=UTC 0 3 * * *')")
    assert database.query("SELECT count(*) FROM task_runs") == [(1,)]


def test_the_meaning_of_another_line_is_refused(database: Database) -> None:
    add(database, "spread", "H 5 * * *", "now()")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"got H 5 \* \* \*"):
        database.query("SELECT reproq_enqueue_periodic_task('spread', '17 3 * * *', 'H 3 * * *')")
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


def test_what_the_line_named_before_it_was_made_does_not_fire(database: Database) -> None:
    add(database, "yearly", "0 0 1 1 *", "now() + interval '3 days'")
    add(database, "changed", "0 2 * * *", "date_trunc('minute', now())", last_run_at=datetime.now(UTC) - timedelta(days=1))
    with database.connect() as connection:
        timetable.add(
            connection,
            "changed",
            {**_columns_of(database, "changed"), "cron_expr": "0 5 * * *"},
            datetime.now(UTC) + timedelta(hours=9),
            replace=True,
        )
    for name in ("yearly", "changed"):
        fire(database, name)
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


@pytest.mark.parametrize(("missed", "firings"), [("none", 0), ("one", 1), ("all", 3)])
def test_a_job_makes_up_for_what_was_missed_as_the_rule_says(database: Database, missed: str, firings: int) -> None:
    # Three firings in an hour that has passed, and no other today.
    hour = database.query("SELECT extract(hour FROM now() AT TIME ZONE 'UTC' - interval '2 h')::int")[0][0]
    add(
        database,
        "s",
        f"0,20,40 {hour} * * *",
        "date_trunc('hour', now() AT TIME ZONE 'UTC' - interval '2 h') AT TIME ZONE 'UTC'",
        missed=missed,
    )
    fire(database, "s")
    fire(database, "s")
    assert database.query("SELECT count(*) FROM task_runs") == [(firings,)]
    assert database.query("SELECT next_run_at > now() FROM periodic_tasks") == [(True,)]
    assert_each_firing_once(database)


def test_a_run_starts_as_late_as_if_a_beat_had_fired_it(database: Database, keeper: Keeper) -> None:
    names = ("spread", "naïve schedule", "at an odd time")
    for each in names:
        odd = " + interval '1234 us'" if each == names[-1] else ""
        add(database, each, "@yearly", f"date_trunc('minute', now()){odd}", jitter_s=3600.5)
        fire(database, each)
    read = "SELECT task_path, run_after, spec_json FROM task_runs ORDER BY spec_json ->> 'periodic_name'"
    by_jobs = database.query(read)
    database.query("DELETE FROM reproq_firings")
    database.query("UPDATE periodic_tasks SET next_run_at = last_run_at, last_run_at = NULL")
    database.query("DELETE FROM task_runs")
    keeper.run(Beat(lambda _: None).run(keeper.store.schedules))
    assert len(by_jobs) == len(names)
    assert database.query(read) == by_jobs


def test_a_clock_that_was_wrong_does_not_silence_a_job(database: Database) -> None:
    add(
        database,
        "s",
        "* * * * *",
        "now() + interval '40 days'",
        **{column: datetime.now(UTC) + timedelta(days=40) for column in ("last_run_at", "updated_at", "created_at")},
    )
    fire(database, "s")
    assert database.query("SELECT count(*) > 0, bool_and(fire_at BETWEEN now() - interval '5 min' AND now()) FROM reproq_firings") == [
        (True, True)
    ]
    assert database.query("SELECT next_run_at < now() + interval '2 min', created_at <= now() FROM periodic_tasks") == [(True, True)]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"payload_json": '"text"'}, "payload_json: expected a list"),
        ({"jitter_s": 1e300}, "jitter_s: expected seconds within the years that there are"),
        ({"jitter_s": 1e12}, "jitter_s: expected seconds within the years that there are"),
        ({"queue_name": "".join(sha256(str(n).encode()).hexdigest() for n in range(150))}, "the database refuses its task"),
        ({"missed": "some"}, "missed: expected one, all or none, got some"),
    ],
)
def test_what_cannot_fire_is_disabled_with_its_reason(database: Database, columns: dict[str, object], reason: str) -> None:
    add(database, "s", "@hourly", "now()", **columns)
    fire(database, "s")
    ((enabled, is_faulty, found),) = database.query("SELECT enabled, is_faulty, disabled_reason FROM periodic_tasks")
    assert (enabled, is_faulty) == (False, True)
    assert reason in found
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


def _columns_of(database: Database, name: str) -> dict[str, object]:
    with database.connect() as connection:
        found = timetable.find(connection, name)
    assert found is not None
    return {column: getattr(found, column) for column in timetable.COLUMNS}


def test_a_schedule_that_was_given_a_zone_since_is_left_to_the_beat(database: Database) -> None:
    add(database, "far", "0 3 * * *", "now()", timezone="Asia/Tokyo")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Asia/Tokyo"):
        fire(database, "far")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Asia/Tokyo"):
        database.query("SELECT reproq_enqueue_periodic_task('far', '0 3 * * *')")
