"""Rate limits: spent at the claim, never more than the bucket gives, and free for who is not limited."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import Ending, Outcome, RunId
from tests.store.actors import Keeper, Shard, lane
from tests.store.test_concurrency import in_processes
from tests.store.test_plans import Reads
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
LATER = 1e-9  # tokens a second: none comes while a test runs


@pytest.fixture
def limit(database: Database) -> Callable[..., None]:
    """Sets a limit with a full bucket: `limit("queue:bulk", 5, burst=2)`."""

    def limit(key: str, rate: float, burst: int = 1, tokens: float | None = None) -> None:
        database.query(
            """INSERT INTO rate_limits AS b (key, tokens_per_second, burst_size, current_tokens) VALUES (%s, %s, %s, %s)
               ON CONFLICT (key) DO UPDATE SET tokens_per_second = excluded.tokens_per_second, burst_size = excluded.burst_size,
                                               current_tokens = excluded.current_tokens, last_refilled_at = now()""",
            key,
            rate,
            burst,
            burst if tokens is None else tokens,
        )

    return limit


def ids(claimed: tuple[Any, ...]) -> list[RunId]:
    return [run.result_id for run in claimed]


def test_a_claim_takes_no_more_than_the_bucket_holds(limit: Callable[..., None], put: Put, shard: Shard, database: Database) -> None:
    limit("queue:default", LATER, burst=3)
    runs = put(5)
    assert ids(shard.claim(9)) == runs[:3]
    assert shard.claim(9) == ()
    row = lane(database, runs[3])
    assert row is not None
    assert (row["park_reason"], row["on_key"]) == ("rate", "rate:queue:default")


@pytest.mark.parametrize(
    ("limits", "claimed"),
    [
        ({"global": 2}, 2),
        ({"global": 2, "queue:default": 3}, 3),
        ({"global": 2, "queue:default": 3, "task:app.task": 4}, 4),
        ({"global": 2, "queue:default": 3, "task:other": 1}, 3),
        ({"queue:other": 1}, 9),
    ],
)
def test_the_first_of_task_queue_and_global_decides(
    limit: Callable[..., None], put: Put, shard: Shard, limits: dict[str, int], claimed: int
) -> None:
    for key, burst in limits.items():
        limit(key, LATER, burst)
    put(9)
    assert len(shard.claim(9)) == claimed


@pytest.mark.parametrize("free", ["task:app.task", "queue:default"])
def test_a_rate_of_nothing_frees_from_wider_limits(limit: Callable[..., None], put: Put, shard: Shard, free: str) -> None:
    limit("global", LATER, burst=1)
    limit(free, 0)
    put(5)
    assert len(shard.claim(9)) == 5


def test_runs_without_a_limit_pass_those_that_wait(limit: Callable[..., None], put: Put, shard: Shard) -> None:
    limit("task:slow", LATER, burst=1)
    slow = put(30, task_path="slow", priority=100)
    free = put(3)
    assert ids(shard.claim(4)) == [slow[0], *free]


def test_tokens_come_with_time(limit: Callable[..., None], put: Put, shard: Shard) -> None:
    limit("queue:default", 20, burst=1)
    runs, done = put(4), []
    reply = shard.cycle(claims=(("default", 9),))
    done += ids(reply.claimed)
    assert reply.next_token_s is not None
    assert 0 <= reply.next_token_s <= 0.05

    def all_done() -> bool:
        done.extend(ids(shard.claim(9)))
        return len(done) == len(runs)

    eventually(all_done, what="every run found a token")
    assert done == runs


def test_the_keeper_wakes_them_for_shards_that_sleep(
    limit: Callable[..., None], put: Put, shard: Shard, keeper: Keeper, database: Database
) -> None:
    limit("queue:default", LATER, burst=1)
    _, second = put(2)
    assert len(shard.claim(9)) == 1
    database.query("UPDATE rate_limits SET current_tokens = 1 WHERE key = 'queue:default'")
    keeper.run(keeper.store.settle_keys())
    row = lane(database, second)
    assert row is not None
    assert row["state"] == "ready"


def test_a_limit_that_is_removed_holds_nobody(limit: Callable[..., None], put: Put, shard: Shard, database: Database) -> None:
    limit("queue:default", LATER, burst=1)
    put(5)
    assert len(shard.claim(9)) == 1
    database.query("DELETE FROM rate_limits WHERE key = 'queue:default'")
    assert len(shard.claim(9)) == 4


def test_a_claimer_waits_for_nobody_who_has_the_bucket(limit: Callable[..., None], put: Put, shard: Shard, database: Database) -> None:
    limit("queue:default", LATER, burst=9)
    put(2)
    with database.connect() as other, other.transaction():
        other.execute("SELECT 1 FROM rate_limits WHERE key = 'queue:default' FOR UPDATE")
        reply = shard.cycle(claims=(("default", 9),))
        assert (reply.claimed, reply.is_contended) == ((), True)
    assert len(shard.claim(9)) == 2


def test_a_run_that_waits_for_a_token_holds_no_key(limit: Callable[..., None], put: Put, shard: Shard) -> None:
    limit("task:slow", LATER, burst=1)
    put(task_path="slow")
    put(task_path="slow", lock_key="k", priority=9)
    put(task_path="slow", lock_key="k", priority=8)
    (free,) = put(lock_key="k")
    first = shard.claim(1)
    assert len(first) == 1
    shard.succeed(first[0])
    claimed: list[RunId] = []
    eventually(lambda: claimed.extend(ids(shard.claim(9))) or free in claimed, what="the key goes to the run that needs no token")


@pytest.mark.parametrize("others", [False, True])
def test_no_bucket_is_touched_or_locked_where_no_limit_is_set(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database, others: bool
) -> None:
    """A lock on a row shows in its xmax."""
    if others:
        limit("queue:other", 5)
        limit("task:other", 0)
    put(5)
    before = database.query("SELECT ctid, xmin, xmax, * FROM rate_limits ORDER BY key")
    assert len(shard.claim(9)) == 5
    assert database.query("SELECT ctid, xmin, xmax, * FROM rate_limits ORDER BY key") == before


def test_a_claim_behind_many_that_wait_for_a_token_reads_none_of_them(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database
) -> None:
    limit("task:slow", LATER, tokens=0)
    put(3000, task_path="slow", priority=9)
    put(300)
    shard.claim(100)  # meets the first of them, and what was woken
    with database.connect(autocommit=False) as connection:
        reads = Reads(connection)
        before = reads.entries()
        claimed = connection.execute("SELECT FROM reproq_claim('w', 60, '{default}', '{100}') WHERE what = 'claimed'").fetchall()
        assert len(claimed) == 100
        assert reads.entries() - before < 1500


def claim_for(dsn: str, worker_id: str, seconds: float) -> int:
    """Claim as fast as possible for so long; return how many were claimed."""
    import time

    from tests.store.actors import Shard, ended

    shard, got, until = Shard(dsn, worker_id), 0, time.monotonic() + seconds
    with ended(shard):
        while time.monotonic() < until:
            got += len(shard.claim(7))
    return got


def test_many_claimers_together_stay_within_one_rate(limit: Callable[..., None], put: Put, database: Database) -> None:
    rate, burst = 200.0, 20
    put(3000)
    began = time.monotonic()
    limit("queue:default", rate, burst)
    got = sum(in_processes(claim_for, [(database.dsn, f"worker-{n}", 1.0) for n in range(6)]))
    took = time.monotonic() - began
    assert burst < got <= burst + rate * took + 1


def claim_together(dsn: str, worker_id: str, crowd: int, seconds: float) -> tuple[float, float, list[float]]:
    """Wait until *crowd* claimers are there, then claim for so long; return begin, end, and the time of every claim (monotonic)."""
    import time

    import psycopg

    from tests.store.actors import Shard, ended

    shard, times = Shard(dsn, worker_id), []
    with ended(shard), psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO claimers VALUES (%s)", (worker_id,))
        while connection.execute("SELECT count(*) FROM claimers").fetchone() != (crowd,):
            time.sleep(0.01)  # between two looks
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            times += [time.monotonic()] * len(shard.claim(7))
        return began, time.monotonic(), times


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixteen_claimers_use_the_whole_of_one_rate_and_no_more(limit: Callable[..., None], put: Put, database: Database) -> None:
    """The bucket holds the tokens of a second: nobody claiming for longer than that would not be the bucket's fault."""
    crowd, rate, seconds = 16, 100.0, float(os.environ.get("REPROQ_RATE_SECONDS", "8"))
    put(int(rate * (seconds + 60)))
    database.query("CREATE TABLE claimers (worker_id text)")
    set_at = time.monotonic()
    limit("queue:default", rate, int(rate), tokens=0)
    claims = in_processes(claim_together, [(database.dsn, f"worker-{n}", crowd, seconds) for n in range(crowd)])
    all_there, first_gone = max(began for began, _, _ in claims), min(until for _, until, _ in claims)
    times = sorted(at for _, _, times in claims for at in times)
    assert len(times) <= rate * (max(until for _, until, _ in claims) - set_at)
    inside = [at for at in times if all_there <= at <= first_gone]
    assert len(inside) >= 0.95 * rate * (first_gone - all_there - 1)


def test_runs_that_wait_for_a_token_wake_under_the_collation_of_a_language(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database
) -> None:
    """There 'rate;' comes before 'rate:'."""
    if not database.query("SELECT 1 FROM pg_collation WHERE collname = 'en-x-icu'"):
        pytest.skip("this server has no collations of languages")
    database.query('ALTER TABLE task_lane ALTER COLUMN on_key TYPE text COLLATE "en-x-icu"')
    limit("queue:default", LATER)
    first, second = put(2)
    assert ids(shard.claim(9)) == [first]
    assert shard.claim(9) == ()
    limit("queue:default", LATER, tokens=1)
    assert ids(shard.claim(9)) == [second]


@pytest.mark.parametrize("tokens", [0.0, 5.0])
def test_a_clock_that_was_set_back_takes_no_tokens_away(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database, tokens: float
) -> None:
    limit("queue:default", 1000, burst=5, tokens=tokens)
    database.query("UPDATE rate_limits SET last_refilled_at = now() + interval '1 h'")
    runs = put(12)
    claimed: list[RunId] = []

    def all_are_claimed() -> bool:
        claimed.extend(ids(shard.claim(20)))
        return len(claimed) == len(runs)

    eventually(all_are_claimed, what="tokens that come as if nothing had happened")
    assert sorted(claimed) == runs


@pytest.mark.parametrize("column", ["current_tokens", "last_refilled_at", "tokens_per_second"])
@pytest.mark.parametrize("value", ["infinity", "-infinity", "nan", "-1e38"])
def test_whatever_a_hand_writes_into_a_bucket_stops_no_claim(
    limit: Callable[..., None], put: Put, shard: Shard, keeper: Keeper, database: Database, column: str, value: str
) -> None:
    limit("queue:default", 1000, burst=2)
    if column == "last_refilled_at" and value in ("nan", "-1e38"):
        value = "0001-01-01 BC"
    database.query(f"UPDATE rate_limits SET {column} = '{value}' WHERE key = 'queue:default'")
    limited = put(6)
    (free,) = put(queue_name="other")
    claimed = ids(shard.claim(20, queue="other"))
    assert claimed == [free]

    def all_are_claimed() -> bool:
        claimed.extend(ids(shard.claim(20)))
        return len(claimed) == 1 + len(limited)

    eventually(all_are_claimed, what="every run of the queue")
    keeper.run(keeper.store.settle_keys())


def tokens(database: Database, key: str) -> int:
    ((level,),) = database.query("SELECT reproq_tokens(b, clock_timestamp()) FROM rate_limits b WHERE key = %s", key)
    return int(level)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_a_drain_gives_back_unbegun_gives_its_token_back(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database, is_cancelled: bool
) -> None:
    """Otherwise every reload would cost a limit the tokens of what its executors had in hand."""
    limit("queue:default", LATER, burst=5)
    runs = put(9)
    claimed = shard.claim(9)
    assert (ids(claimed), tokens(database, "queue:default")) == (runs[:5], 0)
    if is_cancelled:
        database.query("SELECT reproq_cancel(%s)", runs[2:5])
    unbegun = tuple(Ending(each.result_id, each.lease_no, Outcome.PUT_BACK) for each in claimed[2:])
    begun = tuple(Ending(each.result_id, each.lease_no, Outcome.RELEASE) for each in claimed[:2])
    shard.cycle(endings=unbegun + begun)
    assert tokens(database, "queue:default") == 3, "one for each that never began"
    shard.cycle(endings=unbegun)
    assert tokens(database, "queue:default") == 3, "what is said again is not given back again"
    assert len(shard.claim(9)) == 3


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_token_goes_back_where_it_was_spent_whatever_applies_by_then(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database, is_gone: bool
) -> None:
    limit("global", LATER, burst=5)
    put(3)
    claimed = shard.claim(2)
    limit("queue:default", LATER, burst=9, tokens=0)
    if is_gone:
        database.query("DELETE FROM rate_limits WHERE key = 'global'")
    shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.PUT_BACK) for each in claimed))
    assert tokens(database, "queue:default") == 0, "nothing was spent here"
    if not is_gone:
        assert tokens(database, "global") == 5


def test_what_was_claimed_without_a_limit_gives_no_token_back(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database
) -> None:
    put(3)
    limit("queue:default", LATER, burst=1)
    (paid,) = shard.claim(1)
    shard.cycle(endings=(Ending(paid.result_id, paid.lease_no, Outcome.PUT_BACK),))
    database.query("DELETE FROM rate_limits")
    claimed = shard.claim(3)
    assert paid.result_id in ids(claimed), "it has paid once, and not for this claim"
    limit("queue:default", LATER, burst=9, tokens=0)
    shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.PUT_BACK) for each in claimed))
    assert tokens(database, "queue:default") == 0


def test_what_a_dead_shard_had_claimed_gives_no_token_back(
    limit: Callable[..., None], put: Put, shard: Shard, keeper: Keeper, database: Database
) -> None:
    """It may have begun."""
    limit("queue:default", LATER, burst=5)
    put(5)
    shard.claim(5)
    keeper.run(keeper.store.release_workers([shard.worker_id]))
    assert tokens(database, "queue:default") == 0


def test_a_bucket_that_somebody_keeps_locked_does_not_hold_up_what_is_given_back(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database
) -> None:
    limit("queue:default", LATER, burst=5)
    put(2)
    claimed = shard.claim(2)
    with database.connect() as other, other.transaction():
        other.execute("SELECT 1 FROM rate_limits WHERE key = 'queue:default' FOR UPDATE")
        reply = shard.cycle(endings=tuple(Ending(each.result_id, each.lease_no, Outcome.PUT_BACK) for each in claimed))
        assert set(reply.ended) == set(ids(claimed))
    assert len(shard.claim(9)) == 2


def test_looks_over_what_was_woken_under_an_old_snapshot_are_seldom(
    limit: Callable[..., None], put: Put, shard: Shard, database: Database
) -> None:
    limit("queue:default", LATER, burst=1, tokens=0)
    put(5000)
    shard.claim(9)
    with database.connect(autocommit=False) as pin, database.connect() as looker:
        pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pin.execute("SELECT FROM task_runs")
        database.query("UPDATE rate_limits SET tokens_per_second = 0 WHERE key = 'queue:default'")
        while database.query("SELECT 1 FROM task_lane WHERE on_key IS NOT NULL LIMIT 1"):
            database.query("SELECT reproq_wake_throttled()")

        def read_by(call: str) -> tuple[int, object]:
            # The server counts on until it has reported.
            with looker.transaction():
                ((before,),) = looker.execute("SELECT reproq_waiters_read()").fetchall()
                ((told,),) = looker.execute(f"SELECT {call}").fetchall()
                ((after,),) = looker.execute("SELECT reproq_waiters_read()").fetchall()
            return after - before, told

        assert read_by("reproq_wake_throttled()")[0] >= 5000
        looker.execute("SELECT set_config('reproq.rest_rates', (extract(epoch FROM clock_timestamp()) + 1000)::text, false)")
        assert read_by("reproq_wake_throttled()")[0] == 0
        count, next_s = read_by("reproq_next_token_s()")
        assert count == 0
        assert isinstance(next_s, float)
        assert 900 < next_s <= 1000
        looker.execute("SELECT set_config('reproq.rest_rates', '0', false)")
        read_by("reproq_wake_throttled()")
        assert looker.execute("SELECT current_setting('reproq.rest_rates')::float8 > 0").fetchone() == (True,), "and then it rests"
