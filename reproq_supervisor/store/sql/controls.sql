-- name: set_limit
-- Sets a rate limit and fills its bucket.
INSERT INTO rate_limits (key, tokens_per_second, burst_size, current_tokens, last_refilled_at)
VALUES (%(key)s, %(rate)s, %(burst)s::int, %(burst)s::int, now())
ON CONFLICT (key) DO UPDATE SET tokens_per_second = excluded.tokens_per_second, burst_size = excluded.burst_size,
                                current_tokens = excluded.current_tokens, last_refilled_at = excluded.last_refilled_at

-- name: limits
-- (key, tokens a second, burst, tokens now, last refilled, runs that wait for it), by key.
SELECT b.key, b.tokens_per_second::float8, b.burst_size,
       CASE WHEN b.tokens_per_second > 0 AND b.burst_size > 0 THEN reproq_level(b, now()) ELSE b.current_tokens END::float8,
       b.last_refilled_at, (SELECT count(*) FROM task_lane l WHERE l.on_key = 'rate:' || b.key)
FROM rate_limits b ORDER BY b.key

-- name: remove_limit
-- Removes a rate limit; returns its key if it was there.
DELETE FROM rate_limits WHERE key = %(key)s RETURNING key

-- name: pause
-- Pauses a queue for every worker; a queue that is paused already keeps its time and takes the new reason.
INSERT INTO reproq_queue_controls AS c (queue_name, paused, paused_at, reason) VALUES (%(queue)s, true, now(), %(reason)s)
ON CONFLICT (queue_name) DO UPDATE SET paused = true, reason = excluded.reason, updated_at = now(),
                                       paused_at = CASE WHEN c.paused THEN c.paused_at ELSE now() END

-- name: resume
-- Lets a queue go on, and wakes who sleeps on it; returns its name if it was paused.
WITH up AS (
    UPDATE reproq_queue_controls SET paused = false, paused_at = NULL, reason = NULL, updated_at = now()
    WHERE queue_name = %(queue)s AND paused RETURNING queue_name)
SELECT queue_name, reproq_notify_ready(ARRAY[queue_name]) FROM up
