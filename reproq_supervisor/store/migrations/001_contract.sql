-- The contract's tables, on an empty database.
-- locks: none that anybody waits for; every object is new.
--
-- Column names, types and defaults are those that existing producers, admin pages and dashboards know. Indexes are few on purpose: none
-- mentions a column that the last write of a run changes, neither as key nor in its predicate (only failures pay for theirs). Finishing a
-- run costs half as much that way, and a third of the WAL: 40 -> 20 us, 850 -> 354 B a row, most of it from the room left on each page.
-- With half of each page free the last write stays on its page for every small run; at 55 it did for 73 %, and claim + complete took 873 B
-- of WAL instead of 687.

DO $$
BEGIN
    IF to_regclass('task_runs') IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('task_runs') AND attname = 'rev' AND NOT attisdropped) THEN
        RAISE EXCEPTION 'task_runs: expected no table, or one made by reproq-supervisor, got a table of another product'
            USING HINT = 'Give reproq-supervisor a database or a schema of its own (options=-csearch_path=... in the database URL).';
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS task_runs (
    result_id         bigserial PRIMARY KEY,
    backend_alias     text NOT NULL DEFAULT 'default',
    queue_name        text NOT NULL DEFAULT 'default',
    priority          integer NOT NULL DEFAULT 0,
    run_after         timestamptz,
    spec_json         jsonb NOT NULL,
    spec_hash         char(64) NOT NULL,
    task_path         text,
    status            text NOT NULL DEFAULT 'READY',
    enqueued_at       timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    last_attempted_at timestamptz,
    finished_at       timestamptz,
    attempts          integer NOT NULL DEFAULT 0,
    max_attempts      integer NOT NULL DEFAULT 3,
    timeout_seconds   integer NOT NULL DEFAULT 900,
    lock_key          text,
    concurrency_key   text,
    concurrency_limit integer NOT NULL DEFAULT 0,
    worker_ids        jsonb NOT NULL DEFAULT '[]',
    return_json       jsonb,
    errors_json       jsonb NOT NULL DEFAULT '[]',
    metadata_json     jsonb NOT NULL DEFAULT '{}',
    last_error        text,
    failed_at         timestamptz,
    leased_until      timestamptz,
    leased_by         text,
    logs_uri          text,
    artifacts_uri     text,
    expires_at        timestamptz,
    parent_id         bigint REFERENCES task_runs (result_id) ON DELETE SET NULL,
    workflow_id       uuid,
    wait_count        integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    cancel_requested  boolean NOT NULL DEFAULT false,
    -- Ours. dedupe_key: '' = the producer did not name the column, NULL = no deduplication asked, or the run has ended.
    dedupe_key        text DEFAULT '',
    -- rev: our own updates add one; an update that leaves it unchanged comes from somebody else and goes through a trigger.
    rev               integer NOT NULL DEFAULT 0,
    CONSTRAINT task_runs_task_path_not_empty CHECK (task_path IS NOT NULL AND task_path <> '')
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE UNIQUE INDEX IF NOT EXISTS task_runs_dedupe ON task_runs (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS task_runs_failed ON task_runs (failed_at) WHERE failed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS task_runs_workflow ON task_runs (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS task_runs_parent ON task_runs (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS periodic_tasks (
    name              text PRIMARY KEY,
    cron_expr         text NOT NULL,
    task_path         text NOT NULL,
    payload_json      jsonb NOT NULL DEFAULT '{}',
    queue_name        text NOT NULL DEFAULT 'default',
    priority          integer NOT NULL DEFAULT 0,
    max_attempts      integer NOT NULL DEFAULT 3,
    concurrency_key   text,
    concurrency_limit integer NOT NULL DEFAULT 0,
    last_run_at       timestamptz,
    next_run_at       timestamptz NOT NULL,
    enabled           boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_periodic_tasks_next_run ON periodic_tasks (next_run_at) WHERE enabled = true;

CREATE TABLE IF NOT EXISTS reproq_queue_controls (
    queue_name text PRIMARY KEY,
    paused     boolean NOT NULL DEFAULT false,
    paused_at  timestamptz,
    reason     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS reproq_workers (
    worker_id    text PRIMARY KEY,
    hostname     text,
    concurrency  integer,
    queues       jsonb NOT NULL DEFAULT '[]',
    started_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    version      text
);

CREATE TABLE IF NOT EXISTS rate_limits (
    key               text PRIMARY KEY,
    tokens_per_second real NOT NULL,
    burst_size        integer NOT NULL,
    current_tokens    real NOT NULL,
    last_refilled_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO rate_limits (key, tokens_per_second, burst_size, current_tokens) VALUES ('global', 0, 1, 0) ON CONFLICT (key) DO NOTHING;

CREATE TABLE IF NOT EXISTS workflow_runs (
    workflow_id        uuid PRIMARY KEY,
    expected_count     integer NOT NULL,
    success_count      integer NOT NULL DEFAULT 0,
    failure_count      integer NOT NULL DEFAULT 0,
    callback_result_id bigint,
    status             text NOT NULL DEFAULT 'RUNNING',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_callback ON workflow_runs (callback_result_id);
