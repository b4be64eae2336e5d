-- name: prune
-- Deletes ended runs among the next `rows` records after one. One row: (record to go on after or NULL, ids, statuses and logs of what is gone,
-- how many were spared for what they belong to, how many are locked or refused).
SELECT next_after, ids, statuses, logs_uris, spared, left_over
FROM reproq_prune(%(after)s, %(rows)s, %(statuses)s::text[], %(ages_s)s::float8[], %(field)s, %(most)s, %(dry)s, %(early)s)

-- name: prune_flows
-- Deletes up to `limit` workflows that have no runs any more. One row: how many.
SELECT reproq_prune_flows(%(age_s)s::float8, %(limit)s)

-- name: flows_to_prune
-- Workflows that would have no runs any more, and go. One row: how many.
SELECT count(*)
FROM workflow_runs w
WHERE w.updated_at < statement_timestamp() - %(age_s)s::float8 * interval '1 s'
  AND NOT EXISTS (
      SELECT FROM task_runs r
      WHERE r.workflow_id = w.workflow_id
        AND NOT reproq_is_prunable(r.status, reproq_time_of(r, %(field)s), %(statuses)s::text[],
                                   ARRAY(SELECT statement_timestamp() - a.age_s * interval '1 s'
                                         FROM unnest(%(ages_s)s::float8[]) WITH ORDINALITY AS a (age_s, n) ORDER BY a.n)))

-- name: expire
-- Ends runs that have expired and that nobody has begun. One row: (how many, where to go on or NULLs).
SELECT ended, to_json(next_at) #>> '{}', next_id FROM reproq_expire(%(after)s::timestamptz, %(after_id)s, %(limit)s, %(dry)s)

-- name: old_workers
-- Workers that have not been seen for `older_than_s` seconds.
SELECT worker_id FROM reproq_workers WHERE last_seen_at < now() - %(older_than_s)s * interval '1 s' ORDER BY last_seen_at, worker_id

-- name: prune_workers
-- Removes them. One row each.
DELETE FROM reproq_workers WHERE last_seen_at < now() - %(older_than_s)s * interval '1 s' RETURNING worker_id
