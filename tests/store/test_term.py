"""The keeper's term: one acts, and what another one sends is refused."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.errors import TermLost
from reproq_supervisor.store.term import KeeperTerm
from tests.store.actors import Keeper, Shard, ended, lane
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture
def keeper_of(database: Database) -> Iterator[Callable[[str], Keeper]]:
    """Makes keepers that stand for election under a name."""
    with ExitStack() as stack:

        def make(holder: str) -> Keeper:
            keeper = Keeper(database.dsn, holder=holder)
            stack.enter_context(ended(keeper))
            return keeper

        yield make


def elect(keeper: Keeper) -> bool:
    keeper.run(keeper.store.term.elect())
    return keeper.store.term.is_ours


def end_term(database: Database) -> None:
    database.query("UPDATE reproq_keeper_term SET ends_at = now() - interval '1 ms'")


def test_the_first_candidate_keeps_and_the_others_see_who_does(keeper_of: Callable[[str], Keeper]) -> None:
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    assert not elect(other)
    assert elect(one)
    seen = other.store.term.seen
    assert seen is not None
    assert (seen.term_no, seen.holder) == (1, "one")
    assert seen.left_s > 0


def test_when_a_term_has_ended_the_next_one_begins(keeper_of: Callable[[str], Keeper], database: Database) -> None:
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    end_term(database)
    assert elect(other)
    assert not elect(one)
    assert database.query("SELECT term_no, holder FROM reproq_keeper_term") == [(2, "other")]


def test_who_resigns_is_followed_at_once(keeper_of: Callable[[str], Keeper]) -> None:
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    one.run(one.store.term.resign())
    assert elect(other)
    with pytest.raises(TermLost):
        one.run(one.store.wake_due())


def test_who_lost_its_connection_is_followed_at_once(keeper_of: Callable[[str], Keeper]) -> None:
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    one.run(one.store.close())
    eventually(lambda: elect(other), what="its server process is gone, and the other one follows")


def test_a_keeper_can_do_nothing_after_its_term(put: Put, shard: Shard, keeper_of: Callable[[str], Keeper], database: Database) -> None:
    (expired, due) = [*put(), *put(delay_s=3600)]
    shard.claim(1, lease_s=0)
    database.query("UPDATE task_lane SET due_at = now() WHERE park_reason = 'due'")
    database.query("INSERT INTO reproq_workers (worker_id, last_seen_at) VALUES ('old', now() - interval '1 h')")
    database.query("INSERT INTO reproq_queue_idle (worker_id, queue_name, seen_at) VALUES ('w', 'q', now() - interval '1 h')")
    late = keeper_of("late")
    store = late.store
    before = database.query("SELECT string_agg(l::text, ' ') FROM task_lane l")
    duties = (
        *(store.reclaim, store.wake_due, store.settle_wishes, store.settle_keys, store.settle_flows, store.sweep_flows, store.sweep_keys),
        *(store.repair, store.prune_idle, lambda: store.prune_workers(1)),
    )
    for duty in duties:
        store.term.renew_s = 600
        assert elect(late)
        end_term(database)
        with pytest.raises(TermLost):
            late.run(duty())
    assert database.query("SELECT string_agg(l::text, ' ') FROM task_lane l") == before
    assert len(database.query("SELECT 1 FROM reproq_workers WHERE worker_id = 'old'")) == 1
    assert (lane(database, expired) or {})["state"] == "running"
    assert (lane(database, due) or {})["state"] == "parked"


def test_what_is_everybodys_needs_no_term(put: Put, shard: Shard, keeper_of: Callable[[str], Keeper]) -> None:
    put()
    shard.claim(1)
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    assert not elect(other)
    assert other.run(other.store.release_workers(["worker-1"])) == 1
    assert other.run(other.store.sync_queue_settings({"default": 30.0})) == ["default"]


def test_no_term_begins_while_a_duty_of_the_last_one_is_under_way(keeper_of: Callable[[str], Keeper], database: Database) -> None:
    one, other = keeper_of("one"), keeper_of("other")
    assert elect(one)
    with database.connect(autocommit=False) as duty:
        duty.execute("SELECT reproq_under_term(1, 'one', true)")
        end_term(database)
        assert not elect(other)
        assert other.store.term.seen is not None
        assert other.store.term.seen.left_s == 0
    assert elect(other)


def test_a_term_that_ended_while_nobody_looked_goes_on(keeper_of: Callable[[str], Keeper], database: Database) -> None:
    one = keeper_of("one")
    assert elect(one)
    end_term(database)
    assert elect(one)
    assert one.run(one.store.wake_due()).count == 0
    assert database.query("SELECT term_no FROM reproq_keeper_term") == [(1,)]


def test_a_duty_of_many_statements_renews_between_them(keeper_of: Callable[[str], Keeper], database: Database) -> None:
    one = keeper_of("one")
    assert elect(one)
    one.store.term.renew_s = 0
    for _ in range(3):
        end_term(database)
        one.run(one.store.sweep_keys())
    assert database.query("SELECT term_no, ends_at > now() FROM reproq_keeper_term") == [(1, True)]


def test_of_many_candidates_at_once_one_is_elected(database: Database) -> None:
    async def race() -> list[list[str]]:
        connections = [await StoreConnection.open(database.dsn, application_name="test", prepare=True) for _ in range(8)]
        rounds = []
        for number in range(20):
            terms = [KeeperTerm(connection, f"{number}-{n}") for n, connection in enumerate(connections)]
            await asyncio.gather(*(term.elect() for term in terms))
            rounds.append([term.seen.holder for term in terms if term.seen is not None and term.is_ours])
            await connections[0].ask("reproq_keeper_term", "resign", {"holder": rounds[-1][0]})
        for connection in connections:
            await connection.close()
        return rounds

    assert [len(elected) for elected in asyncio.run(race())] == [1] * 20


def test_a_clock_that_is_set_back_keeps_nobody_in_office(keeper_of: Callable[[str], Keeper], database: Database) -> None:
    gone, other = keeper_of("gone"), keeper_of("other")
    assert elect(gone)
    # As after an hour back; behind a pooler nobody knows whether the holder's server process still is there.
    database.query("UPDATE reproq_keeper_term SET ends_at = ends_at + interval '1 h', backend_pid = NULL")
    assert elect(other)
    with pytest.raises(TermLost):
        gone.run(gone.store.wake_due())
