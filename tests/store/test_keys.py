"""Lock keys and concurrency limits: strict, fully used, and nobody who waits is forgotten."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from reproq_supervisor.client import Client, NewRun, chain
from reproq_supervisor.core.runs import Ending, Outcome, RunId, RunStatus
from reproq_supervisor.store.commands import CancelOutcome
from reproq_supervisor.store.enqueue import enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, every_look_is_dear, lane
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
Shards = Callable[..., Shard]


@pytest.fixture(autouse=True, params=["usual", "dear"])
def looks(request: pytest.FixtureRequest, database: Database) -> None:
    """Every promise holds also where looks begin in the middle."""
    if request.param == "dear":
        every_look_is_dear(database)


def ids(claimed: tuple[object, ...]) -> list[RunId]:
    return [run.result_id for run in claimed]  # type: ignore[attr-defined]


def waits_for(database: Database, run: RunId) -> str | None:
    row = lane(database, run)
    return None if row is None else row["on_key"]


@pytest.mark.parametrize("commits_first", [False, True])
def test_who_waits_while_the_order_of_its_queue_changes_is_not_forgotten(
    shard: Shard, put: Put, database: Database, commits_first: bool
) -> None:
    """A look at the line may note where it begins by the old order, while the new one is not committed yet."""
    put(lock_key="one")
    holder = shard.claim_one()
    low, high = put(priority=1, lock_key="one")[0], put(priority=2, lock_key="one")[0]
    assert shard.claim(5) == ()
    database.query("INSERT INTO reproq_queue_settings (queue_name, priority_aging_s) VALUES ('default', 0)")
    with database.connect(autocommit=False) as other:
        other.execute("SELECT reproq_rekey('default', 0, 500)")
        if commits_first:
            other.commit()
        shard.succeed(holder)
        other.commit()
    claimed = shard.claim_one()
    assert claimed.result_id == high
    assert shard.claim(5) == ()
    shard.succeed(claimed)
    assert ids(shard.claim(5)) == [low]


def lock_of(key: str) -> str:
    return f"SELECT pg_try_advisory_xact_lock(hashtextextended('{key}', 7204))"


def test_a_lock_key_admits_one_run(shard: Shard, put: Put, database: Database) -> None:
    first, second = put(2, lock_key="user:1")
    assert ids(shard.claim(5)) == [first]
    assert waits_for(database, second) == "lock:user:1"


def test_a_concurrency_key_admits_as_many_as_its_limit(shard: Shard, put: Put) -> None:
    runs = put(5, concurrency_key="account:1", concurrency_limit=3)
    assert ids(shard.claim(5)) == runs[:3]
    assert shard.claim(5) == ()


def test_a_lock_and_a_concurrency_key_of_one_name_are_two_keys(shard: Shard, put: Put) -> None:
    runs = [*put(lock_key="a"), *put(concurrency_key="a", concurrency_limit=1)]
    assert ids(shard.claim(5)) == runs


def test_keys_of_different_queues_are_the_same_key(shard: Shard, put: Put) -> None:
    put(lock_key="a")
    put(lock_key="a", queue_name="bulk")
    assert len(shard.claim(5)) + len(shard.claim(5, "bulk")) == 1


@pytest.mark.parametrize("end", [Shard.succeed, Shard.release, Shard.fail], ids=lambda end: end.__name__)
def test_the_end_of_a_run_lets_the_next_one_in_with_the_same_commit(shard: Shard, put: Put, end: Callable[..., object]) -> None:
    first, second = put(2, lock_key="user:1")
    (held,) = shard.claim(5)
    end(shard, held)
    # What was given back stands before the other; what failed comes later.
    assert ids(shard.claim(5)) == [first if end is Shard.release else second]


def test_waiters_come_in_their_order(shard: Shard, put: Put) -> None:
    put(1, lock_key="a", priority=9)
    (held,) = shard.claim(5)
    late, early = put(1, lock_key="a")[0], put(1, lock_key="a", priority=5)[0]
    order = []
    for _ in range(2):
        shard.succeed(held)
        (held,) = shard.claim(5)
        order.append(held.result_id)
    assert order == [early, late]


def test_blocked_runs_do_not_stand_in_the_way_of_others(shard: Shard, put: Put) -> None:
    put(50, lock_key="a", priority=100)
    free = put(3)
    claimed = ids(shard.claim(4))
    assert len(claimed) == 4
    assert claimed[1:] == free


def test_a_run_with_two_keys_needs_both(shard: Shard, put: Put, database: Database) -> None:
    (holder,) = put(concurrency_key="c", concurrency_limit=1)
    (held,) = shard.claim(5)
    assert held.result_id == holder
    (both,) = put(lock_key="l", concurrency_key="c", concurrency_limit=1)
    assert shard.claim(5) == ()
    assert waits_for(database, both) == "limit:c"
    (other,) = put(lock_key="l")
    assert ids(shard.claim(5)) == [other], "a run that waits for its other key holds nothing"


def test_a_woken_run_that_must_wait_for_its_other_key_lets_the_next_one_in(shard: Shard, put: Put) -> None:
    """Otherwise the lock is free, somebody waits for it, and nothing would ever wake him."""
    (c,) = put(concurrency_key="c", concurrency_limit=1)
    (lock,) = put(lock_key="l")
    first_held = {held.result_id: held for held in shard.claim(5)}
    assert set(first_held) == {c, lock}
    (both,) = put(lock_key="l", concurrency_key="c", concurrency_limit=1)
    (only_lock,) = put(lock_key="l")
    assert shard.claim(5) == ()
    shard.succeed(first_held[lock])
    assert ids(shard.claim(5)) == [only_lock]
    shard.succeed(first_held[c])
    assert shard.claim(5) == (), "the lock is held"
    del both


def test_a_queue_that_nobody_serves_keeps_no_key(shard: Shard, put: Put) -> None:
    put(lock_key="a")
    (held,) = shard.claim(5)
    put(3, lock_key="a", queue_name="nobody", priority=1000)
    (here,) = put(lock_key="a")
    shard.succeed(held)
    assert ids(shard.claim(5)) == [here]


def test_a_paused_queue_keeps_no_key(shard: Shard, put: Put, database: Database) -> None:
    put(lock_key="a", queue_name="bulk")
    (held,) = shard.claim(5, "bulk")
    put(3, lock_key="a", queue_name="bulk", priority=1000)
    (here,) = put(lock_key="a")
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused) VALUES ('bulk', true)")
    shard.succeed(held)
    assert ids(shard.claim(5)) == [here]


def test_a_cancelled_run_gives_its_place_to_the_next(shard: Shard, put: Put, database: Database) -> None:
    put(lock_key="a")
    (held,) = shard.claim(5)
    first, second = put(2, lock_key="a")
    assert shard.claim(5) == ()
    shard.succeed(held)
    assert waits_for(database, first) is None
    assert waits_for(database, second) == "lock:a"
    database.query(f"SELECT * FROM reproq_cancel('{{{first}}}')")
    assert ids(shard.claim(5)) == [second]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM task_runs WHERE result_id = {run}",
        "UPDATE task_runs SET lock_key = 'other', queue_name = 'elsewhere' WHERE result_id = {run}",
    ],
)
def test_a_run_that_somebody_takes_away_gives_its_place_to_the_next(shard: Shard, put: Put, database: Database, change: str) -> None:
    put(lock_key="a")
    (held,) = shard.claim(5)
    first, second = put(2, lock_key="a")
    assert shard.claim(5) == ()
    shard.succeed(held)
    database.query(change.format(run=first))
    assert ids(shard.claim(5)) == [second]


def test_a_delayed_retry_holds_no_key(shard: Shard, put: Put, keeper: Keeper, database: Database) -> None:
    first, second = put(2, lock_key="a")
    (held,) = shard.claim(5)
    shard.fail(held, delay_s=60.0)
    (held,) = shard.claim(5)
    assert held.result_id == second
    database.query("UPDATE task_lane SET due_at = now() - interval '1 s' WHERE park_reason = 'due'")
    keeper.run(keeper.store.wake_due())
    assert shard.claim(5) == ()
    shard.succeed(held)
    assert ids(shard.claim(5)) == [first]


@pytest.mark.parametrize("how", ["release", "reclaim"])
def test_a_dead_holder_frees_its_keys(shard_of: Shards, put: Put, keeper: Keeper, database: Database, how: str) -> None:
    dead, alive = shard_of("dead"), shard_of("alive")
    first, second = put(2, lock_key="a", max_attempts=1)
    assert ids(dead.claim(5)) == [first]
    assert alive.claim(5) == ()
    if how == "release":
        keeper.run(keeper.store.release_workers(["dead"]))
        assert ids(alive.claim(5)) == [first]
    else:
        database.query("UPDATE task_lane SET leased_until = now() - interval '1 s' WHERE state = 'running'")
        keeper.run(keeper.store.reclaim())
        assert ids(alive.claim(5)) == [second]


def test_a_larger_limit_counts_for_the_runs_that_have_it(shard: Shard, put: Put) -> None:
    small = put(3, concurrency_key="a", concurrency_limit=1)
    assert ids(shard.claim(9)) == small[:1]
    large = put(3, concurrency_key="a", concurrency_limit=3)
    assert ids(shard.claim(9)) == large[:2]


def test_a_smaller_limit_is_kept_from_its_first_run_on(shard: Shard, put: Put) -> None:
    put(3, concurrency_key="a", concurrency_limit=3)
    held = shard.claim(9)
    put(1, concurrency_key="a", concurrency_limit=1)
    for run in held:
        assert shard.claim(9) == ()
        shard.succeed(run)
    assert len(shard.claim(9)) == 1


def test_a_claimer_waits_for_nobody_who_has_the_lock_of_a_key(shard: Shard, put: Put, database: Database) -> None:
    (keyed,), (free,) = put(lock_key="a"), put()
    with database.connect() as other, other.transaction():
        other.execute(lock_of("lock:a"))
        reply = shard.cycle(claims=(("default", 5),))
        assert (ids(reply.claimed), reply.is_contended) == ([free], True)
    assert ids(shard.claim(5)) == [keyed]


def test_a_key_that_is_freed_without_its_lock_is_looked_at_again(shard: Shard, put: Put, database: Database) -> None:
    """Somebody who counts at this moment may not see what is freed, and may park a run for ever."""
    _, second = put(2, lock_key="a")
    (held,) = shard.claim(5)
    with database.connect() as other, other.transaction():
        other.execute(lock_of("lock:a"))
        assert shard.succeed(held).is_contended is False, "it asked for nothing"
        assert waits_for(database, second) == "lock:a"
        assert shard.cycle(claims=(("default", 5),)).is_contended
    assert ids(shard.claim(5)) == [second]


def test_the_keeper_settles_what_no_shard_looks_at(shard: Shard, put: Put, keeper: Keeper, database: Database) -> None:
    _, second = put(2, lock_key="a")
    shard.claim(5)
    database.query("DELETE FROM task_lane WHERE state = 'running'")  # a hand in the tables
    assert waits_for(database, second) == "lock:a"
    keeper.run(keeper.store.sweep_keys())
    assert keeper.run(keeper.store.settle_keys()) is False
    assert ids(shard.claim(5)) == [second]


def test_a_bulk_of_blocked_runs_is_parked_as_it_is_inserted(put: Put, shard: Shard, database: Database) -> None:
    runs = put(500, concurrency_key="a", concurrency_limit=2)
    assert database.query("SELECT count(*) FROM task_lane WHERE state = 'ready'") == [(2,)]
    done: list[RunId] = []
    while claimed := shard.claim(5):
        assert len(claimed) <= 2
        done += ids(claimed)
        for run in claimed:
            shard.succeed(run)
    assert done == runs
    assert_invariant(database)


def test_enqueue_waits_for_no_lock_of_a_key(put: Put, database: Database) -> None:
    with database.connect() as other, other.transaction():
        other.execute(lock_of("lock:a"))
        assert len(put(3, lock_key="a")) == 3


def test_nothing_of_a_claim_that_was_rolled_back_stays(shard: Shard, put: Put, database: Database) -> None:
    first, _ = put(2, lock_key="a")
    with database.connect() as dying, dying.transaction(force_rollback=True):
        dying.execute("SELECT * FROM reproq_claim('dying', 60, '{default}', '{5}')")
    assert ids(shard.claim(5)) == [first]


def test_runs_with_and_without_keys_keep_their_order_in_one_claim(shard: Shard, put: Put) -> None:
    runs = [run for n in range(4) for run in (put(lock_key=f"k{n}") if n % 2 else put())]
    assert ids(shard.claim(9)) == runs


@pytest.mark.parametrize("outcome", [Outcome.SUCCEED, Outcome.PUT_BACK])
def test_a_key_is_used_to_the_full(shard_of: Shards, put: Put, outcome: Outcome) -> None:
    """Whatever ends, as many run as may, as long as anybody waits."""
    shard, limit = shard_of("w"), 4
    put(40, concurrency_key="a", concurrency_limit=limit)
    held = list(shard.claim(9))
    for _ in range(30):
        assert len(held) == limit
        shard.end_run(held.pop(0), outcome, b"null" if outcome is Outcome.SUCCEED else None)
        held += shard.claim(9)


@pytest.mark.parametrize("parts", [{"lock_key": "long"}, {"concurrency_key": "long", "concurrency_limit": 1}])
def test_a_key_too_long_for_an_index_stops_no_claim(shard: Shard, put: Put, parts: dict[str, Any]) -> None:
    text = "".join(chr(33 + n * n % 89 + n % 3) for n in range(20_000)) + uuid4().hex * 400
    first, _ = put(2, **{name: text if value == "long" else value for name, value in parts.items()})
    other = put()[0]
    assert ids(shard.claim(5)) == [first, other]


def test_word_of_a_key_that_somebody_keeps_locked_stands_before_no_other(shard: Shard, database: Database) -> None:
    database.query("INSERT INTO reproq_key_arrivals (key) SELECT 'lock:' || n FROM generate_series(1, 150) n")
    database.query("INSERT INTO reproq_key_arrivals (key) VALUES ('lock:z')")
    with database.connect() as other, other.transaction():
        other.execute("SELECT reproq_lock_keys(ARRAY(SELECT 'lock:' || n FROM generate_series(1, 150) n))")
        shard.claim(5)
        assert database.query("SELECT count(*) FROM reproq_key_arrivals WHERE key = 'lock:z'") == [(0,)]


@pytest.mark.parametrize("claims", [("default", 5), ("bulk", 5)])
def test_a_cancellation_in_an_open_transaction_stops_no_other_claim(
    shard: Shard, put: Put, database: Database, claims: tuple[str, int]
) -> None:
    """Whoever cancels within a transaction of his own may go on with it for minutes."""
    (first,) = put(lock_key="a", queue_name=claims[0])
    others = [*put(lock_key="b", queue_name=claims[0]), *put(concurrency_key="c", concurrency_limit=2, queue_name=claims[0])]
    (mine,) = put(lock_key="a", concurrency_key="c", concurrency_limit=2, queue_name="other")
    with Client(database.dsn) as client, database.connect() as caller, caller.transaction():
        assert client.cancel(mine, connection=caller) is CancelOutcome.CANCELLED
        reply = shard.cycle(claims=(claims,))
        assert (ids(reply.claimed), reply.is_contended) == ([first, *others], False)


def test_a_woken_run_that_is_cancelled_in_a_transaction_gives_its_place_to_the_next_after_the_commit(
    shard: Shard, put: Put, database: Database
) -> None:
    put(lock_key="a")
    (held,) = shard.claim(5)
    first, second = put(2, lock_key="a")
    assert shard.claim(5) == ()
    shard.succeed(held)
    assert waits_for(database, first) is None, "it was woken"
    with Client(database.dsn) as client, database.connect() as caller, caller.transaction():
        client.cancel(first, connection=caller)
        assert shard.claim(5) == ()
    assert ids(shard.claim(5)) == [second]


def test_a_cancellation_in_a_transaction_reaches_those_who_wait_for_it_after_the_commit(shard: Shard, database: Database) -> None:
    with Client(database.dsn) as client:
        parent, child = client.begin(chain(NewRun("app.task"), NewRun("app.task")))
        with database.connect() as caller, caller.transaction():
            client.cancel(parent, connection=caller)
        shard.cycle()
        assert client.result(child).status is RunStatus.FAILED


def floors(database: Database, what: str) -> dict[str, Any]:
    return dict(database.query(f"SELECT key, {'hold_no' if what == 'key' else 'result_id'} FROM reproq_{what}_floors"))


def test_a_look_begins_where_the_holders_are_and_no_look_where_it_was_cheap(shard: Shard, put: Put, database: Database) -> None:
    put(6, concurrency_key="a", concurrency_limit=2)
    for _ in range(3):
        held = shard.claim(9)
        assert len(held) == 2
        for run in held:
            shard.succeed(run)
    is_dear = database.query("SELECT reproq_dear_look() < 0") == [(True,)]
    assert set(floors(database, "key")) == ({"limit:a"} if is_dear else set())
    ((newest,),) = database.query("SELECT last_value FROM reproq_lease_seq")
    assert all(newest - 4 <= floor <= newest for floor in floors(database, "key").values())


def test_a_holder_that_somebody_else_started_counts_wherever_a_look_begins(shard: Shard, put: Put, database: Database) -> None:
    """It has drawn no number under the key's lock."""
    put(1, lock_key="a")
    shard.succeed(shard.claim_one())
    layout = "spec_json, spec_hash, task_path, status, leased_by, leased_until, lock_key"
    values = "'{}', 'x', 'app.task', 'RUNNING', 'older', now() + interval '1 h', 'a'"
    database.query(f"INSERT INTO task_runs ({layout}) VALUES ({values})")
    (run,) = put(1, lock_key="a")
    assert shard.claim(5) == ()
    assert waits_for(database, run) == "lock:a"


def test_who_comes_to_wait_before_all_others_is_found(shard: Shard, put: Put, keeper: Keeper, database: Database) -> None:
    """By an insert, by becoming due, or by a claim that finds the key full: each before the place where looks begin."""
    put(1, lock_key="a")
    held = shard.claim_one()
    (last,) = put(1, lock_key="a", priority=-5)
    shard.claim(5)
    (due,) = put(1, lock_key="a", priority=7, delay_s=3600)
    (inserted,) = put(1, lock_key="a", priority=5)
    database.query("UPDATE task_lane SET due_at = now() - interval '1 s', order_key = order_key - 7200 WHERE result_id = %s", due)
    keeper.run(keeper.store.wake_due())
    order = []
    while held:
        shard.succeed(held)
        claimed = shard.claim(5)
        order += ids(claimed)
        held = claimed[0] if claimed else None  # type: ignore[assignment]
    assert order == [due, inserted, last]


def test_an_older_snapshot_says_nothing_about_where_looks_begin(put: Put, shard: Shard, database: Database) -> None:
    """It may not see a holder that lives."""
    put(1, lock_key="a")
    with database.connect(autocommit=False) as caller:
        caller.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        caller.execute("SELECT FROM task_lane")
        (held,) = shard.claim(5)
        (mine,) = put(1, queue_name="other")
        caller.execute("SELECT reproq_lock_keys('{lock:a}'), reproq_wake_waiters('{lock:a}', '{1}')")
        caller.commit()
    assert floors(database, "key").get("lock:a", 0) <= held.lease_no + 1
    put(1, lock_key="a")
    assert ids(shard.claim(5, "other")) == [mine]
    assert shard.claim(5) == (), "the lock is held"


def test_who_is_admitted_counts_also_where_the_same_claim_looks_again(shard: Shard, put: Put) -> None:
    """A run that parks on one key lets those look who wait for its other one, before the claim has written who it took."""
    put(1, lock_key="b")
    shard.claim_one()
    (first,) = put(1, concurrency_key="c", concurrency_limit=2, priority=9)
    put(1, lock_key="b", concurrency_key="c", concurrency_limit=2)
    assert ids(shard.claim(5)) == [first]
    second, _, _ = put(3, concurrency_key="c", concurrency_limit=2)
    assert ids(shard.claim(5)) == [second]


def test_an_insert_walks_over_nobody_who_has_left_the_line(shard: Shard, put: Put, database: Database) -> None:
    runs = put(3000, concurrency_key="a", concurrency_limit=100)
    with database.connect(autocommit=False) as pin, database.connect() as producer:
        pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pin.execute("SELECT FROM task_lane")
        for _ in range(25):
            claimed = shard.claim(100)
            shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.SUCCEED, b"null") for each in claimed))
        with producer.transaction():
            ((before,),) = producer.execute("SELECT reproq_waiters_read()").fetchall()
            (last,) = enqueue(producer, [NewRun("app.task", concurrency_key="a", concurrency_limit=100)])
            ((after,),) = producer.execute("SELECT reproq_waiters_read()").fetchall()
    assert after - before < 100
    assert waits_for(database, last) == "limit:a"
    done = 2500
    while claimed := shard.claim(100):
        done += len(claimed)
        shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.SUCCEED, b"null") for each in claimed))
    assert done == len(runs) + 1
