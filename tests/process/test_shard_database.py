"""The database goes away and comes back under a working shard."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.runs import CycleReply, CycleRequest, QueueLoad
from reproq_supervisor.pool.conversation import Conversation, StoreOptions
from reproq_supervisor.pool.held import Held, HeldRuns
from reproq_supervisor.pool.ledger import Ledger
from reproq_supervisor.store import connection
from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.shard import ShardStore
from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Database
from tests.support.runs import ODD, Runs
from tests.support.shard import RunningShard, running_shard

_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE 'reproq%' AND datname = current_database()
"""


@pytest.fixture
def runs(own_database: Database) -> Runs:
    return Runs(own_database)


def wait_database(shard: RunningShard, *, up: bool) -> None:
    shard.wait_snapshot(lambda s: s["database"]["up"] is up, f"the database is {'up' if up else 'down'}")


def wait_running(shard: RunningShard, count: int) -> None:
    shard.wait_snapshot(lambda s: s["running"] == count, f"{count} tasks run")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_results_are_kept_while_the_database_is_gone(own_database: Database, runs: Runs, how: str) -> None:
    cluster = own_database.cluster
    with running_shard(own_database, executors=4, lease=30) as shard:
        pids = shard.wait_executors(4)
        ids = [*runs.add("nap", 1, count=3), *runs.add("fail", max_attempts=1)]
        wait_running(shard, 3)
        getattr(cluster, how)()
        wait_database(shard, up=False)
        assert shard.snapshot["database"]["error"]
        assert "no database" in shard.snapshot["why"]
        wait_running(shard, 0)  # they ended meanwhile; the database does not know yet
        cluster.start()
        assert [run.status for run in runs.ended(ids)] == ["SUCCESSFUL"] * 3 + ["FAILED"]
        assert {run.attempts for run in runs.look(ids)} == {1}
        assert runs.end_of("echo").status == "SUCCESSFUL"
        assert shard.wait_executors(4) == pids
        assert shard.events("database.lost")
        assert len(shard.events("database.connected")) == 2


@pytest.mark.slow
def test_work_goes_on_over_many_lost_connections(own_database: Database, runs: Runs) -> None:
    with running_shard(own_database, executors=2) as shard:
        ids = runs.add("nap", 0.005, count=300)
        cut = 0
        while runs.lane():
            cut += len(own_database.query(_CUT))
            shard.listen(0.1)
        assert cut > 3
        assert {run.end for run in runs.ended(ids)} == {("SUCCESSFUL", None, 1)}


def test_a_run_whose_lease_was_lost_meanwhile_is_stopped_after_the_reconnection(own_database: Database, runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    with running_shard(own_database, executors=1, lease=30) as shard:
        runs.add(f"{ODD}tick", str(path), 60)
        wait_running(shard, 1)
        (first,) = shard.snapshot["executors"]["pids"]
        own_database.query("CHECKPOINT")  # a claim does not wait for the disk, and a crash would forget it
        own_database.cluster.kill()
        wait_database(shard, up=False)
        own_database.cluster.start()
        assert runs.release(shard.start_message["worker_id"]) == 1
        eventually(lambda: state_of(first) in ("", "Z"), what="the execution without a lease is stopped")
        eventually(lambda: len({line.split()[0] for line in path.read_text().splitlines()}) == 2, what="it runs anew")


def test_a_shard_without_a_database_becomes_ready_when_there_is_one(own_database: Database, runs: Runs) -> None:
    own_database.cluster.stop()
    with running_shard(own_database, executors=2, ready=False) as shard:
        shard.wait_snapshot(lambda s: "no database" in s["why"], "it says why it is not ready")
        shard.wait_executors(2)
        assert shard.snapshot["state"] == "booting"
        own_database.cluster.start()
        shard.wait_ready()
        assert runs.end_of("echo").status == "SUCCESSFUL"


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_drain_ends_without_a_database(own_database: Database, runs: Runs, how: str) -> None:
    with running_shard(own_database, executors=1, lease=30) as shard:
        runs.add("nap", 60)
        wait_running(shard, 1)
        getattr(own_database.cluster, how)()
        shard.wait_snapshots(4)
        shard.say("drain", timeout=0)
        assert shard.wait_exit(timeout=10) == 0
        assert shard.events("shard.left_unwritten")
        own_database.cluster.thaw()


@pytest.mark.slow
def test_a_database_that_stopped_answering_is_noticed(own_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the conversation here, since its patience is half a minute."""
    monkeypatch.setattr(connection, "ANSWER_WITHIN_S", 2.0)
    options = StoreOptions(
        own_database.dsn, "test", "reproq test", listen=True, prepare=True, poll_min_s=0.02, poll_max_s=0.1, concurrency=1
    )
    ledger = Ledger(HeldRuns(), Turns({"default": 1}), 10.0)
    happened: dict[str, list[asyncio.Future[None]]] = {}
    replies: asyncio.Queue[None] = asyncio.Queue()

    def note(event: str, **_: object) -> None:
        for waiter in happened.pop(event, []):
            waiter.set_result(None)

    def next_event(event: str) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        happened.setdefault(event, []).append(waiter)
        return waiter

    talk = Conversation(
        options,
        ledger,
        wanted=lambda: 5,
        most_counted=lambda: 0,
        is_busy=lambda: False,
        on_reply=lambda *_: replies.put_nowait(None),
        on_event=note,
    )

    async def scenario() -> None:
        async with asyncio.timeout(60):
            connected = next_event("database.connected")
            task = asyncio.create_task(talk.run(lambda: None))
            await connected
            for _ in range(20):  # more than a statement needs to be prepared by the server
                talk.wake(work_may_wait=True)
                await replies.get()
            lost = next_event("database.lost")
            await asyncio.to_thread(own_database.cluster.freeze)
            talk.wake(work_may_wait=True)
            await lost
            assert not talk.up
            back = next_event("database.connected")
            own_database.cluster.thaw()
            await back
            assert talk.up
            talk.stop()
            await task

    asyncio.run(scenario())


@pytest.mark.parametrize("is_busy", [True, False])
def test_with_a_backlog_what_was_claimed_is_handed_over_while_the_next_claim_is_under_way(
    own_database: Database, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    told: list[str] = []
    seen: list[int] = []
    held = HeldRuns()
    with own_database.connect() as connection:
        enqueue(connection, [NewRun("app.task") for _ in range(10)])
    cycle = ShardStore.cycle

    async def noted(store: ShardStore, request: CycleRequest) -> CycleReply:
        told.append("asked")
        reply = await cycle(store, request)
        told.append("answered")
        return reply

    def take(new: list[Held], *_: object) -> None:
        told.append(f"told {len(new)}")
        seen.extend(each.claimed.result_id for each in new)
        if len(new) < 4:
            talk.stop()

    monkeypatch.setattr(ShardStore, "cycle", noted)
    options = StoreOptions(
        own_database.dsn, "test", "reproq test", listen=False, prepare=True, poll_min_s=0.02, poll_max_s=0.1, concurrency=1
    )
    talk = Conversation(
        options,
        Ledger(held, Turns({"default": 1}), 10.0),
        wanted=lambda: 4,
        most_counted=lambda: 0,
        is_busy=lambda: is_busy,
        on_reply=take,
        on_event=lambda *_, **__: None,
    )
    asyncio.run(asyncio.wait_for(talk.run(lambda: None), 60))
    assert sorted(seen) == list(range(1, 11))
    full = (
        ["asked", "answered", "asked", "told 4", "answered"] if is_busy else ["asked", "answered", "told 4", "asked", "answered", "told 4"]
    )
    assert told[: len(full)] == full


def test_what_was_claimed_does_not_wait_for_a_count(own_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with own_database.connect() as connection:
        enqueue(connection, [NewRun("app.task") for _ in range(10)])
    load = ShardStore.load

    async def noted(store: ShardStore, queues: Sequence[str], most: int) -> QueueLoad:
        told.append("counted")
        return await load(store, queues, most)

    def take(new: list[Held], *_: object) -> None:
        told.append(f"told {len(new)}")
        if len(new) < 4:
            talk.stop()

    monkeypatch.setattr(ShardStore, "load", noted)
    options = StoreOptions(
        own_database.dsn, "test", "reproq test", listen=False, prepare=True, poll_min_s=0.02, poll_max_s=0.1, concurrency=1
    )
    ledger = Ledger(HeldRuns(), Turns({"default": 1}), 10.0)
    talk = Conversation(
        options, ledger, wanted=lambda: 4, most_counted=lambda: 1, is_busy=lambda: True, on_reply=take, on_event=lambda *_, **__: None
    )
    asyncio.run(asyncio.wait_for(talk.run(lambda: None), 60))
    assert told[:3] == ["counted", "told 4", "counted"]


def test_what_was_claimed_is_handed_over_when_the_database_goes(own_database: Database) -> None:
    seen: list[int] = []
    with own_database.connect() as connection:
        enqueue(connection, [NewRun("app.task") for _ in range(10)])

    def is_busy() -> bool:
        # Between the answer and the next question.
        own_database.cluster.kill()
        return True

    def take(new: list[Held], *_: object) -> None:
        seen.extend(each.claimed.result_id for each in new)
        talk.stop()

    options = StoreOptions(
        own_database.dsn, "test", "reproq test", listen=False, prepare=True, poll_min_s=0.02, poll_max_s=0.1, concurrency=1
    )
    ledger = Ledger(HeldRuns(), Turns({"default": 1}), 10.0)
    talk = Conversation(
        options, ledger, wanted=lambda: 4, most_counted=lambda: 0, is_busy=is_busy, on_reply=take, on_event=lambda *_, **__: None
    )
    asyncio.run(asyncio.wait_for(talk.run(lambda: None), 60))
    assert seen == [1, 2, 3, 4]


def test_a_hand_over_that_fails_leaves_no_cycle_under_way(own_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would wait for it, and its connection is closed under it."""
    left: list[str | None] = []
    with own_database.connect() as connection:
        enqueue(connection, [NewRun("app.task") for _ in range(10)])
    close = ShardStore.close

    async def noted(store: ShardStore) -> None:
        left.extend(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())
        await close(store)

    def take(new: list[Held], *_: object) -> None:
        if new:
            raise LookupError("no room")

    monkeypatch.setattr(ShardStore, "close", noted)
    options = StoreOptions(
        own_database.dsn, "test", "reproq test", listen=False, prepare=True, poll_min_s=0.02, poll_max_s=0.1, concurrency=1
    )
    ledger = Ledger(HeldRuns(), Turns({"default": 1}), 10.0)
    talk = Conversation(
        options, ledger, wanted=lambda: 4, most_counted=lambda: 0, is_busy=lambda: True, on_reply=take, on_event=lambda *_, **__: None
    )

    async def scenario() -> None:
        async with asyncio.timeout(60):
            await talk.run(lambda: None)

    with pytest.raises(LookupError, match="no room"):
        asyncio.run(scenario())
    assert left == []


def test_without_a_listener_everything_works_by_polling(database: Database) -> None:
    with running_shard(database, store={"listen": False, "prepare": False}):
        runs = Runs(database)
        for _ in range(3):
            assert runs.end_of("echo").status == "SUCCESSFUL"
