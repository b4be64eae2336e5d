-- name: failed
-- Failed runs that match, the newest failure first, from a place in that line on: (run, queue, task, status, attempts, of how many, when it
-- failed, its last error, kind of it, the time as text that names the place). NULL in a filter lets everything pass.
SELECT r.result_id, r.queue_name, r.task_path, r.status, r.attempts, r.max_attempts, r.failed_at, r.last_error,
       r.errors_json #>> '{-1,kind}', to_json(r.failed_at) #>> '{}'
FROM task_runs r
WHERE r.failed_at IS NOT NULL AND r.status = 'FAILED'
  AND (%(queue)s::text IS NULL OR r.queue_name = %(queue)s)
  AND (%(task_like)s::text IS NULL OR r.task_path LIKE %(task_like)s)
  AND (%(kind)s::text IS NULL OR r.errors_json #>> '{-1,kind}' = %(kind)s)
  AND (%(since_at)s::timestamptz IS NULL OR r.failed_at >= %(since_at)s)
  AND (%(since_s)s::float8 IS NULL OR r.failed_at >= now() - %(since_s)s::float8 * interval '1 s')
  AND (%(until_at)s::timestamptz IS NULL OR r.failed_at < %(until_at)s)
  AND (%(until_s)s::float8 IS NULL OR r.failed_at < now() - %(until_s)s::float8 * interval '1 s')
  AND (r.failed_at, r.result_id) < (%(before_at)s::timestamptz, %(before_id)s::bigint)
ORDER BY r.failed_at DESC, r.result_id DESC
LIMIT %(limit)s

-- name: ended
-- The same of runs that ended in any of some statuses, the newest run first: only failures have an index of their times.
SELECT r.result_id, r.queue_name, r.task_path, r.status, r.attempts, r.max_attempts, coalesce(r.failed_at, r.finished_at, r.updated_at),
       r.last_error, r.errors_json #>> '{-1,kind}', 'infinity'
FROM task_runs r
WHERE r.status = ANY (%(statuses)s::text[])
  AND (%(queue)s::text IS NULL OR r.queue_name = %(queue)s)
  AND (%(task_like)s::text IS NULL OR r.task_path LIKE %(task_like)s)
  AND (%(kind)s::text IS NULL OR r.errors_json #>> '{-1,kind}' = %(kind)s)
  AND (%(since_at)s::timestamptz IS NULL OR coalesce(r.failed_at, r.finished_at, r.updated_at) >= %(since_at)s)
  AND (%(since_s)s::float8 IS NULL OR coalesce(r.failed_at, r.finished_at, r.updated_at) >= now() - %(since_s)s::float8 * interval '1 s')
  AND (%(until_at)s::timestamptz IS NULL OR coalesce(r.failed_at, r.finished_at, r.updated_at) < %(until_at)s)
  AND (%(until_s)s::float8 IS NULL OR coalesce(r.failed_at, r.finished_at, r.updated_at) < now() - %(until_s)s::float8 * interval '1 s')
  AND r.result_id < %(before_id)s::bigint
ORDER BY r.result_id DESC
LIMIT %(limit)s

-- name: retry
-- Makes ended runs active again. (run, what became of it, the other run that matters or NULL), in the order given.
SELECT result_id, outcome, other FROM reproq_retry(%(ids)s::bigint[])

-- name: active
-- Runs that have not ended and match, the oldest first, after one. `since` and `until` are about when they were enqueued.
SELECT l.result_id
FROM task_lane l
JOIN task_runs r USING (result_id)
WHERE CASE WHEN l.state = 'running' THEN 'RUNNING' ELSE r.status END = ANY (%(statuses)s::text[])
  AND (%(queue)s::text IS NULL OR l.queue_name = %(queue)s)
  AND (%(task_like)s::text IS NULL OR r.task_path LIKE %(task_like)s)
  AND (%(kind)s::text IS NULL OR r.errors_json #>> '{-1,kind}' = %(kind)s)
  AND (%(since_at)s::timestamptz IS NULL OR r.enqueued_at >= %(since_at)s)
  AND (%(since_s)s::float8 IS NULL OR r.enqueued_at >= now() - %(since_s)s::float8 * interval '1 s')
  AND (%(until_at)s::timestamptz IS NULL OR r.enqueued_at < %(until_at)s)
  AND (%(until_s)s::float8 IS NULL OR r.enqueued_at < now() - %(until_s)s::float8 * interval '1 s')
  AND l.result_id > %(after_id)s::bigint
ORDER BY l.result_id
LIMIT %(limit)s

-- name: replay
-- Enqueues the tasks of runs anew. (run, what became of it, the other run that matters or NULL), in the order given.
SELECT result_id, outcome, other FROM reproq_replay(%(ids)s::bigint[])

-- name: newest_by_hash
-- The newest run with this content: at most one row. Read from the newest on, since nothing is indexed by it.
SELECT result_id FROM task_runs WHERE spec_hash = %(spec_hash)s::bpchar ORDER BY result_id DESC LIMIT 1

-- name: expired_leases
-- (run, number of the lease, holder, seconds since its lease ended), the oldest lease first.
SELECT l.result_id, l.lease_no, l.leased_by, extract(epoch FROM statement_timestamp() - l.leased_until)::float8
FROM task_lane l
WHERE l.state = 'running' AND l.leased_until < statement_timestamp() - %(older_s)s::float8 * interval '1 s'
ORDER BY l.lease_no, l.result_id
LIMIT %(limit)s

-- name: reclaim
-- Ends attempts whose lease has expired: (run, what became of it).
SELECT result_id, outcome FROM reproq_reclaim_these(%(ids)s::bigint[], %(lease_nos)s::bigint[], %(older_s)s::float8, %(action)s)
