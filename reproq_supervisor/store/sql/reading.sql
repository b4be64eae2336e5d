-- name: result
-- The run as readers should see it: at most one row.
SELECT result_id, task_path, queue_name, priority, status, lane_state, park_reason, attempts, max_attempts, enqueued_at, due_at, started_at,
       finished_at, leased_by, cancel_requested, return_json, errors_json, last_error, logs_uri, metadata_json
FROM reproq_runs WHERE result_id = %(id)s

-- name: results
-- The same for many: one row for each run that exists.
SELECT result_id, task_path, queue_name, priority, status, lane_state, park_reason, attempts, max_attempts, enqueued_at, due_at, started_at,
       finished_at, leased_by, cancel_requested, return_json, errors_json, last_error, logs_uri, metadata_json
FROM reproq_runs WHERE result_id = ANY (%(ids)s::bigint[])

-- name: open_runs
-- Those of these runs that have not ended.
SELECT result_id FROM task_lane WHERE result_id = ANY (%(ids)s::bigint[])

-- name: logs_uri
-- Where the captured output of the last attempt is: at most one row.
SELECT logs_uri FROM task_runs WHERE result_id = %(id)s

-- name: cancel
-- (run, cancelled | requested | ended | unknown), in the order given. leaves_word: the transaction is somebody else's, and may stay open.
SELECT result_id, outcome FROM reproq_cancel(%(ids)s::bigint[], %(leaves_word)s)

-- name: lane_stats
-- (queue, state, how many, seconds since the oldest became due). Counts the lane: as large as the backlog, never as the history.
SELECT queue_name, state, count(*), extract(epoch FROM now() - min(due_at))::float8 FROM task_lane GROUP BY queue_name, state

-- name: paused
-- Queues that are paused, with the reason.
SELECT queue_name, reason FROM reproq_queue_controls WHERE paused

-- name: record_pages
-- One row: (pages of the record, bytes of a page).
SELECT pg_relation_size('task_runs') / current_setting('block_size')::bigint, current_setting('block_size')::bigint

-- name: ended_exact
-- (queue, status, how many) of ended runs, by reading all of the record.
SELECT queue_name, status, count(*) FROM task_runs WHERE status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') GROUP BY queue_name, status

-- name: ended_sampled
-- (queue, status, how many) of ended runs in `percent` of the pages of the record.
SELECT queue_name, status, count(*) FROM task_runs TABLESAMPLE SYSTEM (%(percent)s)
WHERE status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') GROUP BY queue_name, status
