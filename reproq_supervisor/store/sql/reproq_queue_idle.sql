-- name: register
-- Says that this worker sleeps on these queues. Returns the transaction id that decides when no earlier producer is left.
WITH asleep AS (
    INSERT INTO reproq_queue_idle (queue_name, worker_id) SELECT DISTINCT q, %(worker_id)s FROM unnest(%(queues)s::text[]) AS u (q)
    ON CONFLICT (queue_name, worker_id) DO UPDATE SET idle_since = now())
SELECT pg_current_xact_id()::text::bigint

-- name: is_settled
-- One row: has every transaction that may have read the flag before it was set ended?
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > %(mark)s

-- name: forget
-- Takes this worker's flags away.
DELETE FROM reproq_queue_idle WHERE worker_id = %(worker_id)s
