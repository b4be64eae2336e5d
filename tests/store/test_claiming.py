"""Who gets which runs, in which order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.commands import NewRun, enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


def paths(shard: Shard, wanted: int, *claims: tuple[str, int]) -> list[str]:
    return [claimed.task_path for claimed in shard.cycle(claims=claims or (("default", wanted),)).claimed]


def test_first_due_first_served_within_a_priority(put: Put, shard: Shard) -> None:
    ids = [*put(), *put(), *put()]
    assert [claimed.result_id for claimed in shard.claim(5)] == ids


def test_a_priority_is_worth_its_aging_in_seconds(database: Database, keeper: Keeper, shard: Shard) -> None:
    keeper.run(keeper.store.sync_queue_settings({"default": 10}))
    with database.connect() as connection:
        enqueue(connection, [NewRun("old.plain"), NewRun("old.urgent", priority=2), NewRun("new.urgent", priority=2)])
        connection.execute(
            "UPDATE task_runs SET enqueued_at = now() - interval '30 s', run_after = now() - interval '30 s' WHERE task_path LIKE 'old.%'"
        )
    assert paths(shard, 5) == ["old.urgent", "old.plain", "new.urgent"]


def test_without_aging_priority_is_strict_and_ties_go_by_due_time(database: Database, keeper: Keeper, shard: Shard) -> None:
    keeper.run(keeper.store.sync_queue_settings({"default": 0}))
    with database.connect() as connection:
        enqueue(connection, [NewRun("old.plain"), NewRun("new.urgent", priority=1), NewRun("old.urgent", priority=1)])
        connection.execute(
            "UPDATE task_runs SET enqueued_at = now() - interval '1 day', run_after = now() - interval '1 day' WHERE task_path LIKE 'old.%'"
        )
    assert paths(shard, 5) == ["old.urgent", "new.urgent", "old.plain"]


def test_a_new_aging_reorders_what_waits_already(put: Put, keeper: Keeper, shard: Shard) -> None:
    put(task_path="a.plain")
    put(task_path="a.urgent", priority=1)
    put(task_path="a.other_queue", priority=9, queue_name="other")
    assert keeper.run(keeper.store.sync_queue_settings({"default": 0})) == ["default"]
    assert keeper.run(keeper.store.sync_queue_settings({"default": 0})) == []
    assert paths(shard, 5) == ["a.urgent", "a.plain"]


def test_a_claim_hands_over_all_that_is_needed_to_run(put: Put, shard: Shard) -> None:
    (run,) = put(task_path="app.mail", priority=7, queue_name="mail", timeout_seconds=12, max_attempts=5)
    claimed = shard.claim_one("mail")
    assert (claimed.result_id, claimed.attempt, claimed.queue_name, claimed.priority) == (run, 1, "mail", 7)
    assert (claimed.task_path, claimed.timeout_s, claimed.max_attempts) == ("app.mail", 12.0, 5)
    assert b'"task_path": "app.mail"' in claimed.spec


def test_a_run_is_claimed_once(put: Put, shard_of: Callable[..., Shard]) -> None:
    put(3)
    first, second = shard_of("worker-1"), shard_of("worker-2")
    assert len(first.claim(2)) == 2
    assert len(second.claim(2)) == 1
    assert first.claim(2) == second.claim(2) == ()


def test_what_another_claim_has_locked_is_passed_over(put: Put, shard: Shard, database: Database) -> None:
    locked, free = put(2)
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT FROM task_lane WHERE result_id = %s FOR UPDATE", (locked,))
        assert [claimed.result_id for claimed in shard.claim(2)] == [free]


def test_every_queue_gets_its_turns(put: Put, shard: Shard) -> None:
    for queue in ("a", "b"):
        put(10, queue_name=queue, task_path=queue)
    assert sorted(paths(shard, 0, ("a", 3), ("b", 1))) == ["a", "a", "a", "b"]


def test_what_a_queue_cannot_fill_is_offered_to_the_others_by_what_they_wanted(put: Put, shard: Shard) -> None:
    for queue, count in (("a", 1), ("b", 10), ("c", 10)):
        put(count, queue_name=queue, task_path=queue)
    assert sorted(paths(shard, 0, ("a", 4), ("b", 1), ("c", 1))) == ["a", "b", "b", "b", "c", "c"]


def test_a_queue_without_a_turn_gets_what_the_others_leave(put: Put, shard: Shard) -> None:
    put(5, queue_name="b", task_path="b")
    assert paths(shard, 0, ("a", 2), ("b", 0)) == ["b", "b"]
    put(5, queue_name="a", task_path="a")
    assert paths(shard, 0, ("a", 2), ("b", 0)) == ["a", "a"]


def test_nothing_comes_from_a_paused_queue(put: Put, shard: Shard, database: Database) -> None:
    put(2, queue_name="a", task_path="a")
    put(2, queue_name="b", task_path="b")
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused) VALUES ('a', true), ('b', false)")
    assert paths(shard, 0, ("a", 1), ("b", 1)) == ["b", "b"]
    database.query("UPDATE reproq_queue_controls SET paused = false")
    assert paths(shard, 0, ("a", 2)) == ["a", "a"]


def test_an_expired_run_is_ended_instead_of_run(put: Put, shard: Shard, database: Database) -> None:
    (expired,) = put(expires_in_s=-1)
    (fresh,) = put(expires_in_s=60)
    assert [claimed.result_id for claimed in shard.claim(5)] == [fresh]
    ended = record(database, expired)
    assert (ended["status"], ended["attempts"], ended["worker_ids"]) == ("FAILED", 0, [])
    assert ended["errors_json"][0]["kind"] == "expired"
    assert ended["started_at"] is None
    assert_invariant(database)


def test_a_run_with_a_wish_to_cancel_is_ended_instead_of_run(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    database.query("INSERT INTO reproq_cancel_requests (result_id) VALUES (%s)", run)
    assert shard.claim(5) == ()
    assert (record(database, run)["status"], record(database, run)["attempts"]) == ("CANCELLED", 0)
    assert database.query("SELECT * FROM reproq_cancel_requests") == []
    assert_invariant(database)


def test_a_lease_lasts_from_the_claim_by_the_databases_clock(put: Put, shard: Shard, database: Database) -> None:
    put()
    before = database.query("SELECT clock_timestamp()")[0][0]
    claimed = shard.claim_one(lease_s=30)
    after = database.query("SELECT clock_timestamp()")[0][0]
    until = lane(database, claimed.result_id)["leased_until"]
    assert before + timedelta(seconds=30) <= until <= after + timedelta(seconds=30)


def test_every_claim_has_a_higher_lease_number(put: Put, shard_of: Callable[..., Shard]) -> None:
    put(2)
    numbers = []
    for name in ("worker-1", "worker-2", "worker-1"):
        claimed = shard_of(name).claim_one()
        numbers.append(claimed.lease_no)
        if len(numbers) == 2:
            shard_of(name).release(claimed)
    assert numbers == sorted(set(numbers))


def test_a_retried_run_queues_behind_what_is_due_before_it(put: Put, shard: Shard) -> None:
    first, second = put(2)
    claimed = shard.claim_one()
    shard.fail(claimed, delay_s=0)
    assert [c.result_id for c in shard.claim(2)] == [second, first]


def test_a_released_run_keeps_its_place(put: Put, shard: Shard) -> None:
    first, second = put(2)
    shard.release(shard.claim_one())
    assert [c.result_id for c in shard.claim(2)] == [first, second]


@pytest.mark.parametrize("delay_s", [0.0, -5.0, 3600.0])
def test_run_after_and_delay_say_the_same(database: Database, delay_s: float) -> None:
    with database.connect() as connection:
        by_delay, by_time = enqueue(
            connection, [NewRun("a.b", delay_s=delay_s), NewRun("a.b", run_after=datetime.now(UTC) + timedelta(seconds=delay_s))]
        )
    one, two = lane(database, by_delay), lane(database, by_time)
    assert one["park_reason"] == two["park_reason"]
    assert abs(one["order_key"] - two["order_key"]) < 1


def large(database: Database, kib: int, count: int, queue: str = "default") -> list[RunId]:
    """Insert runs with a payload that does not compress."""
    rows = database.query(
        """INSERT INTO task_runs (queue_name, spec_json, spec_hash, task_path)
           SELECT %s, jsonb_build_object('task_path', 'app.large', 'args', jsonb_build_array(
                      (SELECT string_agg(md5(n::text || i::text), '') FROM generate_series(1, 32 * %s) i))),
                  md5(random()::text), 'app.large'
           FROM generate_series(1, %s) n RETURNING result_id""",
        queue,
        kib,
        count,
    )
    return [row[0] for row in rows]


def test_a_claim_ends_with_the_run_that_goes_beyond_its_bytes(database: Database, shard: Shard) -> None:
    ids = large(database, kib=100, count=10)
    reply = shard.cycle(claims=(("default", 10),), claim_bytes=350 * 1024)
    assert ([c.result_id for c in reply.claimed], reply.is_cut) == (ids[:3], True)
    assert [lane(database, run)["state"] for run in ids] == ["running"] * 3 + ["ready"] * 7
    reply = shard.cycle(claims=(("default", 10),), claim_bytes=0)
    assert ([c.result_id for c in reply.claimed], reply.is_cut) == (ids[3:4], True)
    reply = shard.cycle(claims=(("default", 10),))
    assert ([c.result_id for c in reply.claimed], reply.is_cut) == (ids[4:], False)


def test_the_bytes_of_a_claim_are_those_of_all_its_queues(database: Database, put: Put, shard: Shard) -> None:
    large(database, kib=100, count=3)
    large(database, kib=100, count=3, queue="bulk")
    put(2, queue_name="mail")
    reply = shard.cycle(claims=(("default", 3), ("bulk", 3), ("mail", 3)), claim_bytes=350 * 1024)
    assert ([c.queue_name for c in reply.claimed], reply.is_cut) == (["default"] * 3 + ["bulk"], True)
    reply = shard.cycle(claims=(("mail", 3), ("bulk", 3)), claim_bytes=50 * 1024)
    assert ([c.queue_name for c in reply.claimed], reply.is_cut) == (["mail"] * 2 + ["bulk"], True)


def test_bytes_are_those_of_the_text_not_of_what_is_stored(database: Database, shard: Shard) -> None:
    with database.connect() as connection:
        enqueue(connection, [NewRun("app.task", ["x" * 500_000]) for _ in range(4)])
    ((stored,),) = database.query("SELECT max(pg_column_size(spec_json)) FROM task_runs")
    assert stored < 50_000
    assert len(shard.cycle(claims=(("default", 4),), claim_bytes=1_100_000).claimed) == 2


def test_a_spec_over_the_limit_never_leaves_the_database(database: Database, put: Put, shard: Shard) -> None:
    (before,) = put()
    with database.connect() as connection:
        (too_large,) = enqueue(connection, [NewRun("app.task", ["x" * 3_000_000])])
    (after,) = put()
    reply = shard.cycle(claims=(("default", 3),), claim_bytes=100_000)
    assert ([c.result_id for c in reply.claimed], reply.is_cut) == ([before, after], False)
    told = record(database, too_large)
    assert (told["status"], told["attempts"], told["errors_json"][0]["kind"]) == ("FAILED", 0, "invalid_spec")
    assert "at most 1048576 bytes, got 300" in told["last_error"]
    assert_invariant(database)
