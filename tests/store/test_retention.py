"""The keeper's duties that follow from time: old runs and their files go, what has expired ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.core.runs import Outcome, RunId
from reproq_supervisor.keeper import retention
from reproq_supervisor.keeper.duties import Duty, Ran
from reproq_supervisor.keeper.retention import Retention
from reproq_supervisor.process.task_logs import log_name
from reproq_supervisor.store import pruning
from tests.store.actors import Keeper, Shard, assert_invariant, record
from tests.store.test_flows import chord
from tests.store.test_pruning import end_all, left, make_expired, make_old
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
HOUR = {"successful": 3600.0, "failed": 3600.0, "cancelled": 3600.0}


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


class Keeping:
    """The duties of retention, run by hand."""

    def __init__(self, keeper: Keeper, kept_s: dict[str, float] | None = None, logs_dir: Path | None = None) -> None:
        self._keeper = keeper
        self.retention = Retention()
        self.adopt(HOUR if kept_s is None else kept_s, logs_dir)

    def adopt(self, kept_s: dict[str, float], logs_dir: Path | None = None) -> None:
        self.retention.adopt({"keeper_settings": {"retention": kept_s}, "logs_dir": str(logs_dir) if logs_dir else None})

    def run(self, name: str) -> Ran:
        return self._keeper.run(self._duty(name).run(self._keeper.store))

    def run_to_the_end(self, name: str) -> int:
        total, ran = 0, self.run(name)
        while ran.again_in_s < 1:
            total, ran = total + ran.count, self.run(name)
        return total + ran.count

    def _duty(self, name: str) -> Duty:
        (duty,) = [duty for duty in self.retention.duties() if duty.name == name]
        return duty


def test_old_runs_go_by_the_age_of_their_status(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    (good,) = put()
    end_all(shard)
    (bad,) = put()
    end_all(shard, Outcome.FAIL_FINALLY)
    (young,) = put()
    end_all(shard)
    make_old(database, good, bad)
    keeping = Keeping(keeper, {"successful": 3600.0, "failed": 0.0, "cancelled": 0.0})
    assert keeping.run_to_the_end("prune") == 1
    assert left(database) == [bad, young]
    keeping.adopt(HOUR)
    assert keeping.run_to_the_end("prune") == 1
    assert left(database) == [young]


def test_nothing_goes_where_nothing_was_said(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    runs = put(2)
    end_all(shard)
    make_old(database, *runs, hours=100_000)
    assert Keeping(keeper, {}).run_to_the_end("prune") == 0
    assert left(database) == runs


def test_a_sweep_goes_on_batch_by_batch_and_ends_early_where_all_are_young(
    put: Put, shard: Shard, keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pruning.prune_parameters.__kwdefaults__, "rows", 3)
    runs = put(12)
    end_all(shard)
    make_old(database, *runs[:4], runs[11])
    keeping = Keeping(keeper)
    assert keeping.run_to_the_end("prune") == 5  # the first sweep looks at all
    make_old(database, runs[10])
    looks = 1
    while keeping.run("prune").again_in_s < 1:
        looks += 1
    assert looks == 1  # of eight young runs the first three were looked at
    assert len(left(database)) == 7


def test_the_files_of_a_run_go_with_it(put: Put, shard: Shard, keeper: Keeper, database: Database, tmp_path: Path) -> None:
    (run,) = put()
    log = tmp_path / log_name(run, 1)
    log.touch()
    shard.end_run(shard.claim_one(), Outcome.SUCCEED, b"1", logs_uri=str(log))
    make_old(database, run)
    Keeping(keeper).run_to_the_end("prune")
    assert not log.exists()


def test_files_that_outlived_their_runs_go_and_no_others(keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_FILES", 3)
    for attempt in range(1, 6):
        (tmp_path / log_name(7, attempt)).touch()
    (tmp_path / "keep.txt").touch()
    (tmp_path / log_name(8, 1)).symlink_to(tmp_path / "keep.txt")
    monkeypatch.setattr(retention, "_KEPT_LONGER_S", -3600.0 - 60.0)  # as if a minute older than they are
    assert Keeping(keeper, {"successful": 3600.0}, tmp_path).run_to_the_end("logs") == 0
    assert Keeping(keeper, HOUR, tmp_path).run_to_the_end("logs") == 6
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]
    assert Keeping(keeper, HOUR, tmp_path / "nowhere").run_to_the_end("logs") == 0


def test_a_living_workflow_is_never_touched(shard: Shard, keeper: Keeper, database: Database) -> None:
    _, members, callback = chord(database, 3)
    shard.succeed(shard.claim_one())
    make_old(database, *members, callback, hours=1000)
    assert Keeping(keeper).run_to_the_end("prune") == 0
    assert end_all(shard) == [*members[1:], callback]


def test_what_expires_ends_once_and_what_comes_later_is_found(put: Put, keeper: Keeper, database: Database) -> None:
    first, second = put(2, delay_s=3600)
    keeping = Keeping(keeper)
    make_expired(database, first)
    assert keeping.run_to_the_end("expire") == 1
    assert keeping.run_to_the_end("expire") == 0
    make_expired(database, second)
    assert keeping.run_to_the_end("expire") == 1
    assert {record(database, run)["status"] for run in (first, second)} == {"FAILED"}


def test_many_that_expire_at_one_moment_end_batch_by_batch(put: Put, keeper: Keeper, database: Database) -> None:
    runs = put(1100, delay_s=3600)
    make_expired(database, *runs)
    assert Keeping(keeper).run_to_the_end("expire") == 1100


def test_the_look_for_what_has_expired_does_not_read_the_history_again(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    runs = put(50, expires_in_s=3600)
    end_all(shard)
    make_expired(database, *runs)
    database.query("UPDATE task_runs SET expires_at = now() - interval '1 h', rev = rev + 1")
    keeping = Keeping(keeper)
    keeping.run_to_the_end("expire")
    read = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'task_runs'"
    with database.connect() as connection, connection.transaction():
        place = keeping.retention._expired
        assert place is not None
        connection.execute("SELECT * FROM reproq_expire(%s::timestamptz, %s, 500, false)", (place.at, place.result_id))
        ((rows,),) = connection.execute(read).fetchall()
    assert rows == 0


def test_a_look_at_many_that_expired_at_one_moment_reads_its_batch(put: Put, shard: Shard, database: Database) -> None:
    """As a transaction leaves them that enqueues all with one time."""
    put(200, expires_in_s=3600)
    for claimed in shard.claim(200):
        shard.succeed(claimed)
    database.query("UPDATE task_runs SET expires_at = date_trunc('hour', now()) - interval '1 h', rev = rev + 1")
    with database.connect() as connection, connection.transaction():
        connection.execute("SELECT * FROM reproq_expire('-infinity', 0, 10, false)")
        ((entries,),) = connection.execute("SELECT pg_stat_get_xact_tuples_returned('task_runs_expiry'::regclass)").fetchall()
    assert 10 <= entries <= 20
