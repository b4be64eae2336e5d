"""A sleeping shard hears of work, nobody is notified while nobody sleeps, and no notification is lost."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from reproq_supervisor.core.runs import CycleRequest, RunId
from reproq_supervisor.store import shard as shard_module
from reproq_supervisor.store.commands import NewRun, cancel, enqueue
from reproq_supervisor.store.listener import Listener
from tests.store.actors import Actor, Keeper, Shard, ended
from tests.support.eventually import eventually
from tests.support.postgres import Database

HANGS_AFTER_S = 30.0

Put = Callable[..., list[RunId]]


class Ear:
    """A connection that listens."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def heard(self) -> list[str]:
        """Return what was told since the last call; a notification of a commit that we saw is here by now."""
        self._connection.execute("SELECT 1")
        return [note.payload for note in self._connection.notifies(timeout=0)]


@pytest.fixture
def ear(database: Database) -> Iterator[Ear]:
    with database.connect() as connection:
        connection.execute("LISTEN reproq_public")
        yield Ear(connection)


@contextmanager
def producer(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=False) as connection:
        yield connection


def fall_asleep(shard: Shard, *queues: str) -> None:
    """Go through the steps until the long sleep."""
    assert eventually(lambda: shard.settle_idle(*queues) == 0, what="the last look")
    assert shard.settle_idle(*queues) == math.inf


def test_nobody_is_notified_while_nobody_sleeps(put: Put, ear: Ear, shard: Shard) -> None:
    put(3)
    assert ear.heard() == []
    shard.claim(3)
    put(3)
    assert ear.heard() == []


def test_a_sleeper_is_notified_once_for_each_statement_and_queue(put: Put, ear: Ear, shard: Shard) -> None:
    fall_asleep(shard, "a", "b")
    put(100, queue_name="a")
    assert ear.heard() == ["ready:a"]
    put(1, queue_name="c")
    put(1, queue_name="b", delay_s=60)
    assert ear.heard() == []


def test_a_claim_that_gets_something_clears_the_flag_in_its_own_commit(put: Put, ear: Ear, shard: Shard, database: Database) -> None:
    fall_asleep(shard)
    assert shard.claim(1) == ()
    assert len(database.query("SELECT 1 FROM reproq_queue_idle")) == 1
    put()
    assert len(ear.heard()) == 1
    shard.claim(1)
    assert database.query("SELECT 1 FROM reproq_queue_idle") == []
    put()
    assert ear.heard() == []


def test_a_note_is_answered_by_a_claim_that_leaves_the_flag(put: Put, ear: Ear, shard: Shard, database: Database) -> None:
    assert not shard.store.may_claim_ready()
    fall_asleep(shard)
    assert shard.store.may_claim_ready()
    first, second, *_ = put(3)
    assert ear.heard() == ["ready:default"]
    request = CycleRequest(60, claims=(("default", 2),))
    reply = shard.run(shard.store.claim_ready(request))
    assert [claimed.result_id for claimed in reply.claimed] == [first, second]
    assert len(shard.held(*reply.claimed)) == 2
    put()
    assert ear.heard() == ["ready:default"]
    # The cycle that follows finds more, so it is busy here.
    assert len(shard.claim(5)) == 2
    assert database.query("SELECT 1 FROM reproq_queue_idle") == []


def test_after_such_a_claim_there_is_nothing_to_do_to_sleep_again(put: Put, ear: Ear, shard: Shard) -> None:
    fall_asleep(shard)
    put()
    (claimed,) = shard.run(shard.store.claim_ready(CycleRequest(60, claims=(("default", 2),)))).claimed
    shard.succeed(claimed)
    assert shard.claim(2) == ()
    ear.heard()
    assert shard.settle_idle() == math.inf
    put()
    assert ear.heard() == ["ready:default"]


def test_the_flag_of_one_shard_is_not_cleared_by_another(put: Put, ear: Ear, shard_of: Callable[..., Shard]) -> None:
    sleeper, busy = shard_of("sleeper"), shard_of("busy")
    fall_asleep(sleeper)
    put(2)
    assert len(busy.claim(2)) == 2
    ear.heard()
    put()
    assert ear.heard() == ["ready:default"]


def test_a_flag_can_be_taken_back(ear: Ear, shard: Shard, put: Put) -> None:
    fall_asleep(shard)
    shard.run(shard.store.forget_idle())
    put()
    assert ear.heard() == []


def test_other_queues_mean_another_flag(ear: Ear, shard: Shard, put: Put) -> None:
    fall_asleep(shard, "a")
    fall_asleep(shard, "b")
    put(queue_name="a")
    put(queue_name="b")
    assert ear.heard() == ["ready:b"]


def test_a_producer_that_missed_the_flag_delays_the_last_look_until_it_has_ended(database: Database, ear: Ear, shard: Shard) -> None:
    with producer(database) as connection:
        (run,) = enqueue(connection, [NewRun("app.task")])
        assert shard.claim(1) == ()
        assert all(0.01 <= shard.settle_idle() <= 0.05 for _ in range(5))
        connection.commit()
    assert ear.heard() == []
    assert shard.settle_idle() == 0
    assert shard.claim_one().result_id == run


def test_a_producer_with_a_later_id_that_read_the_flag_before_its_commit_delays_the_last_look_too(
    database: Database, ear: Ear, shard: Shard
) -> None:
    """The flag's transaction is older than the producer's, yet commits after the producer has looked."""
    with producer(database) as sleeper, producer(database) as connection:
        sleeper.execute("INSERT INTO reproq_queue_idle (queue_name, worker_id) VALUES ('default', 'worker-1')")
        (run,) = enqueue(connection, [NewRun("app.task")])
        sleeper.commit()
        assert shard.claim(1) == ()
        assert shard.settle_idle() > 0
        connection.commit()
    assert ear.heard() == []
    assert shard.settle_idle() == 0
    assert shard.claim_one().result_id == run


def test_a_producer_that_began_before_but_writes_after_the_flag_notifies(database: Database, ear: Ear, shard: Shard) -> None:
    with producer(database) as connection:
        connection.execute("SELECT 1")
        fall_asleep(shard)
        enqueue(connection, [NewRun("app.task")])
        connection.commit()
    assert ear.heard() == ["ready:default"]


def test_whatever_makes_a_run_ready_notifies(
    put: Put, ear: Ear, shard_of: Callable[..., Shard], keeper: Keeper, database: Database
) -> None:
    sleeper, busy = shard_of("sleeper"), shard_of("busy")
    put(5)
    retried, released, *_ = busy.claim(5, lease_s=0)
    (later,) = put(delay_s=60)
    fall_asleep(sleeper)

    def notified(action: Callable[[], object]) -> list[str]:
        action()
        return ear.heard()

    told = ["ready:default"]
    assert notified(lambda: busy.fail(retried, delay_s=0)) == told
    assert notified(lambda: busy.release(released)) == told
    assert notified(lambda: keeper.run(keeper.store.reclaim(1))) == told
    assert notified(lambda: keeper.run(keeper.store.release_workers(["busy"]))) == told
    database.query("UPDATE task_lane SET due_at = now() WHERE result_id = %s", later)
    assert notified(lambda: keeper.run(keeper.store.wake_due())) == told


def test_what_is_due_sooner_than_the_keeper_looks_is_told_to_sleepers(
    put: Put, ear: Ear, shard: Shard, shard_of: Callable[..., Shard], database: Database
) -> None:
    """However it came to wait: by its producer's wish, for its next attempt, or by a page of somebody."""
    put()
    busy = shard_of("busy")
    retried = busy.claim_one()
    fall_asleep(shard)
    put(delay_s=0.3)
    assert ear.heard() == ["ready:default"]
    busy.fail(retried, delay_s=0.3)
    assert ear.heard() == ["ready:default"]
    (far,) = put(delay_s=5)
    assert ear.heard() == []
    database.query("UPDATE task_runs SET run_after = now() + interval '0.3 s' WHERE result_id = %s", far)
    assert ear.heard() == ["ready:default"]


def test_who_sleeps_is_told_when_to_look_again_and_finds_what_is_due_by_then(put: Put, shard: Shard, database: Database) -> None:
    fall_asleep(shard)
    (run,) = put(delay_s=0.3)
    told_s = shard.cycle(claims=(("default", 1),)).next_token_s
    assert told_s is not None
    assert 0 <= told_s <= 0.3
    # No keeper is there: the look itself makes it ready.
    (claimed,) = eventually(lambda: shard.claim(1), interval=0.01, what="it is due")
    assert claimed.result_id == run
    ((late_s,),) = database.query("SELECT extract(epoch FROM claimed_at - due_at)::float8 FROM task_lane")
    assert late_s >= 0


def test_who_does_not_sleep_leaves_what_is_due_to_the_keeper(put: Put, shard: Shard, database: Database) -> None:
    put(delay_s=0.3)
    assert shard.cycle(claims=(("default", 1),)).next_token_s is None
    database.query("UPDATE task_lane SET due_at = now() - interval '1 s'")
    assert shard.claim(1) == ()


def test_a_wish_to_cancel_is_told(put: Put, ear: Ear, shard: Shard, database: Database) -> None:
    put(2)
    one, other = shard.claim(2)
    with database.connect() as connection:
        cancel(connection, [one.result_id])
    assert ear.heard() == ["cancel"]
    database.query("UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = %s", other.result_id)
    assert ear.heard() == ["cancel"]


def test_a_sleeper_says_again_that_it_sleeps(shard: Shard, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fall_asleep(shard)
    database.query("DELETE FROM reproq_queue_idle")
    assert shard.settle_idle() == math.inf
    assert database.query("SELECT 1 FROM reproq_queue_idle") == []
    monkeypatch.setattr(shard_module, "REFLAG_AFTER_S", 0)
    assert shard.settle_idle() == math.inf
    assert len(database.query("SELECT 1 FROM reproq_queue_idle")) == 1


class Listening(Actor):
    """A listener on a loop of its own, with what it was told."""

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__()
        self.notes = 0
        self._noted = asyncio.Event()
        self.listener = self.connect(Listener.connect(dsn, on_note=self._note, **options))

    def _note(self) -> None:
        self.notes += 1
        self._noted.set()

    def wait_heard(self, count: int) -> None:
        """Run its loop until it was told something *count* times."""
        self.run(self._wait_heard(count))

    async def _wait_heard(self, count: int) -> None:
        async with asyncio.timeout(HANGS_AFTER_S):
            while self.notes < count:
                self._noted.clear()
                await self._noted.wait()

    def end(self) -> None:
        self.run(self.listener.close())
        super().end()


def test_a_listener_passes_on_what_concerns_it(put: Put, shard: Shard, database: Database) -> None:
    listening = Listening(database.dsn, queues={"a"})
    with ended(listening):
        fall_asleep(shard, "a", "b")
        put(queue_name="b")
        put(queue_name="a")
        listening.wait_heard(1)  # a note
        database.query("SELECT reproq_wish_cancel('{1}')")
        listening.wait_heard(2)  # a wish to cancel
        assert listening.notes == 2


def test_a_listener_comes_back_and_says_that_it_may_have_missed_something(put: Put, shard: Shard, database: Database) -> None:
    listening = Listening(database.dsn, application_name="ear")
    with ended(listening):
        ((ended_now,),) = database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ear (listener)'")
        assert ended_now
        listening.wait_heard(1)  # a note after the gap
        fall_asleep(shard)
        put()
        listening.wait_heard(2)  # a note
