"""`doctor` finds every wrong state that is known, and says its cure."""

from collections.abc import Callable

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.doctor import Finding, Level, doctor, served_queues
from reproq_supervisor.store.examine import runs, server, tables
from reproq_supervisor.store.migrate import migrate
from tests.store import layouts
from tests.store.actors import Shard
from tests.support.eventually import eventually
from tests.support.postgres import Database, running_cluster

Put = Callable[..., list[RunId]]


def found(database: Database, check: str) -> list[Finding]:
    with database.connect() as connection:
        return [finding for finding in doctor(connection) if finding.check == check]


def only(database: Database, check: str) -> Finding:
    (finding,) = found(database, check)
    return finding


def test_every_warning_and_error_says_what_to_do_about_it(database: Database, put: Put) -> None:
    put(lock_key="k")
    database.query("DELETE FROM task_lane")
    database.query("CREATE INDEX mine ON task_runs (status)")
    database.query("ALTER TABLE task_runs DISABLE TRIGGER USER, SET (autovacuum_enabled = off)")
    with database.connect() as connection:
        silent = [finding for finding in doctor(connection) if finding.level in (Level.WARNING, Level.ERROR) and not finding.remedy]
    assert silent == []


def test_a_disabled_trigger_is_named_and_migrate_brings_it_back(database: Database) -> None:
    database.query("ALTER TABLE task_runs DISABLE TRIGGER trg_task_runs_after_insert")
    finding = only(database, "triggers")
    assert (finding.level, "trg_task_runs_after_insert is disabled" in finding.message) == (Level.ERROR, True)
    with database.connect() as connection:
        assert [step.name for step in migrate(connection)] == ["producers"]
    assert found(database, "triggers") == []


def test_a_missing_trigger_is_named_and_migrate_brings_it_back(database: Database) -> None:
    database.query("DROP TRIGGER trg_task_runs_foreign_update ON task_runs")
    assert "trg_task_runs_foreign_update is missing" in only(database, "triggers").message
    with database.connect() as connection:
        migrate(connection)
    assert found(database, "triggers") == []


@pytest.mark.parametrize("index", ["task_lane_ready", "task_runs_dedupe"])
def test_a_missing_index_is_named_and_migrate_brings_it_back(database: Database, index: str) -> None:
    database.query(f"DROP INDEX {index}")
    assert f"missing: index {index}" in only(database, "schema").message
    with database.connect() as connection:
        migrate(connection)
    assert only(database, "schema").level is Level.OK


def test_an_index_of_others_is_told_by_what_it_costs(database: Database) -> None:
    database.query("CREATE INDEX of_the_end ON task_runs (queue_name) WHERE status = 'READY'")
    database.query("CREATE INDEX of_the_start ON task_runs (backend_alias)")
    told = {finding.message.split()[1]: finding for finding in found(database, "indexes")}
    assert (told["of_the_end"].level, "mentions status" in told["of_the_end"].message) == (Level.WARNING, True)
    assert told["of_the_start"].level is Level.NOTE


def test_an_invalid_index_is_told(database: Database) -> None:
    database.query("CREATE INDEX broken ON task_runs (backend_alias)")
    database.query("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    assert any("broken is invalid" in finding.message for finding in found(database, "indexes"))


def test_a_missing_default_is_a_step_to_take(database: Database) -> None:
    database.query("ALTER TABLE task_runs ALTER COLUMN metadata_json DROP DEFAULT")
    assert "columns of task_runs" in only(database, "schema").message


def test_what_an_older_layout_left_is_a_warning(database: Database) -> None:
    with database.connect() as connection:
        layouts.migrate_worker(connection)
        connection.execute("DROP INDEX idx_task_runs_spec_unique")
    assert only(database, "schema").level is Level.OK
    finding = only(database, "older layout")
    assert (finding.level, finding.remedy) == (Level.WARNING, "run `reproq-supervisor migrate`")


def test_a_status_that_nobody_knows_is_an_error(database: Database) -> None:
    with database.connect() as connection:
        layouts.insert(connection, "WAITING_CALLBACK", 2)
    assert "2 runs have the unknown status 'WAITING_CALLBACK'" in only(database, "statuses").message


def test_leases_that_nobody_takes_back_are_told(database: Database, put: Put, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    put(2)
    shard.claim(2)
    assert found(database, "leases") == []
    database.query("UPDATE task_lane SET leased_until = now() - interval '5 min'")
    assert only(database, "leases").message.startswith("2 leases expired, the first 30")
    monkeypatch.setattr(runs, "_OVERDUE_S", 3600.0)
    assert found(database, "leases") == []


def test_runs_that_are_due_and_sleep_are_told(database: Database, put: Put) -> None:
    put(3, delay_s=60)
    assert found(database, "due runs") == []
    database.query("UPDATE task_lane SET due_at = now() - interval '5 min'")
    assert only(database, "due runs").message.startswith("3 runs")


def test_workers_that_nobody_has_seen_for_a_day_are_told(database: Database) -> None:
    database.query("INSERT INTO reproq_workers (worker_id, queues, last_seen_at) VALUES ('old', '[]', now() - interval '2 days')")
    assert only(database, "workers").level is Level.NOTE


def test_queues_are_served_by_workers_that_were_seen_lately(database: Database) -> None:
    database.query("""INSERT INTO reproq_workers (worker_id, queues) VALUES ('a', '["mail", "bulk"]'), ('odd', '{"mail": 1}')""")
    database.query("""INSERT INTO reproq_workers (worker_id, queues, last_seen_at) VALUES ('b', '["gone"]', now() - interval '1 h')""")
    with database.connect() as connection:
        assert served_queues(connection, 90) == {"mail", "bulk"}


def test_a_clock_that_is_off_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(database, "clocks") == []
    monkeypatch.setattr(server.time, "time", lambda: 0.0)
    assert "ahead of this host's" in only(database, "clocks").message


def test_a_role_without_rights_is_told_which_ones(database: Database) -> None:
    role = f"worker_{database.name}"
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE {role}")
        try:
            connection.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            connection.execute(f"GRANT INSERT, DELETE ON task_runs TO {role}")
            connection.execute(f"SET ROLE {role}")
            told = {finding.message for finding in doctor(connection) if finding.check == "rights"}
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    assert "the role may not UPDATE task_runs" in told
    assert "the role may not INSERT task_runs" not in told
    assert "the role may not USAGE reproq_lease_seq" in told


def test_a_lane_that_has_grown_around_dead_rows_is_told(database: Database, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(200)
    database.query("DELETE FROM task_runs")
    monkeypatch.setattr(tables, "_SMALL_BYTES", 0)
    assert "VACUUM FULL task_lane" in only(database, "lane").remedy


def test_a_table_without_autovacuum_is_told(database: Database) -> None:
    database.query("ALTER TABLE task_lane SET (autovacuum_enabled = off)")
    assert "task_lane" in only(database, "autovacuum").message


def test_a_server_that_is_too_old_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST_SERVER", 990000)
    assert "expected 15 or later" in only(database, "server").message


def test_a_prepared_transaction_that_nobody_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONG_TRANSACTION_S", -1.0)
    with running_cluster("-c", "max_prepared_transactions=1") as cluster, cluster.new_database() as database:
        with database.connect() as connection:
            migrate(connection)
        with database.connect(autocommit=False) as connection:
            connection.execute("SELECT txid_current()")
            connection.execute("PREPARE TRANSACTION 'forgotten'")
        try:
            finding = only(database, "prepared transactions")
        finally:
            database.query("ROLLBACK PREPARED 'forgotten'")
    assert (finding.level, finding.remedy) == (Level.WARNING, "COMMIT PREPARED or ROLLBACK PREPARED 'forgotten'")


def test_statistics_of_another_day_are_told(database: Database, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(200)
    database.query("SELECT pg_stat_force_next_flush()")
    monkeypatch.setattr(tables, "_MANY_CHANGES", 100)
    eventually(lambda: found(database, "statistics"), timeout=60, what="the server has counted the changes")
    database.query("ANALYZE task_runs")
    eventually(lambda: not found(database, "statistics"), timeout=60, what="the statistics are of today")


def test_runs_that_wait_for_nothing_are_told(database: Database) -> None:
    with database.connect() as connection:
        layouts.insert(connection, "WAITING", 2)
    assert found(database, "workflows") == [], "whoever made them may not be done"
    database.query("UPDATE task_runs SET created_at = now() - interval '5 min'")
    assert only(database, "workflows").message.startswith("2 runs are WAITING without a parent")


def test_a_queue_that_several_backends_share_is_told_and_served_whole(database: Database, put: Put, shard: Shard) -> None:
    """No claim looks at `backend_alias`: a queue is what a pool serves."""
    mine, theirs = put(2)
    assert found(database, "queues") == []
    database.query("UPDATE task_runs SET backend_alias = 'theirs' WHERE result_id = %s", theirs)
    assert "queue default holds tasks of the backends default, theirs" in only(database, "queues").message
    assert {claimed.result_id for claimed in shard.claim(5)} == {mine, theirs}
