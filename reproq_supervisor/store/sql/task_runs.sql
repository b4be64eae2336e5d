-- name: enqueue
-- Inserts runs in the order given. Returns (result_id, NULL, enqueued_at) of each, in that order.
INSERT INTO task_runs (queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                       lock_key, concurrency_key, concurrency_limit, expires_at, backend_alias, dedupe_key)
SELECT r.queue_name, r.priority, coalesce(r.run_after, now() + r.delay_s * interval '1 s'), r.spec::jsonb, r.spec_hash, r.task_path, 'READY',
       r.max_attempts, r.timeout_seconds, r.lock_key, r.concurrency_key, r.concurrency_limit, now() + r.expires_in_s * interval '1 s',
       r.backend_alias, NULL
FROM unnest(%(queue_names)s::text[], %(priorities)s::int[], %(run_afters)s::timestamptz[], %(delays_s)s::float8[], %(specs)s::text[],
            %(spec_hashes)s::text[], %(task_paths)s::text[], %(max_attempts)s::int[], %(timeouts_s)s::int[], %(lock_keys)s::text[],
            %(concurrency_keys)s::text[], %(concurrency_limits)s::int[], %(expire_ins_s)s::float8[], %(backend_aliases)s::text[])
     WITH ORDINALITY AS r (queue_name, priority, run_after, delay_s, spec, spec_hash, task_path, max_attempts, timeout_seconds,
                           lock_key, concurrency_key, concurrency_limit, expires_in_s, backend_alias, n)
ORDER BY r.n
RETURNING result_id, dedupe_key, enqueued_at

-- name: enqueue_one
-- The same for one run, without the arrays, which are more to plan.
INSERT INTO task_runs (queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                       lock_key, concurrency_key, concurrency_limit, expires_at, backend_alias, dedupe_key)
VALUES (%(queue_name)s, %(priority)s::int, coalesce(%(run_after)s::timestamptz, now() + %(delay_s)s::float8 * interval '1 s'), %(spec)s::jsonb,
        %(spec_hash)s, %(task_path)s, 'READY', %(max_attempts)s::int, %(timeout_s)s::int, %(lock_key)s, %(concurrency_key)s,
        %(concurrency_limit)s::int, now() + %(expires_in_s)s::float8 * interval '1 s', %(backend_alias)s, NULL)
RETURNING result_id, dedupe_key, enqueued_at

-- name: enqueue_unless_active
-- The same where some runs have a dedupe_key; apart, because ON CONFLICT costs every row a speculative insertion. Returns (result_id,
-- dedupe_key, enqueued_at) of those inserted, in that order; a run whose dedupe_key is active already is left out.
INSERT INTO task_runs (queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                       lock_key, concurrency_key, concurrency_limit, expires_at, backend_alias, dedupe_key)
SELECT r.queue_name, r.priority, coalesce(r.run_after, now() + r.delay_s * interval '1 s'), r.spec::jsonb, r.spec_hash, r.task_path, 'READY',
       r.max_attempts, r.timeout_seconds, r.lock_key, r.concurrency_key, r.concurrency_limit, now() + r.expires_in_s * interval '1 s',
       r.backend_alias, r.dedupe_key
FROM unnest(%(queue_names)s::text[], %(priorities)s::int[], %(run_afters)s::timestamptz[], %(delays_s)s::float8[], %(specs)s::text[],
            %(spec_hashes)s::text[], %(task_paths)s::text[], %(max_attempts)s::int[], %(timeouts_s)s::int[], %(lock_keys)s::text[],
            %(concurrency_keys)s::text[], %(concurrency_limits)s::int[], %(expire_ins_s)s::float8[], %(backend_aliases)s::text[],
            %(dedupe_keys)s::text[])
     WITH ORDINALITY AS r (queue_name, priority, run_after, delay_s, spec, spec_hash, task_path, max_attempts, timeout_seconds,
                           lock_key, concurrency_key, concurrency_limit, expires_in_s, backend_alias, dedupe_key, n)
ORDER BY r.n
ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
RETURNING result_id, dedupe_key, enqueued_at

-- name: active_by_dedupe_key
-- (dedupe_key, result_id) of the active runs with these keys.
SELECT dedupe_key, result_id FROM task_runs WHERE dedupe_key = ANY(%(keys)s::text[])

-- name: draw_ids
-- (as many new values of result_id as asked for, in their order; the time that delays count from), in one row. The sequence is looked up once.
SELECT array_agg(nextval((SELECT pg_get_serial_sequence('task_runs', 'result_id')::regclass))), now() FROM generate_series(1, %(count)s::int)

-- name: enqueue_by_copy
-- The same as enqueue, by COPY: under ids that were drawn before. In UTF-8, whatever the caller's session speaks.
COPY task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                lock_key, concurrency_key, concurrency_limit, expires_at, backend_alias, dedupe_key) FROM STDIN (ENCODING 'UTF8')

-- name: enqueue_flow
-- The same as enqueue, for runs of one workflow: under ids that were drawn before, each with what it waits for.
INSERT INTO task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                       lock_key, concurrency_key, concurrency_limit, expires_at, backend_alias, dedupe_key, parent_id, wait_count,
                       workflow_id)
SELECT r.result_id, r.queue_name, r.priority, coalesce(r.run_after, now() + r.delay_s * interval '1 s'), r.spec::jsonb, r.spec_hash, r.task_path,
       r.status, r.max_attempts, r.timeout_seconds, r.lock_key, r.concurrency_key, r.concurrency_limit,
       now() + r.expires_in_s * interval '1 s', r.backend_alias, NULL, r.parent_id, r.wait_count, %(workflow_id)s::uuid
FROM unnest(%(ids)s::bigint[], %(statuses)s::text[], %(parents)s::bigint[], %(waits)s::int[], %(queue_names)s::text[], %(priorities)s::int[],
            %(run_afters)s::timestamptz[], %(delays_s)s::float8[], %(specs)s::text[], %(spec_hashes)s::text[], %(task_paths)s::text[],
            %(max_attempts)s::int[], %(timeouts_s)s::int[], %(lock_keys)s::text[], %(concurrency_keys)s::text[],
            %(concurrency_limits)s::int[], %(expire_ins_s)s::float8[], %(backend_aliases)s::text[])
     AS r (result_id, status, parent_id, wait_count, queue_name, priority, run_after, delay_s, spec, spec_hash, task_path, max_attempts,
           timeout_seconds, lock_key, concurrency_key, concurrency_limit, expires_in_s, backend_alias)
ORDER BY r.result_id
