-- The lane: one narrow row for every run that has not ended, and the small tables beside it
-- (its indexes are steps of their own: schema/indexes.py).
-- locks: none that anybody waits for; every object is new. On a lane of the first revision, and on
-- reproq_queue_settings of the fourth, ACCESS EXCLUSIVE for milliseconds.
-- revision: 6

CREATE SEQUENCE IF NOT EXISTS reproq_lease_seq;

CREATE TABLE IF NOT EXISTS task_lane (
    result_id       bigint PRIMARY KEY,
    queue_name      text NOT NULL,
    state           text NOT NULL CHECK (state IN ('ready', 'running', 'parked', 'waiting')),
    park_reason     text CHECK ((state = 'parked') = (park_reason IS NOT NULL) AND park_reason IN ('due', 'unsupported')),
    priority        integer NOT NULL,
    order_key       double precision NOT NULL,
    due_at          timestamptz NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    max_attempts    integer NOT NULL,
    timeout_seconds integer NOT NULL,
    releases        smallint NOT NULL DEFAULT 0,   -- attempts given back uncounted in the middle of their execution
    crashes         smallint NOT NULL DEFAULT 0,   -- attempts lost to a dead executor or an expired lease
    -- The fence; only running rows have it. lease_no 0 marks a lease that another product's worker holds.
    leased_by       text,
    lease_no        bigint NOT NULL DEFAULT 0,
    leased_until    timestamptz,
    claimed_at      timestamptz,
    deaths          smallint NOT NULL DEFAULT 0,   -- of shards and nurseries that it may be the reason for
    CHECK ((state = 'running') = (leased_by IS NOT NULL))
) WITH (
    fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = 100000
);

ALTER TABLE task_lane ADD COLUMN IF NOT EXISTS deaths smallint NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS reproq_queue_settings (
    queue_name       text PRIMARY KEY,
    priority_aging_s double precision NOT NULL DEFAULT 60 CHECK (priority_aging_s >= 0)
);

-- Its own delay between attempts; NULL: as the pool, or where no pool has a say in it, as reproq_retry_delay_s.
ALTER TABLE reproq_queue_settings
    ADD COLUMN IF NOT EXISTS retry_base_s double precision CHECK (retry_base_s >= 0),
    ADD COLUMN IF NOT EXISTS retry_cap_s double precision CHECK (retry_cap_s >= 0);

-- Who sleeps on which queue; a sleeper says so again every half minute. Unlogged: after a crash everybody reconnects and begins anew.
CREATE UNLOGGED TABLE IF NOT EXISTS reproq_queue_idle (
    queue_name text NOT NULL,
    worker_id  text NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue_name, worker_id)
);

-- Wishes to cancel a run that somebody holds. Those who wish only insert, and wait for nobody: neither for the holder nor, by a unique
-- index, for each other.
CREATE TABLE IF NOT EXISTS reproq_cancel_requests (
    result_id    bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS reproq_cancel_requests_run ON reproq_cancel_requests (result_id);

-- Whether an older worker works beside us: see 014_coexist. It has one row then, otherwise none.
CREATE TABLE IF NOT EXISTS reproq_coexistence (
    is_on boolean PRIMARY KEY DEFAULT true CHECK (is_on),
    since timestamptz NOT NULL DEFAULT now()
);

-- What readers should look at: the record, and where it has not ended, the truth of the lane.
CREATE OR REPLACE VIEW reproq_runs AS
SELECT r.result_id,
       r.queue_name,
       r.priority,
       r.task_path,
       CASE WHEN l.state = 'running' THEN 'RUNNING' ELSE r.status END AS status,
       l.state AS lane_state,
       l.park_reason,
       coalesce(l.due_at, r.run_after, r.enqueued_at) AS due_at,
       r.enqueued_at,
       CASE WHEN l.state = 'running' THEN coalesce(r.started_at, l.claimed_at) ELSE r.started_at END AS started_at,
       coalesce(l.claimed_at, r.last_attempted_at) AS last_attempted_at,
       r.finished_at,
       coalesce(l.attempts, r.attempts) AS attempts,
       r.max_attempts,
       l.leased_by,
       l.leased_until,
       r.cancel_requested OR EXISTS (SELECT FROM reproq_cancel_requests c WHERE c.result_id = r.result_id) AS cancel_requested,
       r.worker_ids,
       r.return_json,
       r.errors_json,
       r.last_error,
       r.metadata_json,
       r.logs_uri
FROM task_runs r
LEFT JOIN task_lane l USING (result_id);
