-- name: clock
-- One row: the database's clock.
SELECT statement_timestamp()

-- name: list
-- The schedule of that name, or all of them by name when it is NULL.
SELECT p.name, p.cron_expr, p.timezone, p.task_path, p.payload_json::text AS payload_json, p.queue_name, p.priority, p.max_attempts,
       p.timeout_seconds, p.concurrency_key, p.concurrency_limit, p.jitter_s, p.overlap, p.missed, p.enabled, p.next_run_at, p.last_run_at,
       p.disabled_reason, p.last_result_id, p.declared_by IS NOT NULL AS is_declared
FROM periodic_tasks p WHERE p.name = coalesce(%(name)s::text, p.name) ORDER BY p.name

-- name: add
-- Adds a schedule; one that exists is changed only if `replace`. One row if that was done. What is due and not yet fired stays due where the
-- line is the same: a deployment that says it again must not take a firing away.
INSERT INTO periodic_tasks AS p (name, cron_expr, timezone, task_path, payload_json, queue_name, priority, max_attempts, timeout_seconds,
                                 concurrency_key, concurrency_limit, jitter_s, overlap, missed, enabled, next_run_at)
VALUES (%(name)s, %(cron_expr)s, %(timezone)s, %(task_path)s, %(payload_json)s::jsonb, %(queue_name)s, %(priority)s, %(max_attempts)s,
        %(timeout_seconds)s, %(concurrency_key)s, %(concurrency_limit)s, %(jitter_s)s, %(overlap)s, %(missed)s, %(enabled)s,
        %(next_run_at)s)
ON CONFLICT (name) DO UPDATE
SET cron_expr = excluded.cron_expr, timezone = excluded.timezone, task_path = excluded.task_path, payload_json = excluded.payload_json,
    queue_name = excluded.queue_name, priority = excluded.priority, max_attempts = excluded.max_attempts,
    timeout_seconds = excluded.timeout_seconds, concurrency_key = excluded.concurrency_key,
    concurrency_limit = excluded.concurrency_limit, jitter_s = excluded.jitter_s, overlap = excluded.overlap, missed = excluded.missed,
    enabled = excluded.enabled, disabled_reason = NULL, is_faulty = false, updated_at = now(),
    next_run_at = CASE WHEN p.enabled AND (p.cron_expr, p.timezone) = (excluded.cron_expr, excluded.timezone)
                       THEN least(p.next_run_at, excluded.next_run_at) ELSE excluded.next_run_at END
WHERE %(replace)s
RETURNING p.name

-- name: remove
-- Removes a schedule. One row if there was one.
DELETE FROM periodic_tasks WHERE name = %(name)s RETURNING name

-- name: enable
-- Lets a schedule fire from a time on; one that fires already goes on as it does. One row if there is one.
UPDATE periodic_tasks p
SET enabled = true, disabled_reason = NULL, is_faulty = false, updated_at = now(), next_run_at = CASE WHEN p.enabled THEN p.next_run_at ELSE %(next_run_at)s END
WHERE p.name = %(name)s RETURNING p.name

-- name: disable
-- Keeps a schedule from firing. One row if there is one.
UPDATE periodic_tasks SET enabled = false, is_faulty = false, disabled_reason = %(reason)s, updated_at = now() WHERE name = %(name)s RETURNING name

-- name: note_run
-- Remembers the latest run of a schedule.
UPDATE periodic_tasks SET last_result_id = %(run)s WHERE name = %(name)s

-- name: pg_cron_state
-- One row: can jobs be scheduled, has the server the extension, the database in which alone it can be made (NULL where the server does not
-- load it), this database, and the zone in which its jobs start: before pg_cron 1.5 there was no choice.
SELECT to_regprocedure('cron.schedule(text,text,text)') IS NOT NULL,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron'),
       current_setting('cron.database_name', true), current_database(),
       coalesce(nullif(current_setting('cron.timezone', true), ''), 'GMT')

-- name: pg_cron_extension
-- Makes the extension.
SELECT reproq_pg_cron_create()

-- name: pg_cron_jobs
-- The jobs with this prefix: (name, is it ours?).
SELECT name, is_ours FROM reproq_pg_cron_jobs(%(prefix)s)

-- name: pg_cron_remove
-- Removes our jobs with this prefix. One row: how many.
SELECT reproq_pg_cron_remove(%(prefix)s)

-- name: pg_cron_schedule
-- Schedules the job of one schedule.
SELECT reproq_pg_cron_schedule(%(job)s, %(line)s, %(name)s)
