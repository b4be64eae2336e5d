"""Every producer is equal: whatever inserts a run, it is complete and runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.commands import NewRun, enqueue
from reproq_supervisor.store.commands import result as read_run
from reproq_supervisor.store.connect import connected
from reproq_supervisor.store.errors import StoreError
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.support.postgres import Database

# What an older Django producer sends: every column that may not be null, and nothing of ours.
OLDER_INSERT = """
INSERT INTO task_runs (backend_alias, queue_name, priority, run_after, spec_json, spec_hash, task_path, status, enqueued_at,
                       attempts, max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit,
                       worker_ids, errors_json, metadata_json, wait_count, created_at, updated_at, cancel_requested)
VALUES ('default', %(queue_name)s, %(priority)s, %(run_after)s, '{"task_path": "app.older", "args": [1]}', %(spec_hash)s,
        %(task_path)s, %(status)s, %(enqueued_at)s, 0, 3, 900, %(lock_key)s, %(concurrency_key)s, %(concurrency_limit)s,
        '[]', '[]', '{}', 0, now(), now(), false)
"""


def older(**changes: Any) -> dict[str, Any]:
    return {
        "queue_name": "default",
        "priority": 0,
        "run_after": None,
        "spec_hash": "h" * 64,
        "task_path": "app.older",
        "status": "READY",
        "enqueued_at": datetime.now(UTC),
        "lock_key": None,
        "concurrency_key": None,
        "concurrency_limit": 0,
        **changes,
    }


@pytest.fixture
def insert(database: Database) -> Callable[..., RunId]:
    """Inserts one run as an older producer does."""

    def insert(**changes: Any) -> RunId:
        with database.connect() as connection:
            row = connection.execute(OLDER_INSERT + "RETURNING result_id", older(**changes)).fetchone()
        assert row is not None
        return RunId(row[0])

    return insert


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def test_a_row_of_an_older_producer_is_claimed(insert: Callable[..., RunId], shard: Shard) -> None:
    run = insert()
    assert [claimed.result_id for claimed in shard.claim(5)] == [run]


def test_the_task_path_comes_from_the_spec_when_the_column_is_empty(insert: Callable[..., RunId], database: Database) -> None:
    assert record(database, insert(task_path=None))["task_path"] == "app.older"
    assert record(database, insert(task_path="", spec_hash="g" * 64))["task_path"] == "app.older"


def test_a_row_without_any_task_path_is_refused(database: Database) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        database.query("INSERT INTO task_runs (spec_json, spec_hash) VALUES ('[]', 'x')")


def test_the_defaults_of_the_database_are_enough(database: Database, shard: Shard) -> None:
    database.query("""INSERT INTO task_runs (spec_json, spec_hash) VALUES ('{"task_path": "app.task"}', 'x')""")
    assert [claimed.task_path for claimed in shard.claim(5)] == ["app.task"]


@pytest.mark.parametrize("enqueued_at", ["infinity", "-infinity", "4000-01-01 BC", "20000-01-01"])
def test_a_time_that_no_calendar_has_does_no_harm(enqueued_at: str, insert: Callable[..., RunId], shard: Shard, database: Database) -> None:
    run = insert(enqueued_at=enqueued_at)
    assert [claimed.result_id for claimed in shard.claim(5)] == [run]
    with connected(database.dsn) as connection:
        assert read_run(connection, run) is not None


def test_a_run_that_is_parked_for_ever_keeps_no_other_from_waking(
    insert: Callable[..., RunId], database: Database, keeper: Keeper, shard: Shard
) -> None:
    endless = insert(run_after="infinity")
    due = insert(run_after=datetime.now(UTC) + timedelta(days=1), spec_hash="g" * 64)
    database.query("UPDATE task_lane SET due_at = now() WHERE result_id = %s", due)
    assert keeper.run(keeper.store.wake_due(10)).count == 1
    assert [claimed.result_id for claimed in shard.claim(5)] == [due]
    with connected(database.dsn) as connection:
        assert read_run(connection, endless) is not None


@pytest.mark.parametrize(("attempts", "max_attempts"), [(-5, -1), (0, -1), (2147483647, 2147483647), (-2147483648, 3)])
def test_attempts_beyond_all_counting_do_no_harm(attempts: int, max_attempts: int, database: Database, shard: Shard) -> None:
    database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, attempts, max_attempts) VALUES ('{"task_path": "app.task"}', 'x', %s, %s)""",
        attempts,
        max_attempts,
    )
    claimed = shard.claim_one()
    assert claimed.attempt >= 1
    assert claimed.max_attempts >= 0


def test_the_path_that_will_be_run_is_the_one_that_is_told(insert: Callable[..., RunId], shard: Shard) -> None:
    insert(task_path="allowed.innocent")
    assert shard.claim_one().task_path == "app.older"


def test_copy_makes_complete_rows(database: Database, shard: Shard) -> None:
    statement = "COPY task_runs (spec_json, spec_hash, task_path) FROM STDIN"
    with database.connect() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for number in range(500):
            copy.write_row((f'{{"args": [{number}]}}', str(number), "app.task"))
    assert len(shard.claim(1000)) == 500


def test_a_bulk_insert_that_ignores_conflicts_keeps_what_does_not_conflict(database: Database, shard: Shard) -> None:
    statement = """INSERT INTO task_runs (spec_json, spec_hash, task_path)
                   VALUES ('{}', 'a', 'app.x'), ('{}', 'b', 'app.x'), ('{}', 'a', 'app.x') ON CONFLICT DO NOTHING"""
    database.query(statement)
    database.query(statement)
    assert database.query("SELECT rtrim(spec_hash) FROM task_runs ORDER BY 1") == [("a",), ("b",)]
    assert len(shard.claim(10)) == 2


def test_an_upsert_on_the_dedupe_key_returns_the_active_run(database: Database) -> None:
    statement = """INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{}', 'a', 'app.x')
                   ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO UPDATE SET updated_at = now() RETURNING result_id"""
    assert database.query(statement) == database.query(statement)
    assert database.query("SELECT count(*) FROM task_lane") == [(1,)]


def test_an_upsert_that_needs_the_contracts_own_index_is_refused_and_inserts_nothing(database: Database) -> None:
    statement = """INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{}', 'a', 'app.x')
                   ON CONFLICT (spec_hash) WHERE status IN ('READY', 'RUNNING') DO NOTHING"""
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        database.query(statement)
    assert database.query("SELECT 1 FROM task_runs") == []


def test_a_duplicate_of_an_older_producer_is_refused_while_the_first_is_active(insert: Callable[..., RunId], shard: Shard) -> None:
    insert()
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert()
    shard.succeed(shard.claim_one())
    insert()


def test_a_waiting_row_waits_and_is_not_deduplicated(insert: Callable[..., RunId], shard: Shard, database: Database) -> None:
    run, _ = insert(status="WAITING"), insert(status="WAITING")
    assert lane(database, run)["state"] == "waiting"
    assert record(database, run)["dedupe_key"] is None
    assert shard.claim(5) == ()


def test_a_row_that_is_due_later_is_parked(insert: Callable[..., RunId], shard: Shard, database: Database) -> None:
    run = insert(run_after=datetime.now(UTC) + timedelta(hours=1))
    assert (lane(database, run)["state"], lane(database, run)["park_reason"]) == ("parked", "due")
    assert shard.claim(5) == ()


def test_a_producer_whose_clock_is_ahead_does_not_delay_its_run(insert: Callable[..., RunId], shard: Shard) -> None:
    run = insert(enqueued_at=datetime.now(UTC) + timedelta(minutes=5))
    assert shard.claim_one().result_id == run


@pytest.mark.parametrize("wish", [{"lock_key": "user:1"}, {"concurrency_key": "account:1", "concurrency_limit": 2}])
def test_a_row_that_asks_for_a_key_has_it_in_the_lane(
    insert: Callable[..., RunId], shard: Shard, database: Database, wish: dict[str, Any]
) -> None:
    run = insert(**wish)
    row = lane(database, run)
    assert (row["lock_name"] or row["limit_name"]).partition(":")[2] == next(iter(wish.values()))
    assert shard.claim_one().result_id == run


def test_a_ready_member_of_a_workflow_runs_like_any_other(shard: Shard, database: Database) -> None:
    ((run,), (later,)) = database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, workflow_id)
           VALUES ('{}', 'a', 'a.b', %s), ('{}', 'b', 'a.b', NULL) RETURNING result_id""",
        uuid4(),
    )
    database.query("UPDATE task_runs SET workflow_id = %s WHERE result_id = %s", uuid4(), later)
    assert lane(database, later)["workflow_id"] is not None
    assert [claimed.result_id for claimed in shard.claim(5)] == [run, later]


@pytest.mark.parametrize("no_wish", [{"lock_key": ""}, {"concurrency_key": "account:1", "concurrency_limit": 0}, {"concurrency_limit": 3}])
def test_a_key_without_a_limit_asks_for_nothing(insert: Callable[..., RunId], shard: Shard, no_wish: dict[str, Any]) -> None:
    insert(**no_wish)
    assert len(shard.claim(5)) == 1


@pytest.mark.parametrize(
    ("limits", "rate"),
    [
        ([], None),
        ([("global", 5)], "global"),
        ([("queue:default", 5)], "queue:default"),
        ([("queue:other", 5)], None),
        ([("task:app.older", 5)], "task:app.older"),
        ([("task:app.older", 0), ("global", 5)], None),
        ([("queue:default", 0), ("global", 5)], None),
    ],
)
def test_a_row_under_an_active_rate_joins_those_that_wait_for_it(
    insert: Callable[..., RunId], shard: Shard, database: Database, limits: list[tuple[str, float]], rate: str | None
) -> None:
    for key, tokens in limits:
        database.query(
            """INSERT INTO rate_limits (key, tokens_per_second, burst_size, current_tokens) VALUES (%s, %s::real / 1e9, 1, 0)
               ON CONFLICT (key) DO UPDATE SET tokens_per_second = excluded.tokens_per_second""",
            key,
            tokens,
        )
    first = insert()
    shard.claim(1)
    row = lane(database, insert(spec_hash="b"))
    assert row["on_key"] == (rate and f"rate:{rate}")
    assert lane(database, first)["park_reason"] == (rate and "rate")


def test_a_run_that_is_inserted_as_running_is_its_writers_until_its_lease_ends(database: Database, shard: Shard, keeper: Any) -> None:
    database.query(
        """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, leased_by, leased_until)
           VALUES ('{}', 'a', 'app.x', 'RUNNING', 'admin-expired-lease', now() - interval '10 min')"""
    )
    assert shard.claim(5) == ()
    assert keeper.run(keeper.store.reclaim()) == 1
    assert len(shard.claim(5)) == 1


SPREAD = """
INSERT INTO task_runs (queue_name, priority, run_after, enqueued_at, attempts, max_attempts, timeout_seconds, concurrency_limit,
                       workflow_id, task_path, spec_json, spec_hash, status, lock_key, dedupe_key)
SELECT queue, priority, run_after, enqueued_at, attempts, 3, 900, 2, workflow, 'app.spread', '{}'::jsonb, 'x', 'READY', '', NULL
FROM unnest('{plain,aged,strict}'::text[]) queue, unnest('{-3,0,7}'::int[]) priority, unnest('{-5,0,1999999999}'::int[]) attempts,
     unnest('{NULL,-infinity,2020-01-01 00:00+00,2190-01-01 00:00+00,infinity}'::timestamptz[]) run_after,
     unnest('{2019-01-01 00:00+00,2180-01-01 00:00+00}'::timestamptz[]) enqueued_at,
     unnest('{NULL,00000000-0000-0000-0000-000000000001}'::uuid[]) workflow
"""
KEYED = """
UNION ALL
SELECT 'other', 0, NULL::timestamptz, '2019-01-01 00:00+00', 0, 3, 900, 2, NULL::uuid, 'app.keyed', '{}', 'x', 'READY', 'a key', NULL
"""


def test_a_statement_of_plain_runs_makes_the_rows_that_it_makes_beside_a_run_with_a_key(database: Database) -> None:
    """Runs without keys and rates have a statement of their own."""
    database.query("INSERT INTO reproq_queue_settings (queue_name, priority_aging_s) VALUES ('aged', 5), ('strict', 0)")
    made = []
    for others in ("", KEYED):
        database.query(SPREAD + others)
        made.append(
            database.query(
                "WITH gone AS (DELETE FROM task_runs RETURNING result_id, task_path)"
                " SELECT count(*), (to_jsonb(l) - 'result_id')::text AS lane FROM task_lane l JOIN gone USING (result_id)"
                " WHERE task_path = 'app.spread' GROUP BY 2 ORDER BY 2"
            )
        )
    assert sum(count for count, _ in made[0]) == 540
    assert made[0] == made[1]


def test_ended_rows_get_no_lane_row(database: Database) -> None:
    for status in ("SUCCESSFUL", "FAILED", "CANCELLED"):
        database.query("INSERT INTO task_runs (spec_json, spec_hash, task_path, status) VALUES ('{}', 'a', 'app.x', %s)", status)
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]


def test_a_producer_needs_rights_on_the_record_only(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE producer_{database.name}")
        try:
            connection.execute(f"GRANT INSERT, SELECT ON task_runs TO producer_{database.name}")
            connection.execute(f"GRANT USAGE ON SEQUENCE task_runs_result_id_seq TO producer_{database.name}")
            connection.execute(f"SET ROLE producer_{database.name}")
            (run,) = enqueue(connection, [NewRun("app.task")])
            connection.execute("RESET ROLE")
            assert lane(database, run)["state"] == "ready"
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY producer_{database.name}")
            connection.execute(f"DROP ROLE producer_{database.name}")


def test_what_a_callers_transaction_rolls_back_was_never_there(database: Database, shard: Shard) -> None:
    with psycopg.connect(database.dsn) as connection:
        enqueue(connection, [NewRun("app.task")])
        assert shard.claim(5) == ()
        connection.rollback()
    assert shard.claim(5) == ()


def test_ids_come_back_in_the_order_of_the_runs(database: Database, shard: Shard) -> None:
    with database.connect() as connection:
        runs = [NewRun("app.task", [number], dedupe=number % 3 == 0) for number in range(5000)]
        ids = enqueue(connection, runs)
    args = dict(database.query("SELECT result_id, (spec_json -> 'args' ->> 0)::int FROM task_runs"))
    assert [args[run] for run in ids] == list(range(5000))


def test_a_duplicate_gets_the_id_of_the_active_run(database: Database, shard: Shard) -> None:
    with database.connect() as connection:
        first, other, again = enqueue(
            connection, [NewRun("a.b", [1], dedupe=True), NewRun("a.b", [2], dedupe=True), NewRun("a.b", [1], dedupe=True)]
        )
        assert first == again != other
        shard.succeed(next(claimed for claimed in shard.claim(2) if claimed.result_id == first))
        (later,) = enqueue(connection, [NewRun("a.b", [1], dedupe=True)])
        assert later not in (first, other)


def test_without_dedupe_equal_runs_are_two(database: Database) -> None:
    with database.connect() as connection:
        first, second = enqueue(connection, [NewRun("a.b"), NewRun("a.b")])
    assert first != second


def test_a_text_that_cannot_be_stored_is_an_error_and_nothing_is_enqueued(database: Database) -> None:
    with database.connect() as connection, pytest.raises(StoreError):
        enqueue(connection, [NewRun("a.b", ["fine"]), NewRun("a.b", ["\0"])])
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


def test_arguments_that_are_no_json_are_an_error() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        NewRun("a.b", [float("nan")]).spec()


def test_the_spec_is_canonical() -> None:
    spec = NewRun("contracts.example_task", [1, {"nested": True}], {"notes": "grüße"}, priority=5, lock_key="user:123").spec()
    assert spec.startswith(
        '{"args":[1,{"nested":true}],"concurrency_key":null,"concurrency_limit":0,"exec":{"max_attempts":3,"timeout_seconds":900}'
    )
    assert "grüße" in spec


def test_an_insert_looks_up_who_waits_also_by_a_plan_that_was_made_while_nobody_did(database: Database) -> None:
    waiting = 3000
    database.query("VACUUM (ANALYZE) task_lane")
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO rate_limits VALUES ('task:app.limited', 1, 5, 5)")
        enqueue(connection, [NewRun("app.limited", lock_key="a", concurrency_key="b", concurrency_limit=1)])
        connection.commit()
        database.query(
            """INSERT INTO task_runs (spec_json, spec_hash, task_path, dedupe_key, lock_key)
               SELECT '{}', 'h', 'app.other', NULL, 'k' FROM generate_series(1, %s)""",
            waiting,
        )
        read = """SELECT sum(pg_stat_get_xact_tuples_returned(o))::int
                  FROM (SELECT 'task_lane'::regclass::oid AS o
                        UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'task_lane'::regclass) r"""
        ((before,),) = connection.execute(read).fetchall()
        enqueue(connection, [NewRun("app.limited", lock_key=f"l{n}", concurrency_key=f"c{n}", concurrency_limit=1) for n in range(20)])
        ((after,),) = connection.execute(read).fetchall()
    assert after - before < waiting / 2
