-- name: exists
-- One row: is there a table for the mode?
SELECT to_regclass('reproq_coexistence') IS NOT NULL

-- name: since
-- Since when the mode is on; no row while it is off.
SELECT since FROM reproq_coexistence

-- name: switch_on
-- From the next claims on.
INSERT INTO reproq_coexistence DEFAULT VALUES ON CONFLICT DO NOTHING

-- name: switch_off
-- From the next claims on.
DELETE FROM reproq_coexistence

-- name: older_workers
-- (worker, seconds since it was last seen) of workers of another product, the latest first. Ours name the product beside the version.
SELECT w.worker_id, extract(epoch FROM clock_timestamp() - w.last_seen_at)::float8
FROM reproq_workers w
WHERE coalesce(w.version, '') NOT LIKE %(ours)s || ' %%' AND w.last_seen_at > now() - %(within_s)s::float8 * interval '1 s'
ORDER BY w.last_seen_at DESC, w.worker_id

-- name: held_by_older
-- One row: how many runs such workers hold.
SELECT count(*) FROM task_lane l WHERE l.state = 'running' AND l.lease_no = 0 AND l.leased_until > clock_timestamp()
