"""Queues of one pool take turns by weight: inside one claim, over many, and over the claims of several shards."""

import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import multiprocess
import pytest

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.runs import CycleReply, RunId
from tests.store.actors import Keeper, Shard
from tests.support.eventually import eventually
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
MOST_WANTED = 20
LEFT = b"SELECT count(*) < 1500 FROM task_lane WHERE state = 'ready'"


class Claimer:
    """A shard with its turns, as a ledger keeps them."""

    def __init__(self, shard: Shard, weights: Mapping[str, int]) -> None:
        self._shard = shard
        self._turns = Turns(weights)

    def claim(self, wanted: int) -> Counter[str]:
        """Claim by turns; return what came, by queue."""
        plan = self._turns.take(wanted)
        reply: CycleReply = self._shard.cycle(claims=tuple(plan))
        got = Counter(each.queue_name for each in reply.claimed)
        self._turns.settle(plan, got, is_cut=reply.is_cut)
        return got


def test_what_some_cannot_fill_is_divided_by_what_the_others_wanted(put: Put, shard: Shard) -> None:
    for queue, count in (("b", 100), ("c", 100), ("d", 100), ("e", 2)):
        put(count, queue_name=queue)
    reply = shard.cycle(claims=(("a", 60), ("b", 20), ("c", 10), ("e", 10), ("d", 0)))
    assert Counter(each.queue_name for each in reply.claimed) == {"b": 66, "c": 32, "e": 2}


def test_one_who_wanted_nothing_gets_what_nobody_else_can_use(put: Put, shard: Shard) -> None:
    put(100, queue_name="d")
    put(3, queue_name="b")
    reply = shard.cycle(claims=(("a", 60), ("b", 20), ("d", 0)))
    assert Counter(each.queue_name for each in reply.claimed) == {"b": 3, "d": 77}


@pytest.mark.parametrize(
    ("weights", "backlog"),
    [
        ({"a": 7}, {"a": 900}),
        ({"a": 9, "b": 1}, {"a": 900, "b": 900}),
        ({"a": 1, "b": 3}, {"a": 900, "b": 30}),
        ({"a": 20, "b": 5, "c": 2, "d": 1, "e": 1}, {"a": 0, "b": 900, "c": 40, "d": 300, "e": 300}),
        ({"a": 20, "b": 5, "c": 2, "d": 1, "e": 1}, {"a": 900, "b": 10, "c": 300, "d": 0, "e": 300}),
    ],
    ids=str,
)
def test_who_has_a_backlog_gets_its_weight_from_several_shards(
    put: Put, shard_of: Callable[..., Shard], weights: dict[str, int], backlog: dict[str, int]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng, shards = random.Random(seed), 3
    for queue, count in backlog.items():
        put(count, queue_name=queue)
    claimers = [Claimer(shard_of(f"worker-{n}"), weights) for n in range(shards)]
    left, got = Counter(backlog), Counter[str]()
    off_by = shards * (MOST_WANTED + len(weights))
    while +left:
        wanted = rng.randint(1, MOST_WANTED)
        brought = rng.choice(claimers).claim(wanted)
        # Nothing is left lying while somebody has room for it.
        assert brought.total() == min(wanted, left.total())
        left -= brought
        got += brought
        waiting = [queue for queue, count in backlog.items() if count >= 300 and left[queue]]
        total = sum(weights[queue] for queue in waiting)
        for queue in waiting if len(waiting) == sum(count >= 300 for count in backlog.values()) else ():
            fair = sum(got[each] for each in waiting) * weights[queue] / total
            assert abs(got[queue] - fair) <= off_by, (queue, got)
    assert got == +Counter(backlog)


def test_large_specs_of_one_queue_do_not_hold_up_another(database: Database, shard: Shard, put: Put) -> None:
    """A claim whose bytes are used up serves the first in line only: the line changes."""
    put(30, queue_name="z")
    database.query(
        """INSERT INTO task_runs (queue_name, spec_json, spec_hash, task_path)
           SELECT 'a', jsonb_build_object('task_path', 'app.large', 'args', jsonb_build_array(
                      (SELECT string_agg(md5(n::text || i::text), '') FROM generate_series(1, 320) i))), n::text, 'app.large'
           FROM generate_series(1, 30) n"""
    )
    turns, got = Turns({"a": 1, "z": 1}), Counter[str]()
    for _ in range(20):
        plan = turns.take(4)
        reply = shard.cycle(claims=tuple(plan), claim_bytes=9000)
        brought = Counter(each.queue_name for each in reply.claimed)
        turns.settle(plan, brought, is_cut=reply.is_cut)
        got += brought
    assert min(got["a"], got["z"]) >= 10, got


def claim_until_all_have_ended(dsn: str, worker_id: str, weights: dict[str, int], told: str, dead: Any, dies_after: int | None) -> None:
    """Claim by turns and end at once; write a line for every claim. Some are killed in the middle of one."""
    import asyncio
    import json
    import os
    import random
    import signal
    import time

    import psycopg

    from reproq_supervisor.core.policy.claim_plan import Turns
    from reproq_supervisor.core.runs import CycleRequest, Ending, Outcome
    from tests.store.actors import Shard, ended

    async def die_in_the_middle() -> None:
        asyncio.get_running_loop().call_later(random.uniform(0, 0.003), os.kill, os.getpid(), signal.SIGKILL)
        while True:
            await shard.store.cycle(CycleRequest(60.0, claims=tuple(turns.take(10))))

    shard, turns, rng = Shard(dsn, worker_id), Turns(weights), random.Random()
    endings: tuple[Ending, ...] = ()
    claims = 0
    with ended(shard), psycopg.connect(dsn, autocommit=True) as looker, open(told, "a") as file:
        while endings or looker.execute("SELECT 1 FROM task_lane LIMIT 1").fetchone():
            if dies_after is None and not dead.is_set() and looker.execute(LEFT).fetchone() == (True,):
                time.sleep(0.01)  # enough must be left for the others to die of
                continue
            if claims == dies_after:
                shard.run(die_in_the_middle())
            plan = turns.take(rng.randint(1, 20))
            reply = shard.cycle(endings=endings, claims=tuple(plan))
            got = Counter(each.queue_name for each in reply.claimed)
            turns.settle(plan, got, is_cut=reply.is_cut)
            endings = tuple(Ending(each.result_id, each.lease_no, Outcome.SUCCEED, b"null", 0.0, 0.001) for each in reply.claimed)
            if got:
                claims += 1
                file.write(json.dumps([time.monotonic(), got]) + "\n")
                file.flush()
            time.sleep(0.005)  # the tasks' work, or what is left is in the hands of the others


@pytest.mark.slow
def test_turns_hold_while_claimers_die_in_the_middle(put: Put, database: Database, tmp_path: Path, keeper: Keeper) -> None:
    weights, each = {"a": 3, "b": 1}, 1500
    for queue in weights:
        put(each, queue_name=queue)
    spawn = multiprocess.get_context("spawn")
    deaths = [None, None, 2, 6]
    dead = spawn.Event()
    told = [tmp_path / f"told-{n}" for n in range(len(deaths))]
    processes = [
        spawn.Process(target=claim_until_all_have_ended, args=(database.dsn, f"worker-{n}", weights, str(told[n]), dead, dies_after))
        for n, dies_after in enumerate(deaths)
    ]
    for process in processes:
        process.start()
    for n, process in enumerate(processes):
        if deaths[n] is not None:
            process.join(120)
            assert process.exitcode == -signal.SIGKILL, [
                path.read_text()[-300:] if path.exists() else None for path in told
            ] + database.query("SELECT state, count(*) FROM task_lane GROUP BY 1")
    dead.set()
    # What a claim of the dead that was still on its way takes is found by a later round.
    eventually(
        lambda: (
            [keeper.run(keeper.store.release_workers([f"worker-{n}" for n, at in enumerate(deaths) if at is not None]))]
            and all(process.exitcode == 0 for process, at in zip(processes, deaths, strict=True) if at is None)
        ),
        timeout=240,
        what="the survivors have ended everything",
    )
    assert database.query("SELECT status, count(*) FROM task_runs GROUP BY 1") == [("SUCCESSFUL", 2 * each)]
    claims = sorted(tuple(json.loads(line)) for path in told for line in path.read_text().splitlines())
    got = Counter[str]()
    for _, brought in claims:
        got.update(brought)
        if max(got.values()) >= each - 100:
            break
    assert abs(got["b"] - got["a"] / 3) < len(deaths) * 2 * MOST_WANTED, got
