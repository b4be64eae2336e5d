"""The keeper's duties: reclaim, release, wake, settle, repair; each safe to run twice."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.keeper.housekeeping import housekeeping
from reproq_supervisor.store.keeper import KeeperStore
from tests.store.actors import Keeper, Shard, assert_invariant, ended, lane, record
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


def test_an_expired_lease_is_an_attempt_and_its_first_retry_is_at_once(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    (run,) = put()
    shard.claim_one(lease_s=0)
    assert keeper.run(keeper.store.reclaim()) == 1
    assert keeper.run(keeper.store.reclaim()) == 0
    told, row = record(database, run), lane(database, run)
    assert (told["status"], told["attempts"], told["worker_ids"]) == ("READY", 1, ["worker-1"])
    assert told["errors_json"][0]["kind"] == "lease_expiry"
    assert (row["state"], row["crashes"]) == ("ready", 1)


def test_an_expired_lease_of_the_last_attempt_is_a_failure(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    (run,) = put(max_attempts=1)
    shard.claim_one(lease_s=0)
    keeper.run(keeper.store.reclaim())
    assert (record(database, run)["status"], record(database, run)["last_error"]) == ("FAILED", "Worker heartbeat lost or process crashed")


def test_a_lease_that_lasts_is_left_alone(put: Put, shard: Shard, keeper: Keeper) -> None:
    put()
    claimed = shard.claim_one()
    assert keeper.run(keeper.store.reclaim()) == 0
    assert shard.held(claimed)


def test_reclaim_goes_batch_by_batch(put: Put, shard: Shard, keeper: Keeper) -> None:
    put(25)
    shard.claim(25, lease_s=0)
    counts = [keeper.run(keeper.store.reclaim(10)) for _ in range(4)]
    assert counts == [10, 10, 5, 0]


def test_one_poisoned_row_never_stops_the_sweep(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    poisoned, *others = put(3)
    shard.claim(3, lease_s=0)
    database.query(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.result_id = {poisoned} THEN RAISE EXCEPTION 'never'; END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE TRIGGER refuse BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert keeper.run(keeper.store.reclaim(1)) == 0
    assert [keeper.run(keeper.store.reclaim(1)) for _ in others] == [1, 1]
    assert keeper.run(keeper.store.reclaim(1)) == 0
    database.query("DROP TRIGGER refuse ON task_runs")
    database.query("UPDATE task_lane SET leased_until = now() - interval '1 s' WHERE result_id = %s", poisoned)
    assert keeper.run(keeper.store.reclaim(1)) == 1


@pytest.mark.parametrize("code", ["P0001", "22000", "42P01", "0A000", "XX000", "MY001"])
def test_whatever_a_row_raises_the_others_are_reclaimed_and_it_is_reported(put: Put, shard: Shard, database: Database, code: str) -> None:
    one, poisoned, other = put(3)
    shard.claim(3, lease_s=0)
    database.query(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.result_id = {poisoned} THEN RAISE EXCEPTION 'never' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE TRIGGER refuse BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
    told: list[str] = []
    keeper = Keeper(database.dsn, on_warning=told.append)
    with ended(keeper):
        assert keeper.run(keeper.store.reclaim()) == 2
        assert keeper.run(keeper.store.reclaim()) == 0
    (words,) = told
    assert words.startswith(f"task run {poisoned}: ")
    assert words.endswith(": never")
    assert {record(database, run)["status"] for run in (one, other)} == {"READY"}


def test_two_keepers_reclaim_each_lease_once(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    put(2)
    one, other = shard.claim(2, lease_s=0)
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT FROM task_lane WHERE result_id = %s FOR UPDATE", (one.result_id,))
        assert keeper.run(keeper.store.reclaim()) == 1
    assert keeper.run(keeper.store.reclaim()) == 1
    assert [len(record(database, c.result_id)["errors_json"]) for c in (one, other)] == [1, 1]


def test_the_runs_of_dead_workers_are_given_back_uncounted(
    put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database
) -> None:
    put(6)
    dead, alive = shard_of("dead"), shard_of("alive")
    dead.settle_idle()
    held_by_dead, held_by_alive = dead.claim(4), alive.claim(2)
    assert keeper.run(keeper.store.release_workers(["dead", "unknown"], batch=3)) == 4
    assert keeper.run(keeper.store.release_workers(["dead"])) == 0
    assert len(alive.held(*held_by_alive)) == 2
    assert dead.succeed(held_by_dead[0]).lost == {held_by_dead[0].result_id}
    assert {lane(database, c.result_id)["attempts"] for c in held_by_dead} == {0}
    assert database.query("SELECT * FROM reproq_queue_idle") == []


def test_what_is_due_is_woken_and_the_next_time_is_told(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    soon, later = [*put(delay_s=30), *put(delay_s=90)]
    woken = keeper.run(keeper.store.wake_due())
    assert woken.count == 0
    assert woken.next_due_s == pytest.approx(30, abs=5)
    database.query("UPDATE task_lane SET due_at = due_at - interval '60 s'")
    woken = keeper.run(keeper.store.wake_due())
    assert woken.count == 1
    assert woken.next_due_s == pytest.approx(30, abs=5)
    assert [claimed.result_id for claimed in shard.claim(5)] == [soon]
    assert lane(database, later)["state"] == "parked"


def test_nothing_parked_means_no_next_time(keeper: Keeper) -> None:
    woken = keeper.run(keeper.store.wake_due())
    assert (woken.count, woken.next_due_s) == (0, None)


def test_waking_goes_batch_by_batch_and_says_that_more_are_due(put: Put, keeper: Keeper, database: Database) -> None:
    put(5, delay_s=30)
    database.query("UPDATE task_lane SET due_at = due_at - interval '60 s'")
    assert [(w.count, w.next_due_s) for w in (keeper.run(keeper.store.wake_due(3)) for _ in range(2))] == [(3, 0), (2, None)]


def test_runs_parked_for_other_reasons_are_not_woken(put: Put, keeper: Keeper) -> None:
    put(2, lock_key="user:1")
    assert keeper.run(keeper.store.wake_due()).count == 0


def test_a_delayed_run_becomes_due_by_itself(put: Put, shard: Shard, keeper: Keeper) -> None:
    (run,) = put(delay_s=0.2)
    eventually(lambda: keeper.run(keeper.store.wake_due()).count, what="the run is due")
    assert shard.claim_one().result_id == run


def test_a_wish_for_a_run_that_waits_again_is_fulfilled(put: Put, keeper: Keeper, database: Database) -> None:
    waiting, ended = [*put(delay_s=60), *put(delay_s=60)]
    database.query("SELECT reproq_cancel(ARRAY[%s::bigint])", ended)
    database.query(
        """INSERT INTO reproq_cancel_requests SELECT u.run, now() - interval '1 h'
           FROM unnest(ARRAY[%s::bigint, %s, 12345]) AS u (run) CROSS JOIN generate_series(1, 2)""",
        waiting,
        ended,
    )
    assert keeper.run(keeper.store.settle_wishes()) == 1
    assert record(database, waiting)["status"] == "CANCELLED"
    assert database.query("SELECT * FROM reproq_cancel_requests") == []


def test_the_sweep_makes_missing_lane_rows_and_removes_left_over_ones(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    ids = put(50)
    shard.claim(10)
    database.query("DELETE FROM task_lane WHERE result_id %% 5 = %s", 0)
    database.query("UPDATE task_runs SET status = 'SUCCESSFUL', rev = rev + 1 WHERE result_id %% 7 = %s", 1)
    faults = database.query("SELECT fault, count(*) FROM reproq_check_invariant(0) GROUP BY 1 ORDER BY 1")
    missing = sum(run % 5 == 0 and run % 7 != 1 for run in ids)
    left_over = sum(run % 5 != 0 and run % 7 == 1 for run in ids)
    assert faults == [("lane row of a run that has ended", left_over), ("no lane row", missing)]
    repaired = keeper.run(keeper.store.repair())
    assert (repaired.made, repaired.removed) == (missing, left_over)
    repaired = keeper.run(keeper.store.repair())
    assert (repaired.made, repaired.removed) == (0, 0)


def test_rows_restored_without_their_triggers_are_repaired_and_run(shard: Shard, keeper: Keeper, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            """INSERT INTO task_runs (spec_json, spec_hash, task_path, run_after, dedupe_key)
               SELECT '{}', n::text, 'app.task', CASE WHEN n = 1 THEN now() + interval '1 h' END, NULL
               FROM generate_series(1, 5) n"""
        )
    assert keeper.run(keeper.store.repair()).made == 5
    assert len(shard.claim(10)) == 4


def test_a_look_at_everything_comes_in_slices_and_goes_on_where_it_was(keeper: Keeper, database: Database) -> None:
    database.query(
        "INSERT INTO task_runs (spec_json, spec_hash, task_path) SELECT '{}', n::text, 'app.task' FROM generate_series(1, 4500) n"
    )
    database.query("DELETE FROM task_lane WHERE result_id IN (1, 3000, 4500)")
    (repair,) = (duty for duty in housekeeping() if duty.name == "repair")
    slices = []
    for _ in range(4):
        assert database.query("SELECT count(*) FROM reproq_check_invariant(0)") == [(3 - sum(made for made, _ in slices),)]
        ran = keeper.run(repair.run(keeper.store))
        slices.append((ran.count, ran.again_in_s < math.inf))
    assert slices == [(1, True), (1, True), (1, True), (0, False)]
    database.query("DELETE FROM task_lane WHERE result_id = 1")
    assert keeper.run(repair.run(keeper.store)).count == 1  # the next look begins at the beginning


def test_a_sweep_over_keys_and_workflows_comes_in_slices(
    put: Put, shard: Shard, keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproq_supervisor.store.keeper._SWEEP_BATCH", 2)
    for key in range(5):
        put(2, lock_key=f"key-{key}")
    assert len(shard.claim(10)) == 5
    database.query("DELETE FROM task_lane WHERE state = 'running'")  # by hand, and nobody left word of their keys
    database.query("UPDATE task_runs SET status = 'SUCCESSFUL', rev = rev + 1 WHERE result_id %% 2 = %s", 1)
    (sweep,) = (duty for duty in housekeeping() if duty.name == "sweep")
    rounds = [keeper.run(sweep.run(keeper.store)).again_in_s < math.inf for _ in range(4)]
    assert rounds == [True, True, True, False]  # keys in slices of two, the end of them, and what waits for workflows
    assert len(shard.claim(10)) == 5


def test_workers_and_sleepers_that_are_gone_are_forgotten(shard: Shard, keeper: Keeper, database: Database) -> None:
    shard.settle_idle()
    database.query("INSERT INTO reproq_workers (worker_id, last_seen_at) VALUES ('old', now() - interval '1 h'), ('new', now())")
    keeper.run(keeper.store.prune_idle(60))
    assert len(database.query("SELECT 1 FROM reproq_queue_idle")) == 1
    database.query("UPDATE reproq_queue_idle SET seen_at = now() - interval '2 min'")
    keeper.run(keeper.store.prune_idle(60))
    assert database.query("SELECT 1 FROM reproq_queue_idle") == []
    assert keeper.run(keeper.store.prune_workers(600)) == 1
    assert database.query("SELECT worker_id FROM reproq_workers") == [("new",)]


def test_no_number_of_dead_shards_ends_a_run_that_never_began(
    put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database
) -> None:
    (run,) = put()
    suspicions = []
    for n in range(15):
        shard = shard_of(f"dead-{n}")
        suspicions.append(shard.claim_one().is_suspect)
        assert keeper.run(keeper.store.release_workers([f"dead-{n}"])) == 1
    row = lane(database, run)
    assert (row["state"], row["attempts"], row["releases"], row["deaths"]) == ("ready", 0, 0, 3)
    assert suspicions == [False] * 3 + [True] * 12


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_run_that_its_shards_never_survive_waits_with_the_fourth_and_is_charged_from_the_fifth_on(
    put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database, max_attempts: int
) -> None:
    (run,) = put(max_attempts=max_attempts)
    for n in range(4 + max_attempts):
        assert record(database, run)["attempts"] == max(0, n - 4)
        assert lane(database, run)["state"] == ("parked" if n > 3 else "ready")
        database.query("UPDATE task_lane SET due_at = now() WHERE result_id = %s AND park_reason = 'due'", run)
        keeper.run(keeper.store.wake_due())
        shard = shard_of(f"dead-{n}")
        shard.show(shard.claim_one())
        assert keeper.run(keeper.store.release_workers([f"dead-{n}"])) == 1
    told = record(database, run)
    assert (told["status"], told["attempts"]) == ("FAILED", max_attempts)
    assert {error["kind"] for error in told["errors_json"]} == {"worker_crashed"}
    assert "shard" in told["errors_json"][0]["message"]


def test_only_the_last_of_those_that_ran_is_suspected(put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database) -> None:
    (long,) = put(max_attempts=1)
    killers = []
    for n in range(6):
        shard = shard_of(f"dead-{n}")
        claimed = shard.claim_one()
        assert claimed.result_id == long
        shard.show(claimed)
        killers += put(priority=-1, max_attempts=1)
        shard.show(shard.claim_one())
        assert keeper.run(keeper.store.release_workers([f"dead-{n}"])) == 2
        database.query("DELETE FROM task_runs WHERE result_id = %s", killers[-1])
    row = lane(database, long)
    assert (row["state"], row["attempts"], row["releases"], row["deaths"]) == ("ready", 0, 6, 0)


def test_of_two_that_are_always_claimed_together_one_waits_uncharged_so_that_they_run_apart(
    put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database
) -> None:
    both = put(2, max_attempts=1)
    for n in range(4):
        shard = shard_of(f"dead-{n}")
        # Nobody was seen to run before they are suspects: a shard that dies at once shows nothing.
        for claimed in shard.claim(2):
            if claimed.is_suspect:
                shard.show(claimed)
        assert keeper.run(keeper.store.release_workers([f"dead-{n}"])) == 2
    rows = sorted((lane(database, run)["state"], lane(database, run)["attempts"]) for run in both)
    assert rows == [("parked", 0), ("ready", 0)]
    waits = next(run for run in both if lane(database, run)["state"] == "parked")
    ((due_in_s,),) = database.query("SELECT extract(epoch FROM due_at - now())::float FROM task_lane WHERE result_id = %s", waits)
    assert 20 < due_in_s < 40
    assert database.query(
        "SELECT r.run_after = l.due_at FROM task_runs r JOIN task_lane l USING (result_id) WHERE result_id = %s", waits
    ) == [(True,)]


def test_a_wish_to_cancel_a_suspect_is_fulfilled_without_a_charge(
    put: Put, shard_of: Callable[..., Shard], keeper: Keeper, database: Database
) -> None:
    (run,) = put(max_attempts=1)
    shard = shard_of("dead")
    shard.show(shard.claim_one())
    database.query("UPDATE task_lane SET deaths = 5 WHERE result_id = %s", run)
    database.query("SELECT reproq_cancel(ARRAY[%s::bigint])", run)
    assert keeper.run(keeper.store.release_workers(["dead"])) == 1
    assert record(database, run)["status"] == "CANCELLED"


def test_two_keepers_at_once_do_everything_once(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    dead, late = shard_of("dead"), shard_of("late")
    put(400)
    released = [claimed.result_id for _ in range(2) for claimed in dead.claim(50)]
    expired = [claimed.result_id for _ in range(2) for claimed in late.claim(50, lease_s=0)]
    due = put(100, delay_s=3600)
    database.query("UPDATE task_lane SET due_at = now() WHERE park_reason = 'due'")

    async def work(keeper: KeeperStore) -> list[int]:
        counts = [0, 0, 0]
        for _ in range(40):
            counts[0] += await keeper.release_workers(["dead"], batch=7)
            counts[1] += await keeper.reclaim(7)
            counts[2] += (await keeper.wake_due(7)).count
            await keeper.settle_wishes()
            await keeper.repair()
        return counts

    async def both() -> list[list[int]]:
        keepers = [await KeeperStore.connect(database.dsn) for _ in range(2)]
        counts = await asyncio.gather(*(work(keeper) for keeper in keepers))
        for keeper in keepers:
            await keeper.close()
        return counts

    counts = asyncio.run(both())
    assert [sum(each) for each in zip(*counts, strict=True)] == [len(released), len(expired), len(due)]
    attempts = dict(database.query("SELECT attempts, count(*) FROM task_lane WHERE state = 'ready' GROUP BY 1"))
    assert attempts == {0: 400, 1: len(expired)}
