"""Everything that a shard and a keeper say goes through the real PgBouncer in transaction mode."""

from collections.abc import Iterator

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, ended
from tests.support import pgbouncer
from tests.support.pgbouncer import pooled
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import running_shard

pytestmark = pytest.mark.skipif(not pgbouncer.version(), reason="no PgBouncer on this machine (Debian: apt-get install pgbouncer)")

needs_max_prepared = pytest.mark.skipif(
    pgbouncer.version() < (1, 21), reason="max_prepared_statements: expected PgBouncer 1.21 or later, got an older one"
)


@pytest.fixture(params=["", pytest.param("max_prepared_statements = 50", marks=needs_max_prepared)])
def pooler(request: pytest.FixtureRequest, database: Database) -> Iterator[Database]:
    """The database through a pooler that has fewer sessions than there are clients."""
    with pooled(database, size=2, more=request.param) as through:
        yield through


@pytest.mark.parametrize("prepare", [True, False])
def test_shards_and_a_keeper_share_two_sessions(pooler: Database, database: Database, prepare: bool) -> None:
    shards = [Shard(pooler.dsn, f"worker-{n}", prepare=prepare) for n in range(3)]
    keeper = Keeper(pooler.dsn)
    with ended(*shards, keeper):
        with pooler.connect(prepare_threshold=None) as connection:
            ids = enqueue(connection, [NewRun("app.task", [n]) for n in range(120)])
        for shard in shards:
            shard.settle_idle()
        for n in range(12):
            shard = shards[n % 3]
            first, *others = shard.claim(10)
            assert shard.renew(first).lost == shard.show(first).lost == frozenset()
            assert len(shard.held(first, *others)) == 10
            for claimed in (first, *others):
                assert set(shard.succeed(claimed).ended) == {claimed.result_id}
            keeper.run(keeper.store.wake_due())
            keeper.run(keeper.store.reclaim())
            keeper.run(keeper.store.settle_wishes())
    assert database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(len(ids),)]
    assert_invariant(database)


@pytest.mark.parametrize("listen", [True, False])
def test_a_shard_runs_tasks(pooler: Database, database: Database, listen: bool) -> None:
    runs = Runs(database)
    with running_shard(pooler, executors=2, store={"listen": listen, "prepare": listen}) as shard:
        shard.wait_executors(2)
        ids = runs.add("echo", count=50)
        assert {run.end for run in runs.ended(ids, timeout=60)} == {("SUCCESSFUL", None, 1)}
        assert runs.end_of("fail", max_attempts=2, timeout=60).end == ("FAILED", "app_error", 2)
