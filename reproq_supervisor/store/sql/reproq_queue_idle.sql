-- name: register
-- Says that this worker sleeps on these queues.
INSERT INTO reproq_queue_idle (queue_name, worker_id) SELECT DISTINCT q, %(worker_id)s FROM unnest(%(queues)s::text[]) AS u (q)
ON CONFLICT (queue_name, worker_id) DO UPDATE SET seen_at = now()

-- name: mark
-- One row: the transaction id below which every producer lies that may have read the flags before they were set. Ask after `register`
-- committed: the id of the registering transaction itself is too low, for a producer may get a higher one and read the flags before that
-- commit.
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint

-- name: is_settled
-- One row: have all transactions below the mark ended?
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= %(mark)s

-- name: forget
-- Takes this worker's flags away.
DELETE FROM reproq_queue_idle WHERE worker_id = %(worker_id)s
