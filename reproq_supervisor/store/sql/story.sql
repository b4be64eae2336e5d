-- name: story
-- What the view of runs does not say: at most one row.
SELECT r.spec_json, rtrim(r.spec_hash), r.metadata_json, r.worker_ids, r.last_attempted_at, r.failed_at, r.expires_at, r.timeout_seconds, r.lock_key,
       r.concurrency_key, r.concurrency_limit, r.dedupe_key IS NOT NULL, l.on_key, l.leased_until, l.lease_no, l.releases, l.crashes, l.deaths,
       r.parent_id, r.workflow_id
FROM task_runs r LEFT JOIN task_lane l USING (result_id) WHERE r.result_id = %(id)s

-- name: key_holders
-- Runs that hold the keys which this one names, itself included, at most twenty: (key, run, held by).
SELECT k.name, h.result_id, h.leased_by
FROM task_lane l
CROSS JOIN LATERAL (VALUES (l.lock_name), (l.limit_name)) AS k (name)
CROSS JOIN LATERAL (
    SELECT h.result_id, h.leased_by FROM task_lane h WHERE h.lock_name = k.name AND h.leased_by IS NOT NULL
    UNION ALL
    SELECT h.result_id, h.leased_by FROM task_lane h WHERE h.limit_name = k.name AND h.leased_by IS NOT NULL) h
WHERE l.result_id = %(id)s ORDER BY k.name, h.result_id LIMIT 20

-- name: children
-- Runs that wait, or waited, for this one, at most twenty: (run, task, status).
SELECT c.result_id, c.task_path, c.status FROM task_runs c WHERE c.parent_id = %(id)s ORDER BY c.result_id LIMIT 20

-- name: workflow
-- The run's workflow: one row with the status of its chord (NULL when it is none), the callback, and how many of its runs are in each status.
SELECT w.status, w.callback_result_id, w.expected_count,
       (SELECT json_object_agg(m.status, m.count)
        FROM (SELECT r.status, count(*) FROM task_runs r WHERE r.workflow_id = %(workflow_id)s GROUP BY r.status ORDER BY r.status) m)
FROM (SELECT) once LEFT JOIN workflow_runs w ON w.workflow_id = %(workflow_id)s
