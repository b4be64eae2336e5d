-- name: due
-- Up to `limit` schedules that are due, the earliest first, and the clock at which they are. Times that mean nothing count as long past.
SELECT p.name, p.xmin::text, p.cron_expr, p.timezone, p.task_path, p.payload_json::text, p.queue_name, p.priority, p.max_attempts,
       p.timeout_seconds, p.concurrency_key, p.concurrency_limit, p.jitter_s, p.missed,
       greatest(p.next_run_at, statement_timestamp() - interval '10 years'),
       CASE WHEN p.last_run_at BETWEEN statement_timestamp() - interval '10 years' AND statement_timestamp() + interval '1 day'
            THEN p.last_run_at END,
       statement_timestamp()
FROM periodic_tasks p
WHERE p.enabled = true AND p.next_run_at <= statement_timestamp()
ORDER BY p.next_run_at, p.name LIMIT %(limit)s

-- name: next_due
-- One row: seconds until the next schedule is due, NULL if there is none that fires again.
SELECT (SELECT CASE WHEN p.next_run_at < 'infinity'
                    THEN extract(epoch FROM greatest(p.next_run_at, statement_timestamp()) - statement_timestamp())::float8 END
        FROM periodic_tasks p WHERE p.enabled = true ORDER BY p.next_run_at LIMIT 1)

-- name: ahead
-- Schedules that wait although they bear a mark of a time that is yet to come: the clock was set back. The latest mark of each, and the clock.
SELECT p.name, p.xmin::text, p.cron_expr, p.timezone,
       least(greatest(p.last_run_at, p.updated_at, p.created_at), statement_timestamp() + interval '10 years'), statement_timestamp()
FROM periodic_tasks p
WHERE p.enabled = true AND p.next_run_at > statement_timestamp()
  AND greatest(p.last_run_at, p.updated_at, p.created_at) > statement_timestamp()
ORDER BY p.name

-- name: follow_clock
-- Has schedules that waited for a wrong clock's times fire from these times on. One row: how many were still those that were read.
SELECT reproq_follow_clock(reproq_under_term(%(term_no)s, %(holder)s, %(names)s::text[]), %(versions)s::text[], %(nexts)s::timestamptz[])

-- name: fire
-- Fires schedules and moves them on. A row for each schedule moved (name, NULL, moved, NULL), and for each firing (name, when, enqueued or
-- skipped, the run's id).
SELECT name, fire_at, outcome, result_id
FROM reproq_fire(reproq_under_term(%(term_no)s, %(holder)s, %(names)s::text[]), %(versions)s::text[], %(nexts)s::timestamptz[],
                 %(of)s::int[], %(fire_ats)s::timestamptz[], %(run_afters)s::timestamptz[], %(specs)s::text[], %(hashes)s::text[])

-- name: disable_due
-- Disables a schedule that cannot fire. One row: was it still the one that was read?
SELECT reproq_disable_schedule(reproq_under_term(%(term_no)s, %(holder)s, %(name)s::text), %(version)s, %(reason)s)

-- name: forget_firings
-- Forgets up to `limit` firings of the day before yesterday and earlier. One row: how many.
SELECT reproq_forget_firings(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: clock
-- One row: the database's clock.
SELECT statement_timestamp()

-- name: declare
-- Brings the schedules of a file. A row for each that was added, changed or removed.
SELECT name, outcome FROM reproq_declare_schedules(%(by)s, %(schedules)s::jsonb)
