-- name: announce
-- Enters a worker, or renews when it was last seen.
INSERT INTO reproq_workers (worker_id, hostname, concurrency, queues, version)
VALUES (%(worker_id)s, %(hostname)s, %(concurrency)s, to_jsonb(%(queues)s::text[]), %(version)s)
ON CONFLICT (worker_id) DO UPDATE
SET hostname = excluded.hostname, concurrency = excluded.concurrency, queues = excluded.queues, version = excluded.version, last_seen_at = now()
