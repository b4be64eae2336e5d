"""Which rate applies, after any history of limits that are set, changed and removed while runs wait: as a plain model of the rule says."""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import controls
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, lane
from tests.store.test_plans import Reads
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
LATER = 1e-9  # tokens a second: none comes while a test runs
TASKS, QUEUES = ("app.x", "app.y"), ("a", "b")
KEYS = ("global", *(f"queue:{queue}" for queue in QUEUES), *(f"task:{task}" for task in TASKS))
MOST_ROUNDS = 50


@dataclass
class Model:
    """The rule in plain words: the first limit that exists of task, queue and global decides; rate 0 there means free."""

    limits: dict[str, tuple[float, int]] = field(default_factory=lambda: {"global": (0, 0)})
    waiting: dict[RunId, tuple[str, str]] = field(default_factory=dict)

    def rate_of(self, run: RunId) -> str | None:
        task, queue = self.waiting[run]
        key = next((key for key in (f"task:{task}", f"queue:{queue}", "global") if key in self.limits), None)
        return key if key is not None and self.limits[key][0] > 0 else None

    def claim(self, run: RunId) -> None:
        if key := self.rate_of(run):
            rate, tokens = self.limits[key]
            assert tokens > 0, f"run {run} was claimed without a token of {key}"
            self.limits[key] = (rate, tokens - 1)
        del self.waiting[run]

    def claimable(self) -> list[RunId]:
        return [run for run in self.waiting if (key := self.rate_of(run)) is None or self.limits[key][1] > 0]


@pytest.mark.parametrize("seed", range(12))
def test_the_first_limit_that_exists_decides_whatever_was_set_before(
    seed: int, put: Put, shard: Shard, keeper: Keeper, database: Database
) -> None:
    rng, model = random.Random(seed), Model()
    with database.connect() as connection:
        for _ in range(25):
            match rng.choice(("put", "set", "set", "remove", "claim")):
                case "put":
                    task, queue = rng.choice(TASKS), rng.choice(QUEUES)
                    for run in put(rng.randint(1, 5), task_path=task, queue_name=queue):
                        model.waiting[run] = (task, queue)
                case "set":
                    key, rate, tokens = rng.choice(KEYS), rng.choice((0, LATER, LATER)), rng.randint(1, 3)
                    controls.set_limit(connection, key, rate, tokens)
                    model.limits[key] = (rate, tokens)
                case "remove":
                    key = rng.choice(KEYS)
                    controls.remove_limit(connection, key)
                    model.limits.pop(key, None)
                case "claim":
                    claim_all(shard, keeper, model)
        claim_all(shard, keeper, model)
    assert_invariant(database)


def claim_all(shard: Shard, keeper: Keeper, model: Model) -> None:
    """Claim as shard and keeper do until nothing comes; then nothing may be left that could run."""
    quiet = 0
    for _ in range(MOST_ROUNDS):
        claimed = shard.cycle(claims=tuple((queue, 50) for queue in QUEUES)).claimed
        for run in claimed:
            model.claim(run.result_id)
        more = keeper.run(keeper.store.settle_keys())
        quiet = 0 if claimed or more else quiet + 1
        if quiet == 3:
            break
    assert model.claimable() == []


def parked_on(database: Database) -> dict[str, int]:
    return dict(Counter(name for (name,) in database.query("SELECT on_key FROM task_lane WHERE on_key IS NOT NULL")))


def settle(keeper: Keeper) -> None:
    while keeper.run(keeper.store.settle_keys(limit=10)):
        pass


def test_a_limit_of_nothing_frees_runs_that_wait_for_a_wider_one(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "global", LATER, 1)
        put(30)
        put(30, task_path="other")
        shard.claim(1)
        shard.claim(99)
        assert parked_on(database) == {"rate:global": 59}
        controls.set_limit(connection, "task:app.task", 0, 1)
    settle(keeper)
    assert parked_on(database) == {"rate:global": 30}
    assert len(shard.claim(99)) == 29


def test_a_run_that_was_parked_while_the_limit_was_set_is_found(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    """The review goes on until all are gone who could not see the limit."""
    with database.connect() as connection, database.connect(autocommit=False) as producer:
        controls.set_limit(connection, "queue:default", LATER, 1)
        put()
        shard.claim(1)
        put()
        shard.claim(1)
        producer.execute("INSERT INTO task_runs (spec_json, spec_hash, task_path) VALUES ('{}', 'h', 'app.task')")
        controls.set_limit(connection, "task:app.task", 0, 1)
        settle(keeper)
        assert parked_on(database) == {}, "those that can be seen are free at once"
        producer.commit()
        assert parked_on(database) == {"rate:queue:default": 1}
        settle(keeper)
        assert parked_on(database) == {}
        assert database.query("SELECT 1 FROM reproq_rate_reviews") == []


def test_a_new_limit_rewrites_no_run_that_waits(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    put(500)
    before = database.query("SELECT ctid, xmin, xmax FROM task_lane ORDER BY result_id")
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 2)
        controls.set_limit(connection, "task:app.task", LATER, 2)
        settle(keeper)
    assert database.query("SELECT ctid, xmin, xmax FROM task_lane ORDER BY result_id") == before
    assert len(shard.claim(10)) == 2
    assert sum(parked_on(database).values()) <= 50, "a claim parks what it has met, and no more"


@pytest.mark.parametrize(("new", "read"), [("task:third", 40), ("queue:third", 20)])
def test_a_new_limit_reads_none_of_those_that_wait_for_one_no_wider(new: str, read: int, put: Put, database: Database) -> None:
    with database.connect() as connection, database.connect(autocommit=False) as keeper:
        for key in ("global", "queue:other", "task:app.task"):
            controls.set_limit(connection, key, LATER, 1)
        for parts in ({"task_path": "a"}, {"task_path": "a", "queue_name": "other"}, {"queue_name": "default"}):
            put(21 if "task_path" in parts else 5001, **parts)
        connection.execute("DELETE FROM reproq_rate_reviews")
        controls.set_limit(connection, new, LATER, 1)
        reads = Reads(keeper)
        before = reads.entries()
        while keeper.execute("SELECT reproq_review_rates(30)").fetchone() == (True,):
            pass
        assert reads.entries() - before < 10 * read + 1000
    assert parked_on(database) == {"rate:global": 20, "rate:queue:other": 20, "rate:task:app.task": 5000}


@pytest.mark.parametrize("parts", [{"expires_in_s": -1}, {"kwargs": {"large": "x" * 1_100_000}}])
def test_a_run_that_is_ended_instead_of_run_spends_no_token(put: Put, shard: Shard, database: Database, parts: dict[str, Any]) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 1)
        (unwanted,) = put(priority=9, **parts)
        (run,) = put()
        assert [claimed.result_id for claimed in shard.claim(5)] == [run]
        assert lane(database, unwanted) is None
        (unwanted,) = put(**parts)
        shard.claim(5)
        assert lane(database, unwanted) is None, "no token is needed to end it"


def test_what_is_too_long_for_one_claim_gets_its_tokens_back(put: Put, shard: Shard, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 6)
        runs = put(6, kwargs={"large": "x" * 10_000})
        taken: list[RunId] = []
        for _ in range(6):
            taken += [claimed.result_id for claimed in shard.cycle(claims=(("default", 6),), claim_bytes=25_000).claimed]
        assert taken == runs
        assert controls.limits(connection)[1].tokens == pytest.approx(0, abs=1e-3)


def test_a_claim_asks_for_those_that_a_rate_can_concern(put: Put, database: Database) -> None:
    """Whatever rows of task, queue and global there are: the same ones for which the rule names a rate."""
    tasks = ("app.x", "app.y", "app.z", "app.x")
    runs = [run for task in tasks for run in put(task_path=task)]
    keys = ("task:app.x", "task:app.y", "queue:default", "global")
    with database.connect() as connection:
        for rates in itertools.product((None, 0, 5), repeat=len(keys)):
            with connection.transaction(force_rollback=True):
                connection.execute("DELETE FROM rate_limits")
                for key, rate in zip(keys, rates, strict=True):
                    if rate is not None:
                        controls.set_limit(connection, key, rate, 1)
                (named,) = connection.execute("SELECT array_agg(reproq_rate_of(t, 'default')) FROM unnest(%s::text[]) t", (list(tasks),))
                expected = [run if name else None for run, name in zip(runs, named[0], strict=True)]
                (told,) = connection.execute("SELECT reproq_limited('default', %s)", (runs,))
                assert told[0] == (expected if any(expected) else None), dict(zip(keys, rates, strict=True))


def test_one_claim_over_free_paid_late_exempt_and_keyed_runs(put: Put, shard: Shard, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "queue:default", LATER, 2)
        controls.set_limit(connection, "task:own", LATER, 1)
        controls.set_limit(connection, "task:free", 0, 1)
    kinds = ["app.task", "free", "own", "own", "app.task", "free", "app.task", "free"]
    with database.connect() as connection:
        # One by one: what one statement brings beyond the burst is parked before any claim meets it.
        runs = [enqueue(connection, [NewRun(kind, lock_key="k" if n in (1, 5, 7) else None)])[0] for n, kind in enumerate(kinds)]
    database.query("UPDATE task_lane SET state = 'ready', park_reason = NULL, on_key = NULL WHERE state = 'parked'")
    claimed = shard.claim(len(runs))
    assert [run.result_id for run in claimed] == [runs[n] for n in (0, 1, 2, 4)], "the lock admits one, the buckets two and one"
    paid = database.query("SELECT paid_rate FROM task_lane WHERE state = 'running' ORDER BY result_id")
    assert paid == [("queue:default",), (None,), ("task:own",), ("queue:default",)]
    assert parked_on(database) == {"rate:task:own": 1, "rate:queue:default": 1, "lock:k": 2}


def test_a_bucket_that_somebody_has_holds_up_none_of_those_that_need_none(put: Put, shard: Shard, database: Database) -> None:
    with database.connect() as connection:
        controls.set_limit(connection, "task:own", LATER, 9)
    limited = put(3, task_path="own")
    free = put(3)
    with database.connect() as other, other.transaction():
        other.execute("SELECT 1 FROM rate_limits WHERE key = 'task:own' FOR UPDATE")
        reply = shard.cycle(claims=(("default", 4),))
        assert [run.result_id for run in reply.claimed] == free
        assert reply.is_contended
    assert [run.result_id for run in shard.claim(9)] == limited


def test_what_one_statement_brings_stands_in_the_line_of_its_own_rate(put: Put, database: Database) -> None:
    limits = {"task:own": (LATER, 3), "task:free": (0, 1), "queue:a": (LATER, 2), "global": (LATER, 1)}
    with database.connect() as connection:
        for key, (rate, burst) in limits.items():
            controls.set_limit(connection, key, rate, burst)
        kinds = list(itertools.product(("own", "free", "app.x", "app.y"), QUEUES))
        enqueue(connection, [NewRun(task, queue_name=queue) for task, queue in kinds for _ in range(4)])
        beyond = {"rate:task:own": 8 - 3, "rate:queue:a": 8 - 2, "rate:global": 8 - 1}
        assert parked_on(database) == beyond
        enqueue(connection, [NewRun(task, queue_name=queue) for task, queue in kinds])
    assert parked_on(database) == {key: many + 2 for key, many in beyond.items()}, "where others wait, it waits, too"


def test_an_insert_reads_the_limits_once_and_not_for_each_run(database: Database) -> None:
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO rate_limits SELECT 'task:app.' || n, 1, 1, 1 FROM generate_series(1, 500) n")
        connection.commit()
        read = """SELECT sum(pg_stat_get_xact_tuples_returned(o))::int
                  FROM (SELECT 'rate_limits'::regclass::oid AS o
                        UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'rate_limits'::regclass) r"""
        ((before,),) = connection.execute(read).fetchall()
        enqueue(connection, [NewRun("app.1" if n % 2 else "other") for n in range(500)])
        ((after,),) = connection.execute(read).fetchall()
    assert after - before < 5 * 500
