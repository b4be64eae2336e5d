"""Eight older workers and four shards at the same runs: keys, rates, chords, retries, and connections cut in the middle of statements.

`make coexist` does it with 4,000 runs.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import multiprocess
import psycopg
import pytest

from reproq_supervisor.core.runs import Ending, Outcome
from reproq_supervisor.store import controls
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.migrate import migrate
from tests.store.actors import Keeper, Shard, assert_invariant, ended
from tests.store.older_worker import OlderWorker
from tests.support.postgres import Database

RUNS = int(os.environ.get("REPROQ_COEXIST_RUNS", "500"))
OLDER, SHARDS = 8, 4
LOCKS, LIMITS, LIMIT = 6, 3, 2
RATE, BURST = 40.0, 10
LEASE_S = 3.0
HANG_S = 540.0
QUEUES = ("default", "limited")
CUT_EVERY_S = 0.4


@dataclass(frozen=True)
class Span:
    """One execution, by the machine's clock. `asked`: when the claim was sent; `ended_it`: the database said that this was its end."""

    run: int
    side: str
    args: tuple[Any, ...]
    asked: float
    began: float
    until: float
    ended_it: bool

    def kept_its_lease(self) -> bool:
        """Whether it was over before its lease could end: a process that is stalled for longer than that shares its run rightly."""
        return self.until - self.asked < LEASE_S

    def overlaps(self, other: "Span") -> bool:
        return self.began < other.until and other.began < self.until


def produce(database: Database, rng: random.Random) -> dict[str, tuple[list[int], int]]:
    """Enqueue plain, keyed and limited runs, and chords as the older package makes them; return members and callback of each chord."""
    chords: dict[str, tuple[list[int], int]] = {}
    with database.connect() as connection:
        controls.set_limit(connection, "queue:limited", RATE, BURST)
        runs = []
        for n in range(RUNS):
            kind = rng.randrange(10)
            lock = f"l{rng.randrange(LOCKS)}" if kind in (0, 1, 2) else None
            limit = f"c{rng.randrange(LIMITS)}" if kind in (2, 3) else None
            queue = "limited" if kind == 4 else "default"
            runs.append(
                NewRun("app.task", [lock, limit, n], queue_name=queue, priority=rng.randrange(3), lock_key=lock, concurrency_key=limit,
                       concurrency_limit=LIMIT if limit else 0, max_attempts=4)
            )  # fmt: skip
        enqueue(connection, runs)
        for _ in range(RUNS // 50):
            flow, size = str(uuid4()), rng.randint(2, 6)
            insert = """INSERT INTO task_runs (spec_json, spec_hash, task_path, status, wait_count, workflow_id, max_attempts)
                        SELECT '{"args": [null, null, 0]}', gen_random_uuid()::text, 'app.task', %s, %s, %s, 4 FROM generate_series(1, %s)
                        RETURNING result_id"""
            members = [row[0] for row in connection.execute(insert, ("READY", 0, flow, size))]
            (callback,) = [row[0] for row in connection.execute(insert, ("WAITING", size, flow, 1))]
            connection.execute(
                "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)", (flow, size, callback)
            )
            chords[flow] = (members, callback)
    return chords


class Watch:
    """Knows when all runs have ended."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True, application_name="watch")
        self._deadline = time.monotonic() + HANG_S

    def all_ended(self) -> bool:
        assert time.monotonic() < self._deadline, "not all runs have ended"
        return self._connection.execute("SELECT 1 FROM task_lane LIMIT 1").fetchone() is None

    def close(self) -> None:
        self._connection.close()


def fails(rng: random.Random) -> bool:
    return rng.random() < 0.15


def work_as_older(dsn: str, name: str) -> list[Span]:
    """Claim, keep and end as an older worker does, one run at a time, until all have ended; connect anew where the connection is cut."""
    rng, spans, watch = random.Random(name), [], Watch(dsn)
    older = OlderWorker(dsn, name, LEASE_S)
    older.announce()
    while True:
        asked = time.monotonic()
        try:
            claimed = older.claim(rng.choice(QUEUES))
            if claimed is None:
                if watch.all_ended():
                    return spans
                if rng.random() < 0.02:
                    older.reclaim()
                time.sleep(rng.uniform(0.005, 0.03))  # the pause between two polls
                continue
        except psycopg.OperationalError as error:
            older = again(older, error, dsn)
            continue
        began = time.monotonic()
        time.sleep(rng.uniform(0, 0.004))  # the task's work
        until, ended_it = time.monotonic(), False
        try:
            if rng.random() < 0.3:
                older.heartbeat(claimed.result_id)
            if fails(rng):
                retries = claimed.attempts < claimed.max_attempts
                ended_it = older.fail(claimed.result_id, retries=retries, delay_s=0.05) and not retries
            else:
                ended_it = older.succeed(claimed.result_id)
        except psycopg.OperationalError as error:
            older = again(older, error, dsn)
        spans.append(Span(claimed.result_id, "older", tuple(claimed.spec["args"]), asked, began, until, ended_it))


def again(older: OlderWorker, error: psycopg.OperationalError, dsn: str) -> OlderWorker:
    """Connect anew after the connection was cut; any other error is one too many."""
    if error.sqlstate not in (None, "57P01"):
        raise error
    older.close()
    while True:
        try:
            return OlderWorker(dsn, older.worker_id, LEASE_S)
        except psycopg.OperationalError:
            continue


def work_as_shard(dsn: str, name: str) -> list[Span]:
    """Claim and end as a shard does, a few runs at a time; one whose connection is cut is another one from then on."""
    rng, spans, watch, life = random.Random(name), [], Watch(dsn), 0
    shard = Shard(dsn, f"{name}.{life}")
    endings: list[Ending] = []
    done: list[Span] = []
    while True:
        asked = time.monotonic()
        try:
            reply = shard.cycle(LEASE_S, endings=tuple(endings), claims=tuple((queue, rng.randint(1, 2)) for queue in QUEUES))
        except StoreUnavailable:
            shard.end()
            spans, done, endings, life = spans + done, [], [], life + 1
            shard = Shard(dsn, f"{name}.{life}")
            continue
        terminal = {run for run, status in reply.ended.items() if status in ("SUCCESSFUL", "FAILED")}
        spans += [Span(s.run, s.side, s.args, s.asked, s.began, s.until, s.run in terminal) for s in done]
        done, endings = [], []
        if not reply.claimed and watch.all_ended():
            shard.end()
            return spans
        for claimed in reply.claimed:
            began = time.monotonic()
            time.sleep(rng.uniform(0, 0.004))  # the task's work
            done.append(Span(claimed.result_id, "shard", args_of(claimed.spec), asked, began, time.monotonic(), False))
            outcome = Outcome.FAIL if fails(rng) else rng.choice((*[Outcome.SUCCEED] * 8, Outcome.PUT_BACK))
            value = None if outcome is Outcome.PUT_BACK else b"{}"
            endings.append(Ending(claimed.result_id, claimed.lease_no, outcome, value, 0.05, 0.001))
        if not reply.claimed:
            time.sleep(rng.uniform(0.005, 0.03))  # the pause between two polls


def args_of(spec: bytes) -> tuple[Any, ...]:
    import json

    return tuple(json.loads(spec)["args"])


def crowd(dsn: str, kind: str, names: list[str]) -> list[Span]:
    """Let several work in one process, each on connections of its own."""
    from tests.store import test_coexist_concurrency as here

    with ThreadPoolExecutor(len(names)) as pool:
        return [span for spans in pool.map(partial(getattr(here, f"work_as_{kind}"), dsn), names) for span in spans]


def keep(dsn: str) -> None:
    """Do the keeper's duties until all runs have ended. Runs that were lost twice would wait for half a minute: not here."""
    from tests.store import test_coexist_concurrency as here

    keeper, watch = Keeper(dsn), here.Watch(dsn)
    with ended(keeper), psycopg.connect(dsn, autocommit=True, application_name="watch") as connection:
        while not watch.all_ended():
            connection.execute("UPDATE task_lane SET due_at = now() WHERE park_reason = 'due' AND due_at > now() + interval '1 s'")
            for duty in ("reclaim", "wake_due", "settle_wishes", "settle_keys", "settle_flows", "sweep_keys", "sweep_flows"):
                keeper.run(getattr(keeper.store, duty)())
            time.sleep(0.1)  # the pause between two rounds


def cut_one(admin: psycopg.Connection[Any], rng: random.Random) -> None:
    """End the connection of somebody who is in the middle of a statement."""
    busy = admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        " AND application_name NOT IN ('watch', 'reproq keeper')"
    ).fetchall()
    if busy:
        admin.execute("SELECT pg_terminate_backend(%s)", rng.choice(busy))


def most_at_once(spans: Iterable[Span]) -> int:
    now, most = 0, 0
    for _, step in sorted([(span.began, 1) for span in spans] + [(span.until, -1) for span in spans]):
        now += step
        most = max(most, now)
    return most


def by(key: Callable[[Span], Any], spans: Iterable[Span]) -> dict[Any, list[Span]]:
    found: dict[Any, list[Span]] = {}
    for span in spans:
        found.setdefault(key(span), []).append(span)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_work_off_everything_and_nothing_runs_twice(database: Database) -> None:
    rng = random.Random(7)
    with database.connect() as connection:
        migrate(connection, coexist=True)
    set_at = time.monotonic()
    chords = produce(database, rng)
    names = {"older": [f"older-{n}" for n in range(OLDER)], "shard": [f"shard-{n}" for n in range(SHARDS)]}
    cuts = 0
    with multiprocess.get_context("spawn").Pool(5) as pool, database.connect() as admin:
        keeping = pool.apply_async(keep, (database.dsn,))
        jobs = [pool.apply_async(crowd, (database.dsn, kind, each[half::2])) for kind, each in names.items() for half in (0, 1)]
        while not all(job.ready() for job in jobs):
            cut_one(admin, rng)
            cuts += 1
            time.sleep(CUT_EVERY_S)  # between two accidents
        spans = [span for job in jobs for span in job.get()]
        keeping.get(timeout=60)
    print(Counter(span.side for span in spans), f"{cuts} cuts", f"{max(s.until for s in spans) - min(s.asked for s in spans):.1f} s")  # noqa: T201

    assert_invariant(database)
    assert database.query("SELECT DISTINCT status FROM task_runs WHERE status NOT IN ('SUCCESSFUL', 'FAILED')") == []
    assert database.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    assert [run for run, count in Counter(span.run for span in spans if span.ended_it).items() if count > 1] == []
    held = [span for span in spans if span.kept_its_lease()]
    doubled = [each for each in by(lambda span: span.run, held).values() if most_at_once(each) > 1]
    assert doubled == [], "an execution that kept its lease was not alone"
    for at, most in ((0, 1), (1, LIMIT)):
        keyed = by(lambda span, at=at: span.args[at], [span for span in held if span.args[at]])
        assert {key: most_at_once(each) for key, each in keyed.items() if most_at_once(each) > most} == {}
    limited = {run for (run,) in database.query("SELECT result_id FROM task_runs WHERE queue_name = 'limited'")}
    started = [span for span in spans if span.run in limited]
    assert len(started) <= BURST + RATE * (max(span.began for span in started) - set_at)
    status = dict(database.query("SELECT result_id, status FROM task_runs"))
    runs = by(lambda span: span.run, held)
    for members, callback in chords.values():
        succeeded = {status[member] for member in members} == {"SUCCESSFUL"}
        assert succeeded == (callback in runs)
        for span in runs.get(callback, ()):
            assert span.began > max(each.until for member in members for each in runs[member])
    shares = Counter(span.side for span in spans)
    assert min(shares.values()) > len(spans) / 10, shares
