-- What is one keeper's to do takes an argument through reproq_under_term, which refuses it when the keeper's term is over.

-- name: reclaim
-- Ends up to `limit` attempts whose lease has expired. One row: how many.
SELECT reproq_reclaim(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: release_workers
-- Gives back up to `limit` runs of workers that are gone. One row: how many.
SELECT reproq_release_workers(%(worker_ids)s::text[], %(limit)s)

-- name: server_age
-- One row: seconds since the server was started.
SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8

-- name: holders
-- Which of these workers still hold runs.
SELECT reproq_holders(%(worker_ids)s::text[])

-- name: wake_due
-- Makes up to `limit` due runs ready. One row: (how many, seconds until the next one is due or NULL).
SELECT woken, next_due_s FROM reproq_wake_due(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: settle_wishes
-- Cancels runs that wait although somebody wished them cancelled. One row: how many.
SELECT reproq_settle_wishes(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: repair
-- Repairs the invariant for the next `limit` records. One row: (lane rows made, removed, id to go on after or NULL).
SELECT made, removed, next_after FROM reproq_repair(%(after)s, reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: rekey
-- Gives the next `limit` waiting runs of a queue their new order key. One row: id to go on after or NULL.
SELECT reproq_rekey(%(queue)s, %(after)s, %(limit)s)

-- name: set_queue_settings
-- Stores settings of queues. Returns the names of those whose aging changed (60 is what a queue without settings has).
WITH given AS (
    SELECT g.queue_name, g.aging_s, coalesce(s.priority_aging_s, 60) AS before_s
    FROM unnest(%(queues)s::text[], %(agings_s)s::float8[]) AS g (queue_name, aging_s)
    LEFT JOIN reproq_queue_settings s ON s.queue_name = g.queue_name),
stored AS (
    INSERT INTO reproq_queue_settings AS s (queue_name, priority_aging_s) SELECT queue_name, aging_s FROM given
    ON CONFLICT (queue_name) DO UPDATE SET priority_aging_s = excluded.priority_aging_s WHERE s.priority_aging_s <> excluded.priority_aging_s)
SELECT queue_name FROM given WHERE aging_s <> before_s

-- name: set_queue_retries
-- Stores the delays between attempts of queues; NULL where a queue has none of its own.
INSERT INTO reproq_queue_settings AS s (queue_name, retry_base_s, retry_cap_s)
SELECT * FROM unnest(%(queues)s::text[], %(bases_s)s::float8[], %(caps_s)s::float8[])
ON CONFLICT (queue_name) DO UPDATE SET retry_base_s = excluded.retry_base_s, retry_cap_s = excluded.retry_cap_s
WHERE (s.retry_base_s, s.retry_cap_s) IS DISTINCT FROM (excluded.retry_base_s, excluded.retry_cap_s)

-- name: prune_idle
-- Removes the sleep flags of workers that have not renewed them for `older_than_s` seconds: they would make producers notify for nobody.
DELETE FROM reproq_queue_idle WHERE seen_at < now() - (SELECT reproq_under_term(%(term_no)s, %(holder)s, %(older_than_s)s::float8)) * interval '1 s'

-- name: prune_workers
-- Removes workers that have not been seen for `older_than_s` seconds. One row each.
DELETE FROM reproq_workers WHERE last_seen_at < now() - (SELECT reproq_under_term(%(term_no)s, %(holder)s, %(older_than_s)s::float8)) * interval '1 s' RETURNING worker_id

-- name: settle_keys
-- Looks again at up to `limit` keys that somebody left word of. One row: are more left?
SELECT reproq_settle_keys(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: wake_throttled
-- Wakes who waits for a rate and may find a token.
SELECT reproq_wake_throttled() WHERE reproq_under_term(%(term_no)s, %(holder)s, true)

-- name: review_rates
-- Puts up to `limit` runs in their place that wait for a rate which no longer applies to them. One row: are more left?
SELECT reproq_review_rates(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: settle_flows
-- Settles up to `limit` ends of runs in workflows. One row: are more left?
SELECT reproq_settle_flows(reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: sweep_flows
-- Leaves word of ends that nobody settled, for the next `limit` waiting runs. One row: the run to go on after or NULL.
SELECT reproq_sweep_flows(%(after)s, reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: sweep_keys
-- Has the next `limit` keys looked at that somebody waits for. One row: the key to go on after or NULL.
SELECT reproq_sweep_keys(%(after)s, reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: prune
-- Deletes ended runs among the next `rows` records after one. One row, as in pruning.prune.
SELECT next_after, ids, statuses, logs_uris, spared, left_over
FROM reproq_prune(%(after)s, reproq_under_term(%(term_no)s, %(holder)s, %(rows)s::integer), %(statuses)s::text[], %(ages_s)s::float8[],
                  %(field)s, %(most)s, %(dry)s, %(early)s)

-- name: prune_flows
-- Deletes up to `limit` workflows that have no runs any more. One row: how many.
SELECT reproq_prune_flows(%(age_s)s::float8, reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer))

-- name: expire
-- Ends runs that have expired and that nobody has begun. One row: (how many, where to go on or NULLs, the time from which the next look
-- begins: some seconds back, for what is committed late).
SELECT e.ended, to_json(e.next_at) #>> '{}', e.next_id, to_json(now() - interval '5 s') #>> '{}'
FROM reproq_expire(%(after)s::timestamptz, %(after_id)s, reproq_under_term(%(term_no)s, %(holder)s, %(limit)s::integer), false) e
