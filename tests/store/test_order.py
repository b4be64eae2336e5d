"""Claims come in the order of `priority + age/aging`, by a model that knows nothing of keys and indexes, over random histories.

Age counts from when a run became due: a delayed one from the end of its delay, a retried one from the end of its pause, a released one as
before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import psycopg
from hypothesis import Phase, given, settings

from reproq_supervisor.core.runs import Claimed, Ending, Outcome, RunId
from reproq_supervisor.store.commands import NewRun, enqueue
from tests.store.actors import Keeper, Shard, ended
from tests.support.eventually import eventually
from tests.support.postgres import Database

QUEUES = ("a", "b")
# 0 is strict priority; seven does not divide evenly.
AGINGS_S = (0, 7, 60)
_LONG_AGO = """
UPDATE task_runs SET enqueued_at = now() - %(ago_s)s * interval '1 s', run_after = now() - %(ago_s)s * interval '1 s'
WHERE result_id = %(run)s
"""
# Nothing is due before it is there.
_DUE = "SELECT greatest(enqueued_at, run_after) FROM task_runs WHERE result_id = %(run)s"


@dataclass
class Run:
    """What the model knows of a run that waits or is held."""

    queue: str
    priority: int
    due_at: datetime


def urgency(run: Run, now: datetime, aging_s: int) -> tuple[Fraction, timedelta]:
    """Return what the promise says, exactly: the run with the greatest value is claimed first; without aging, age breaks ties only."""
    age = now - run.due_at
    if not aging_s:
        return Fraction(run.priority), age
    return run.priority + Fraction(age // timedelta(microseconds=1), aging_s * 10**6), age


@dataclass
class World:
    """Every event happens to the database; what is due when is read back, and the order is the model's own."""

    connection: psycopg.Connection[Any]
    shard: Shard
    keeper: Keeper
    runs: dict[RunId, Run] = field(default_factory=dict)
    held: list[Claimed] = field(default_factory=list)
    aging_s: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUEUES, 60))

    def __post_init__(self) -> None:
        self.connection.execute("DELETE FROM task_lane")
        self.connection.execute("TRUNCATE task_runs")
        self.keeper.run(self.keeper.store.sync_queue_settings(self.aging_s))

    def enqueue(self, n: int) -> None:
        """A few runs: some due long ago, some now, some in a moment."""
        for part in range(1 + n % 4):
            draw = n >> 2 * part
            queue, priority, ago_s = QUEUES[draw // 3 % 2], draw % 7 - 3, draw % 300
            delay_s = (None, 0.0, None, draw % 40 / 1000)[draw % 4]
            (run,) = enqueue(self.connection, [NewRun("a.b", queue_name=queue, priority=priority, delay_s=delay_s)])
            if draw % 4 == 2:
                self.connection.execute(_LONG_AGO, {"run": run, "ago_s": ago_s})
            ((due_at,),) = self.connection.execute(_DUE, {"run": run}).fetchall()
            self.runs[run] = Run(queue, priority, due_at)

    def wake(self, _n: int) -> None:
        """All delays end."""
        eventually(self._nothing_is_parked, timeout=60, interval=0.005, what="all that is parked becomes due")

    def _nothing_is_parked(self) -> bool:
        self.keeper.run(self.keeper.store.wake_due())
        return not self.connection.execute("SELECT 1 FROM task_lane WHERE state = 'parked'").fetchone()

    def claim(self, n: int) -> None:
        """One claim, of one or both queues; each queue gives its most urgent ones, in order."""
        plan = ((QUEUES[n % 2], 1 + n // 2 % 9), (QUEUES[(n + 1) % 2], n // 18 % 4))
        ready = {run for (run,) in self.connection.execute("SELECT result_id FROM task_lane WHERE state = 'ready'")}
        now = self.now()
        reply = self.shard.cycle(claims=plan)
        for queue in QUEUES:
            line = sorted((run for run in ready if self.runs[run].queue == queue), key=lambda run: self._rank(run, now))
            got = [each.result_id for each in reply.claimed if each.queue_name == queue]
            assert got == line[: len(got)], (queue, self.aging_s[queue], [(run, self.runs[run]) for run in line])
        assert len(reply.claimed) == min(len(ready), sum(wanted for _, wanted in plan))
        self.held += reply.claimed

    def _rank(self, run: RunId, now: datetime) -> tuple[Any, ...]:
        score, age = urgency(self.runs[run], now, self.aging_s[self.runs[run].queue])
        return -score, -age, run

    def end(self, n: int) -> None:
        """Some of what is held succeeds, is retried with or without a pause, or is given back."""
        chosen, self.held = self.held[: 1 + n % 5], self.held[1 + n % 5 :]
        outcomes = {each.result_id: (Outcome.SUCCEED, Outcome.FAIL, Outcome.PUT_BACK)[(n >> i) % 3] for i, each in enumerate(chosen)}
        delay_s = (0.0, 0.01)[n // 7 % 2]
        endings = tuple(Ending(each.result_id, each.lease_no, outcomes[each.result_id], b"null", delay_s) for each in chosen)
        before = self.now()
        reply = self.shard.cycle(endings=endings)
        after = self.now()
        for run, status in reply.ended.items():
            if status != "READY":
                del self.runs[run]
            elif outcomes[run] is Outcome.FAIL:
                ((due_at,),) = self.connection.execute("SELECT due_at FROM task_lane WHERE result_id = %s", (run,)).fetchall()
                assert before <= due_at - timedelta(seconds=delay_s) <= after
                self.runs[run].due_at = due_at

    def change_aging(self, n: int) -> None:
        """A queue gets another aging while runs of it wait and others are held."""
        self.aging_s[QUEUES[n % 2]] = AGINGS_S[n // 2 % 3]
        self.keeper.run(self.keeper.store.sync_queue_settings(self.aging_s))

    def now(self) -> datetime:
        row = self.connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        found: datetime = row[0]
        return found


EVENTS = {World.enqueue: 5, World.claim: 4, World.end: 4, World.wake: 1, World.change_aging: 1}
STORY = st.lists(
    st.tuples(st.sampled_from([event for event, weight in EVENTS.items() for _ in range(weight)]), st.integers(0, 2**16 - 1)),
    min_size=10,
    max_size=50,
)


def test_claims_come_in_the_order_that_is_promised(database: Database) -> None:
    shard, keeper = Shard(database.dsn), Keeper(database.dsn)

    @settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    @given(story=STORY)
    def live(story: list[tuple[Callable[[World, int], None], int]]) -> None:
        world = World(connection, shard, keeper)
        for event, n in story:
            event(world, n)
        # What is still held comes back, and then all of it is in order.
        while world.held:
            world.end(2)
        world.wake(0)
        while world.connection.execute("SELECT 1 FROM task_lane WHERE state = 'ready' LIMIT 1").fetchone():
            world.claim(16)

    with ended(shard, keeper), database.connect() as connection:
        live()


def test_a_run_that_was_held_while_its_queue_got_another_aging_comes_back_in_the_new_order(database: Database) -> None:
    shard, keeper = Shard(database.dsn), Keeper(database.dsn)
    with ended(shard, keeper), database.connect() as connection:
        for before, after in ((60, 0), (0, 60)):
            keeper.run(keeper.store.sync_queue_settings({"default": before}))
            (first,) = enqueue(connection, [NewRun("a.b", priority=5)])
            held = shard.claim_one()
            keeper.run(keeper.store.sync_queue_settings({"default": after}))
            (second, third) = enqueue(connection, [NewRun("a.b", priority=priority) for priority in (7, 3)])
            shard.end_run(held, Outcome.PUT_BACK)
            claimed = shard.claim(3)
            assert [each.result_id for each in claimed] == [second, first, third]
            for each in claimed:
                shard.succeed(each)


def test_what_comes_late_with_the_old_aging_is_reordered_when_its_producer_has_ended(database: Database) -> None:
    shard, keeper = Shard(database.dsn), Keeper(database.dsn)
    with ended(shard, keeper), database.connect(autocommit=False) as producer, database.connect() as connection:
        (late,) = enqueue(producer, [NewRun("a.b", priority=9)])
        keeper.run(keeper.store.sync_queue_settings({"default": 0}))
        (early,) = enqueue(connection, [NewRun("a.b", priority=1)])
        assert keeper.store.has_unordered
        keeper.run(keeper.store.sync_queue_settings({"default": 0}))
        assert keeper.store.has_unordered, "the producer is still there"
        producer.commit()
        assert keeper.run(keeper.store.sync_queue_settings({"default": 0})) == []
        assert not keeper.store.has_unordered
        assert [each.result_id for each in shard.claim(2)] == [late, early]
