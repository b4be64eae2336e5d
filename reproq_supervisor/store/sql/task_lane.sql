-- name: cycle
-- A shard's whole conversation in one commit. One row for each thing to tell, by its first column: ended (with status), lost, busy,
-- unrenewed, cancel, claimed, suspect, looked, cut; of the runs of the last column, if there are any.
SELECT what, result_id, status, lease_no, attempt, queue_name, priority, task_path, timeout_s, max_attempts, spec, order_key, due_at, took_s, runs
FROM reproq_brief_cycle(
    %(leased_by)s, %(lease_s)s,
    %(end_ids)s::bigint[], %(end_lease_nos)s::bigint[], %(end_outcomes)s::text[], %(end_values)s::text[], %(end_delays)s::float8[],
    %(end_started_ago)s::float8[], %(end_logs_uris)s::text[],
    %(show_ids)s::bigint[], %(show_lease_nos)s::bigint[], %(show_started_ago)s::float8[],
    %(renew_ids)s::bigint[], %(renew_lease_nos)s::bigint[],
    %(watch_ids)s::bigint[],
    %(queues)s::text[], %(wanted)s::int[], %(after_keys)s::float8[], %(after_dues)s::timestamptz[], %(after_ids)s::bigint[],
    %(is_idle)s, %(claim_bytes)s::bigint)

-- name: claim_ready
-- Claims what is ready, and nothing else that a cycle does: for a sleeper that was woken. It keeps its flag. Columns as above; a crashed server may
-- forget such a claim.
SELECT c.what, c.result_id, NULL AS status, c.lease_no, c.attempt, c.queue_name, c.priority, c.task_path, c.timeout_s, c.max_attempts, c.spec,
       c.order_key, c.due_at, c.took_s, NULL AS runs
FROM set_config('synchronous_commit', 'off', true),
     reproq_claim(%(leased_by)s, %(lease_s)s, %(queues)s::text[], %(wanted)s::int[], NULL, NULL, NULL, %(claim_bytes)s::bigint) c

-- name: held
-- Which of these runs the caller still holds, with the number of the lease.
SELECT result_id, lease_no FROM reproq_held(%(leased_by)s, %(ids)s::bigint[])

-- name: load
-- How many runs are ready in these queues, up to a bound, and how many workers serve any of them.
SELECT waiting, workers
FROM reproq_load(%(worker_id)s, %(queues)s::text[], %(after_keys)s::float8[], %(after_dues)s::timestamptz[], %(after_ids)s::bigint[], %(most)s)

-- name: note
-- Writes what runs have noted down about themselves. Those that somebody has locked, for a later try.
SELECT result_id FROM reproq_note(%(leased_by)s, %(ids)s::bigint[], %(lease_nos)s::bigint[], %(metadata)s::text[])

-- name: begin_completion
-- Marks the transaction as one that ends a run: the mark goes with it, whoever ends it.
SELECT set_config('reproq.completing', %(lease_no)s, true)

-- name: complete
-- Ends a run well within its own transaction: its status, lost or busy.
SELECT reproq_complete(%(leased_by)s, %(id)s::bigint, %(lease_no)s::bigint, %(value)s, %(started_ago)s::float8, %(metadata)s)
