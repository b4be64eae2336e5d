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
