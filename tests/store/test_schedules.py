"""Schedules: each firing enters one run, whoever fires it; what cannot fire is disabled and stops nobody."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from reproq_supervisor.keeper.beat import Beat
from reproq_supervisor.store.keeper import KeeperStore
from tests.store.actors import Keeper, Shard, assert_invariant, record
from tests.support.postgres import Database

Add = Callable[..., None]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


@pytest.fixture
def add(database: Database) -> Add:
    """Adds a schedule that is due: `add("nightly", cron_expr="@daily", late_s=30)`; by itself it fires once, and then in a year."""

    def add(name: str, late_s: float = 0.0, **columns: Any) -> None:
        if isinstance(columns.get("payload_json"), list | dict | str):
            columns["payload_json"] = Jsonb(columns["payload_json"])
        row = {"cron_expr": "@yearly", "task_path": "app.task", **columns}
        names, values = ", ".join(row), ", ".join(["%s"] * len(row))
        database.query(
            f"INSERT INTO periodic_tasks (name, next_run_at, {names}) VALUES (%s, now() - %s * interval '1 s', {values})",
            name,
            late_s,
            *row.values(),
        )

    return add


class Beating:
    """A keeper that fires, and what it told."""

    def __init__(self, keeper: Keeper) -> None:
        self.events: list[dict[str, Any]] = []
        self._keeper = keeper
        self._beat = Beat(self.events.append)

    def once(self) -> int:
        """Fire what is due; return how many firings were entered."""
        return self._keeper.run(self._beat.run(self._keeper.store.schedules)).count


@pytest.fixture
def beat(keeper: Keeper) -> Beating:
    return Beating(keeper)


def runs(database: Database, name: str) -> list[dict[str, Any]]:
    ids = database.query("SELECT result_id FROM task_runs WHERE spec_json ->> 'periodic_name' = %s ORDER BY run_after", name)
    return [record(database, run) for (run,) in ids]


def schedule(database: Database, name: str, columns: str = "enabled, next_run_at, last_run_at, disabled_reason") -> tuple[Any, ...]:
    return database.query(f"SELECT {columns} FROM periodic_tasks WHERE name = %s", name)[0]


def test_a_schedule_that_is_due_enqueues_its_task_once(add: Add, beat: Beating, database: Database) -> None:
    add(
        "report", payload_json={"args": [1], "kwargs": {"to": "ä"}}, queue_name="mail", priority=7, concurrency_key="k", concurrency_limit=2
    )
    (due,) = schedule(database, "report", "next_run_at")
    assert beat.once() == 1
    assert beat.once() == 0
    (run,) = runs(database, "report")
    spec = run["spec_json"]
    assert (spec["task_path"], spec["args"], spec["kwargs"]) == ("app.task", [1], {"to": "ä"})
    assert (run["queue_name"], run["priority"], run["concurrency_key"], run["concurrency_limit"]) == ("mail", 7, "k", 2)
    assert (run["status"], run["run_after"], run["max_attempts"], run["timeout_seconds"]) == ("READY", due, 3, 900)
    enabled, next_run_at, last_run_at, reason = schedule(database, "report")
    assert (enabled, last_run_at, reason) == (True, due, None)
    assert next_run_at > due
    assert next_run_at.second == next_run_at.microsecond == 0
    assert database.query("SELECT fire_at, outcome, result_id FROM reproq_firings") == [(due, "enqueued", run["result_id"])]


def test_its_run_can_be_claimed_at_once(add: Add, beat: Beating, shard: Shard) -> None:
    add("report")
    beat.once()
    assert shard.claim_one().task_path == "app.task"


def test_who_has_nothing_due_is_told_when(add: Add, keeper: Keeper, database: Database) -> None:
    assert keeper.run(keeper.store.schedules.next_due_s()) is None
    add("later", late_s=-100)
    assert keeper.run(keeper.store.schedules.next_due_s()) == pytest.approx(100, abs=20)
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('odd', 'x', 'a.b', 'infinity')")
    assert keeper.run(keeper.store.schedules.next_due_s()) == pytest.approx(100, abs=20)
    database.query("UPDATE periodic_tasks SET next_run_at = '-infinity' WHERE name = 'odd'")
    assert keeper.run(keeper.store.schedules.next_due_s()) == 0


def test_one_that_cannot_fire_is_disabled_with_its_reason_and_stops_nobody(add: Add, beat: Beating, database: Database) -> None:
    add("bad line", cron_expr="61 * * * *")
    add("bad zone", timezone="Mars/Olympus")
    add("bad payload", payload_json={"args": 3})
    add("text", payload_json="text")
    add("bad rule", missed="sometimes")
    add("no task", task_path="")
    add("fine")
    database.query("UPDATE periodic_tasks SET next_run_at = '-infinity' WHERE name = 'bad line'")
    assert beat.once() == 1
    assert len(runs(database, "fine")) == 1
    disabled = dict(database.query("SELECT name, disabled_reason FROM periodic_tasks WHERE NOT enabled"))
    assert set(disabled) == {"bad line", "bad zone", "bad payload", "text", "bad rule", "no task"}
    assert "expected a cron line" in disabled["bad line"]
    assert "time zone" in disabled["bad zone"]
    assert "expected a list" in disabled["bad payload"]
    assert "refuses" in disabled["no task"]
    assert disabled["bad rule"] == "missed: expected one, all or none, got sometimes"
    assert {event["name"] for event in beat.events} == {"schedule.disabled"}
    assert {event["schedule"] for event in beat.events} == set(disabled)
    assert beat.once() == 0


def test_values_that_only_sql_can_store_disable_their_schedule_and_stop_nobody(add: Add, beat: Beating, database: Database) -> None:
    long = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(150))  # too long for an index, however it is compressed
    add("levels")
    add("infinite number")
    add("jitter without end", jitter_s=1e300)
    add("jitter beyond all years", jitter_s=1e12)
    add("long queue", queue_name=long)
    add("last run in another age")
    add("fine")
    database.query("UPDATE periodic_tasks SET payload_json = %s::jsonb WHERE name = 'levels'", "[" * 1500 + "]" * 1500)
    database.query("UPDATE periodic_tasks SET payload_json = %s::jsonb WHERE name = 'infinite number'", f"[1{'0' * 400}.5]")
    database.query("UPDATE periodic_tasks SET last_run_at = '99999-01-01' WHERE name = 'last run in another age'")
    wrong = {"levels", "infinite number", "jitter without end", "jitter beyond all years", "long queue"}
    fired = beat.once()
    assert len(runs(database, "fine")) == len(runs(database, "last run in another age")) == 1
    disabled = dict(database.query("SELECT name, disabled_reason FROM periodic_tasks WHERE NOT enabled"))
    # How many levels of JSON Python reads depends on its version and on how deep the stack is by then.
    assert set(disabled) | {"levels"} == wrong
    assert fired == 7 - len(disabled)
    assert "payload_json" in disabled.get("levels", "payload_json")
    assert "payload_json" in disabled["infinite number"]
    assert "jitter_s" in disabled["jitter without end"]
    assert beat.once() == 0


def test_among_many_one_poisoned_task_is_found(add: Add, beat: Beating, database: Database) -> None:
    for n in range(40):
        add(f"s{n}", task_path="" if n in (0, 17, 39) else "app.task")
    assert beat.once() == 37
    assert database.query("SELECT count(*) FROM task_runs") == [(37,)]
    assert database.query("SELECT count(*) FROM periodic_tasks WHERE NOT enabled") == [(3,)]


def test_a_schedule_that_was_changed_meanwhile_is_left_for_the_next_look(
    add: Add, beat: Beating, keeper: Keeper, database: Database
) -> None:
    add("report")
    due = keeper.run(keeper.store.schedules.due(10))
    database.query("UPDATE periodic_tasks SET enabled = false WHERE name = 'report'")
    keeper.store.schedules.due = lambda limit: asyncio.sleep(0, due)  # type: ignore[method-assign]
    assert beat.once() == 0
    assert runs(database, "report") == []


def test_an_older_beat_and_ours_share_the_work(add: Add, beat: Beating, database: Database) -> None:
    add("theirs")
    add("ours")
    with database.connect(autocommit=False) as older:
        older.execute("SELECT FROM periodic_tasks WHERE name = 'theirs' AND enabled AND next_run_at <= now() FOR UPDATE SKIP LOCKED")
        assert beat.once() == 1
        older.execute("UPDATE periodic_tasks SET last_run_at = next_run_at, next_run_at = now() + interval '1 h' WHERE name = 'theirs'")
    assert beat.once() == 0
    assert (len(runs(database, "ours")), runs(database, "theirs")) == (1, [])


def test_an_overlap_is_skipped_where_that_is_asked_for(add: Add, beat: Beating, shard: Shard, database: Database) -> None:
    add("long", overlap="skip")
    add("any")
    beat.once()
    claimed = shard.claim(2)
    database.query("UPDATE periodic_tasks SET next_run_at = now()")
    beat.once()
    assert (len(runs(database, "long")), len(runs(database, "any"))) == (1, 2)
    assert database.query("SELECT outcome, count(*) FROM reproq_firings WHERE name = 'long' GROUP BY 1 ORDER BY 1") == [
        ("enqueued", 1),
        ("skipped", 1),
    ]
    for each in claimed:
        shard.succeed(each)
    database.query("UPDATE periodic_tasks SET next_run_at = now()")
    beat.once()
    assert len(runs(database, "long")) == 2


def test_missed_firings_follow_the_rule(add: Add, beat: Beating, database: Database) -> None:
    for rule in ("one", "all", "none"):
        add(rule, missed=rule, cron_expr="*/10 * * * *", late_s=0)
    database.query("UPDATE periodic_tasks SET next_run_at = date_trunc('hour', now()) - interval '3 h'")
    ((now,),) = database.query("SELECT now()")
    beat.once()
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    past = [start + timedelta(minutes=10 * n) for n in range(40) if start + timedelta(minutes=10 * n) <= now]
    assert [run["run_after"] for run in runs(database, "all")] == past
    assert [run["run_after"] for run in runs(database, "one")] == past[-1:]
    on_time = [at for at in past if at > now - timedelta(seconds=60)]
    assert [run["run_after"] for run in runs(database, "none")] == on_time


def test_jitter_delays_the_run_and_not_the_firing(add: Add, beat: Beating, database: Database) -> None:
    for n in range(20):
        add(f"s{n}", jitter_s=3600)
    beat.once()
    delays = database.query("SELECT r.run_after - f.fire_at FROM reproq_firings f JOIN task_runs r USING (result_id)")
    assert len(set(delays)) == 20
    assert all(timedelta() <= delay < timedelta(hours=1) for (delay,) in delays)
    assert database.query("SELECT count(*) FROM task_lane WHERE state = 'parked'") == [(20,)]


def test_many_beats_at_once_fire_each_firing_once(add: Add, database: Database) -> None:
    for n in range(200):
        add(f"s{n}", cron_expr="* * * * * *", late_s=9, missed="all")

    async def beat() -> int:
        store = await KeeperStore.connect(database.dsn)
        count = 0
        for _ in range(6):
            count += (await Beat(lambda _: None).run(store.schedules)).count
        await store.close()
        return count

    async def all_at_once() -> int:
        return sum(await asyncio.gather(*(beat() for _ in range(6))))

    total = asyncio.run(all_at_once())
    assert database.query("SELECT count(*), count(DISTINCT (name, fire_at)), count(DISTINCT result_id) FROM reproq_firings") == [
        (total,) * 3
    ]
    assert database.query("SELECT count(*), count(DISTINCT spec_json) FROM task_runs") == [(total, total)]
    gaps = """SELECT count(*) FROM (SELECT fire_at - lag(fire_at) OVER (PARTITION BY name ORDER BY fire_at) AS gap FROM reproq_firings) g
              WHERE gap > interval '1 s'"""
    assert database.query(gaps) == [(0,)]


def test_pg_cron_and_the_beat_fire_the_same_minute_once(add: Add, beat: Beating, database: Database) -> None:
    add("report", payload_json=[1, "two"])
    database.query("UPDATE periodic_tasks SET next_run_at = date_trunc('minute', now())")
    database.query("SELECT reproq_enqueue_periodic_task('report')")
    database.query("SELECT reproq_enqueue_periodic_task('report')")
    beat.once()
    made = runs(database, "report")
    minutes = {run["run_after"] for run in made}
    assert len(made) == len(minutes) <= 2  # two, if a minute began in between
    assert made[0]["spec_json"]["args"] == [1, "two"]
    assert made[0]["spec_json"]["scheduled_at"] == made[0]["run_after"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_what_pg_cron_calls_leaves_alone_what_is_disabled_gone_or_wrong(add: Add, database: Database) -> None:
    add("off", enabled=False)
    add("wrong", payload_json={"kwargs": []})
    for name in ("off", "wrong", "none such", "it's \" odd"):
        database.query("SELECT reproq_enqueue_periodic_task(%s)", name)
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]
    assert schedule(database, "wrong", "enabled, disabled_reason") == (
        False,
        "payload_json: expected a list, or an object with a list args and an object kwargs",
    )


def test_firings_are_forgotten_after_two_days(add: Add, beat: Beating, keeper: Keeper, database: Database) -> None:
    add("report")
    beat.once()
    database.query("INSERT INTO reproq_firings (name, fire_at, outcome, fired_at) VALUES ('old', now(), 'skipped', now() - interval '3 d')")
    assert keeper.run(keeper.store.schedules.forget_firings(100)) == 1
    assert database.query("SELECT name FROM reproq_firings") == [("report",)]


def test_a_schedule_of_plain_sql_needs_the_contracts_columns_only(beat: Beating, database: Database) -> None:
    now = datetime.now(UTC)
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('sql', '0 0 1 1 *', 'app.task', %s)", now)
    assert beat.once() == 1
    assert schedule(database, "sql", "next_run_at")[0] == datetime(now.year + 1, 1, 1, tzinfo=UTC)
