"""The layouts in which this product finds its tables, and what older producers and workers do with them: the contract in our own words.

Each function makes a layout on a connection, in the schema that its path names.
"""

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

_PATH_TRIGGER = """
CREATE OR REPLACE FUNCTION reproq_task_path_from_spec() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(NEW.task_path, '') = '' THEN NEW.task_path := NEW.spec_json->>'task_path'; END IF;
    RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS trg_task_runs_task_path ON task_runs;
CREATE TRIGGER trg_task_runs_task_path BEFORE INSERT OR UPDATE OF spec_json, task_path ON task_runs
    FOR EACH ROW EXECUTE FUNCTION reproq_task_path_from_spec();
"""
_QUEUE_CONTROLS = """
CREATE TABLE IF NOT EXISTS reproq_queue_controls (
    queue_name TEXT PRIMARY KEY, paused BOOLEAN NOT NULL DEFAULT FALSE, paused_at TIMESTAMPTZ, reason TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
"""
_GO_TABLES = f"""
CREATE TABLE IF NOT EXISTS task_runs (
    result_id BIGSERIAL PRIMARY KEY, backend_alias TEXT NOT NULL DEFAULT 'default', queue_name TEXT NOT NULL DEFAULT 'default',
    priority INTEGER NOT NULL DEFAULT 0, run_after TIMESTAMPTZ, spec_json JSONB NOT NULL, spec_hash CHAR(64) NOT NULL, task_path TEXT,
    status TEXT NOT NULL DEFAULT 'READY', enqueued_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), started_at TIMESTAMPTZ,
    last_attempted_at TIMESTAMPTZ, finished_at TIMESTAMPTZ, attempts INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 3,
    timeout_seconds INTEGER NOT NULL DEFAULT 900, lock_key TEXT, concurrency_key TEXT, concurrency_limit INTEGER NOT NULL DEFAULT 0,
    worker_ids JSONB NOT NULL DEFAULT '[]', return_json JSONB, errors_json JSONB NOT NULL DEFAULT '[]',
    metadata_json JSONB NOT NULL DEFAULT '{{}}', last_error TEXT, failed_at TIMESTAMPTZ, leased_until TIMESTAMPTZ, leased_by TEXT,
    logs_uri TEXT, artifacts_uri TEXT, expires_at TIMESTAMPTZ, parent_id BIGINT REFERENCES task_runs (result_id) ON DELETE SET NULL,
    workflow_id UUID, wait_count INTEGER NOT NULL DEFAULT 0, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), cancel_requested BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE IF NOT EXISTS periodic_tasks (
    name TEXT PRIMARY KEY, cron_expr TEXT NOT NULL, task_path TEXT NOT NULL, payload_json JSONB NOT NULL DEFAULT '{{}}',
    queue_name TEXT NOT NULL DEFAULT 'default', priority INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 3,
    concurrency_key TEXT, concurrency_limit INTEGER NOT NULL DEFAULT 0, last_run_at TIMESTAMPTZ, next_run_at TIMESTAMPTZ NOT NULL,
    enabled BOOLEAN NOT NULL DEFAULT TRUE, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
CREATE INDEX IF NOT EXISTS idx_periodic_tasks_next_run ON periodic_tasks (next_run_at) WHERE enabled = TRUE;
{_QUEUE_CONTROLS}
CREATE TABLE IF NOT EXISTS reproq_workers (
    worker_id TEXT PRIMARY KEY, hostname TEXT, concurrency INTEGER, queues JSONB NOT NULL DEFAULT '[]',
    started_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), last_seen_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), version TEXT);
CREATE TABLE IF NOT EXISTS rate_limits (
    key TEXT PRIMARY KEY, tokens_per_second REAL NOT NULL, burst_size INTEGER NOT NULL, current_tokens REAL NOT NULL,
    last_refilled_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
INSERT INTO rate_limits (key, tokens_per_second, burst_size, current_tokens) VALUES ('global', 0, 1, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS workflow_runs (
    workflow_id UUID PRIMARY KEY, expected_count INTEGER NOT NULL, success_count INTEGER NOT NULL DEFAULT 0,
    failure_count INTEGER NOT NULL DEFAULT 0, callback_result_id BIGINT, status TEXT NOT NULL DEFAULT 'RUNNING',
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
CREATE INDEX IF NOT EXISTS idx_workflow_runs_callback ON workflow_runs (callback_result_id);
"""
_GO_INDEXES = """
CREATE INDEX IF NOT EXISTS idx_task_runs_claim ON task_runs (queue_name, status, priority DESC, enqueued_at) WHERE status = 'READY';
CREATE INDEX IF NOT EXISTS idx_task_runs_claim_due ON task_runs
    (queue_name, COALESCE(run_after, '-infinity'::timestamptz), priority DESC, enqueued_at) WHERE status = 'READY';
CREATE UNIQUE INDEX IF NOT EXISTS idx_task_runs_spec_unique ON task_runs (spec_hash) WHERE status IN ('READY', 'RUNNING');
CREATE INDEX IF NOT EXISTS idx_task_runs_lock_key ON task_runs (lock_key) WHERE status = 'RUNNING';
CREATE INDEX IF NOT EXISTS idx_task_runs_concurrency_active ON task_runs (concurrency_key, leased_until)
    WHERE status = 'RUNNING' AND concurrency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_task_runs_parent_id ON task_runs (parent_id) WHERE status = 'WAITING';
CREATE INDEX IF NOT EXISTS idx_task_runs_workflow_id ON task_runs (workflow_id);
CREATE INDEX IF NOT EXISTS idx_task_runs_failed_at ON task_runs (failed_at) WHERE status = 'FAILED';
CREATE INDEX IF NOT EXISTS idx_task_runs_task_path ON task_runs (task_path);
"""
_PATH_CHECK = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'task_runs_task_path_not_empty') THEN
        ALTER TABLE task_runs ADD CONSTRAINT task_runs_task_path_not_empty CHECK (task_path IS NOT NULL AND task_path <> '') NOT VALID;
    END IF;
END $$;
"""
_DJANGO_TABLES = """
CREATE TABLE periodic_tasks (
    name text NOT NULL PRIMARY KEY, cron_expr text NOT NULL, task_path text NOT NULL, payload_json jsonb NOT NULL, queue_name text NOT NULL,
    priority integer NOT NULL, max_attempts integer NOT NULL, concurrency_key text NULL, concurrency_limit integer NOT NULL,
    last_run_at timestamptz NULL, next_run_at timestamptz NOT NULL, enabled boolean NOT NULL, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL);
CREATE INDEX periodic_tasks_name_aaaaaaaa_like ON periodic_tasks (name text_pattern_ops);
CREATE TABLE reproq_queue_controls (
    queue_name text NOT NULL PRIMARY KEY, paused boolean NOT NULL, paused_at timestamptz NULL, reason text NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE INDEX reproq_queue_controls_queue_name_bbbbbbbb_like ON reproq_queue_controls (queue_name text_pattern_ops);
CREATE TABLE reproq_workers (
    worker_id text NOT NULL PRIMARY KEY, hostname text NOT NULL, concurrency integer NOT NULL, queues jsonb NOT NULL,
    started_at timestamptz NOT NULL, last_seen_at timestamptz NOT NULL, version text NULL);
CREATE INDEX reproq_workers_worker_id_cccccccc_like ON reproq_workers (worker_id text_pattern_ops);
CREATE TABLE task_runs (
    result_id bigint NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, backend_alias text NOT NULL, queue_name text NOT NULL,
    priority integer NOT NULL, run_after timestamptz NULL, spec_json jsonb NOT NULL, spec_hash varchar(64) NOT NULL, task_path text NULL,
    status text NOT NULL, enqueued_at timestamptz NOT NULL, started_at timestamptz NULL, last_attempted_at timestamptz NULL,
    finished_at timestamptz NULL, attempts integer NOT NULL, max_attempts integer NOT NULL, timeout_seconds integer NOT NULL,
    lock_key text NULL, concurrency_key text NULL, concurrency_limit integer NOT NULL, worker_ids jsonb NOT NULL, return_json jsonb NULL,
    errors_json jsonb NOT NULL, metadata_json jsonb NOT NULL, last_error text NULL, failed_at timestamptz NULL,
    leased_until timestamptz NULL, leased_by text NULL, logs_uri text NULL, artifacts_uri text NULL, expires_at timestamptz NULL,
    workflow_id uuid NULL,
    wait_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, cancel_requested boolean NOT NULL,
    parent_id bigint NULL);
ALTER TABLE task_runs ADD CONSTRAINT task_runs_parent_id_866fda04_fk_task_runs_result_id
    FOREIGN KEY (parent_id) REFERENCES task_runs (result_id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX task_runs_parent_id_866fda04 ON task_runs (parent_id);
CREATE INDEX task_runs_status_26197d_idx ON task_runs (status);
CREATE INDEX task_runs_queue_n_50e8d6_idx ON task_runs (queue_name, status);
CREATE INDEX task_runs_conc_status_idx ON task_runs (concurrency_key, status);
CREATE INDEX idx_task_runs_task_path ON task_runs (task_path);
CREATE INDEX idx_task_runs_claim_due ON task_runs
    (queue_name, COALESCE(run_after, '-infinity'::timestamptz), priority DESC, enqueued_at) WHERE status = 'READY';
"""
_DJANGO_HISTORY = """
CREATE TABLE IF NOT EXISTS django_migrations (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, app varchar(255) NOT NULL, name varchar(255) NOT NULL,
    applied timestamptz NOT NULL);
INSERT INTO django_migrations (app, name, applied) VALUES ('reproq_django', '0001_baseline', now());
"""


def go(connection: Connection) -> None:
    """The older worker's own migration."""
    _run(connection, _GO_TABLES, _PATH_TRIGGER, _PATH_CHECK, _GO_INDEXES)


def django(connection: Connection) -> None:
    """`manage.py migrate` of the older package: no defaults, no unique index, two tables missing."""
    _run(connection, _DJANGO_TABLES, _PATH_TRIGGER, _PATH_CHECK)
    _run(connection, "ALTER TABLE task_runs VALIDATE CONSTRAINT task_runs_task_path_not_empty", _DJANGO_HISTORY)


def migrate_worker(connection: Connection) -> None:
    """`manage.py reproq migrate-worker`: what is missing of the worker's layout, IF NOT EXISTS."""
    _run(connection, _GO_TABLES, _PATH_TRIGGER, _PATH_CHECK, _GO_INDEXES)


def django_then_worker(connection: Connection) -> None:
    django(connection)
    migrate_worker(connection)


def go_then_fake_initial(connection: Connection) -> None:
    """The worker's layout, which Django was told to take for its own."""
    go(connection)
    _run(connection, _DJANGO_HISTORY)


def before_the_baseline(connection: Connection) -> None:
    """An early layout: columns that came later are missing, others allow NULL and have no default; no trigger, no check."""
    _run(connection, _GO_TABLES, _GO_INDEXES)
    _run(connection, "DROP INDEX idx_task_runs_task_path, idx_task_runs_failed_at, idx_task_runs_concurrency_active")
    for column in ("last_error", "failed_at", "task_path", "metadata_json", "concurrency_key", "concurrency_limit"):
        _run(connection, f"ALTER TABLE task_runs DROP COLUMN {column}")
    for column in ("concurrency_key", "concurrency_limit"):
        _run(connection, f"ALTER TABLE periodic_tasks DROP COLUMN {column}")
    for column in ("worker_ids", "errors_json", "wait_count", "updated_at", "priority"):
        _run(connection, f"ALTER TABLE task_runs ALTER COLUMN {column} DROP NOT NULL, ALTER COLUMN {column} DROP DEFAULT")
    _run(connection, "ALTER TABLE reproq_workers ALTER COLUMN queues DROP NOT NULL", "DROP TABLE reproq_queue_controls")


def _run(connection: Connection, *texts: str) -> None:
    for text in texts:
        connection.execute(text.encode(), prepare=False)


OLDER = {
    "go": go,
    "django": django,
    "django then worker": django_then_worker,
    "go then fake initial": go_then_fake_initial,
    "before the baseline": before_the_baseline,
}


# What the older producer sends: every column that may not be NULL, by name.
INSERT = """
INSERT INTO task_runs (backend_alias, queue_name, priority, run_after, spec_json, spec_hash, task_path, status, enqueued_at, attempts,
                       max_attempts, timeout_seconds, lock_key, concurrency_limit, worker_ids, errors_json, metadata_json, wait_count,
                       created_at, updated_at, cancel_requested, leased_by, leased_until, finished_at, failed_at, workflow_id, parent_id)
SELECT 'default', %(queue)s, n %% 5, %(run_after)s, '{"task_path": "app.task", "args": [1]}', %(prefix)s || n, %(task_path)s, %(status)s,
       now(), 0, 3, 900, %(lock_key)s, 0, '[]', '[]', '{}', 0, now(), now(), false, %(leased_by)s, %(leased_until)s,
       CASE WHEN %(status)s IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') THEN now() END, CASE WHEN %(status)s = 'FAILED' THEN now() END,
       %(workflow_id)s::uuid, %(parent_id)s
FROM generate_series(1, %(count)s) n RETURNING result_id
"""
# What the older worker sends: one run claimed, kept and completed, each a statement of its own.
CLAIM = """
UPDATE task_runs SET status = 'RUNNING', started_at = coalesce(started_at, now()), last_attempted_at = now(), attempts = attempts + 1,
       leased_until = now() + interval '5 min', leased_by = %(worker)s, worker_ids = worker_ids || jsonb_build_array(%(worker)s::text),
       updated_at = now()
WHERE result_id = (SELECT result_id FROM task_runs WHERE status = 'READY' AND queue_name = 'default'
                   AND coalesce(run_after, '-infinity') <= now() AND lock_key IS NULL
                   ORDER BY priority DESC, enqueued_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING result_id
"""
COMPLETE = """
UPDATE task_runs SET status = 'SUCCESSFUL', finished_at = now(), return_json = '1', leased_by = NULL, leased_until = NULL,
       updated_at = now()
WHERE result_id = %(run)s AND leased_by = %(worker)s AND status = 'RUNNING' RETURNING result_id
"""


def insert(connection: Connection, status: str, count: int = 1, **parts: Any) -> list[int]:
    """Insert *count* runs as the older producer does, and return their ids; *parts* change columns."""
    values = {
        **dict.fromkeys(("run_after", "lock_key", "leased_by", "leased_until", "workflow_id", "parent_id")),
        "queue": "default",
        "task_path": "app.task",
        "prefix": f"{status}-",
        "status": status,
        "count": count,
    }
    return [row[0] for row in connection.execute(INSERT.encode(), {**values, **parts})]
