-- name: open_count
-- How many of these runs have not ended: one row.
SELECT count(*) FROM unnest(%(ids)s::bigint[]) AS u (id) JOIN task_lane l ON l.result_id = u.id

-- name: outcomes
-- What became of these runs; of those that are gone there is no row.
SELECT result_id, status, lane_state, park_reason, attempts, return_json, last_error, jsonb_array_length(errors_json) AS errors,
       extract(epoch FROM started_at - enqueued_at)::float8 AS waited_s, extract(epoch FROM finished_at - started_at)::float8 AS ran_s
FROM reproq_runs WHERE result_id = ANY (%(ids)s::bigint[])

-- name: open_ids
-- Those of these runs that have not ended.
SELECT u.id FROM unnest(%(ids)s::bigint[]) AS u (id) JOIN task_lane l ON l.result_id = u.id

-- name: remove
-- Removes the records of these runs; those that have not ended stay.
DELETE FROM task_runs WHERE result_id = ANY (%(ids)s::bigint[]) AND status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
