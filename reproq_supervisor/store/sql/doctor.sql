-- name: server
-- One row: (server version number, encoding of the database, is it a standby?).
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery()

-- name: invariant
-- (fault, how many) among the newest `newest` records: a record has not ended exactly when it has a lane row.
SELECT fault, count(*)
FROM reproq_check_invariant((SELECT coalesce(max(result_id), 0) FROM task_runs) - %(newest)s) GROUP BY fault ORDER BY fault

-- name: unsettled
-- One row: how many runs have waited in vain for `older_s` seconds: their parent has ended, or all members of their workflow have.
SELECT count(*)
FROM task_lane l JOIN task_runs r ON r.result_id = l.result_id
WHERE l.state = 'waiting'
  AND (EXISTS (SELECT FROM task_runs p
               WHERE p.result_id = r.parent_id AND p.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') AND p.finished_at < now() - %(older_s)s * interval '1 s')
       OR EXISTS (SELECT FROM workflow_runs w
                  WHERE w.callback_result_id = r.result_id AND w.updated_at < now() - %(older_s)s * interval '1 s'
                    AND (SELECT count(*) FROM task_runs m
                         WHERE m.workflow_id = w.workflow_id AND m.result_id <> w.callback_result_id AND m.status = 'SUCCESSFUL')
                        >= w.expected_count))

-- name: parentless
-- One row: how many runs have been WAITING for `older_s` seconds without anything that they could wait for, of which nobody left word either.
SELECT count(*)
FROM task_lane l JOIN task_runs r ON r.result_id = l.result_id
WHERE l.state = 'waiting' AND r.parent_id IS NULL AND r.workflow_id IS NULL AND r.created_at < now() - %(older_s)s * interval '1 s'
  AND NOT EXISTS (SELECT FROM reproq_flow_ends e WHERE e.result_id = r.result_id)

-- name: shared_queues
-- (queue, backends) of queues that hold runs of several backends, among the newest `newest` records.
SELECT queue_name, array_agg(DISTINCT backend_alias ORDER BY backend_alias)
FROM task_runs
WHERE result_id > (SELECT coalesce(max(result_id), 0) FROM task_runs) - %(newest)s
GROUP BY queue_name HAVING min(backend_alias) <> max(backend_alias) ORDER BY queue_name

-- name: foreign_indexes
-- (name, columns of the last write of a run that it mentions, as key or in its predicate) of indexes of our two large tables that we did not
-- make. pg_depend knows the columns of keys, expressions and predicates alike.
SELECT c.relname, array_agg(a.attname ORDER BY a.attname) FILTER (WHERE a.attname IN (
    'status', 'started_at', 'last_attempted_at', 'finished_at', 'attempts', 'worker_ids', 'return_json', 'run_after', 'cancel_requested',
    'leased_by', 'leased_until', 'logs_uri', 'updated_at', 'rev', 'state', 'due_at', 'order_key', 'lease_no'))
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid > 0
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE i.indrelid IN (to_regclass('task_runs'), to_regclass('task_lane'))
  AND c.relname NOT IN ('task_runs_pkey', 'task_runs_dedupe', 'task_runs_failed', 'task_runs_workflow', 'task_runs_parent', 'task_runs_expiry',
                        'task_lane_pkey', 'task_lane_ready', 'task_lane_due', 'task_lane_leases', 'task_lane_lock_holds',
                        'task_lane_limit_holds', 'task_lane_members', 'task_lane_waiting', 'task_lane_on_key')
  -- Older workers need these.
  AND NOT (c.relname IN ('idx_task_runs_claim', 'idx_task_runs_claim_due', 'idx_task_runs_lock_key', 'idx_task_runs_concurrency_active')
           AND EXISTS (SELECT FROM reproq_coexistence))
GROUP BY c.relname ORDER BY c.relname

-- name: invalid_indexes
-- Indexes of our schema that a failed CREATE INDEX CONCURRENTLY left behind.
SELECT c.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('task_runs')) ORDER BY c.relname

-- name: silent_triggers
-- (name, is there) of our triggers that are not there or do not fire; none before there is a lane.
SELECT t.name, p.oid IS NOT NULL
FROM unnest(ARRAY['trg_task_runs_before_insert', 'trg_task_runs_after_insert', 'trg_task_runs_foreign_update', 'trg_task_runs_path_update',
                  'trg_task_runs_before_delete', 'trg_task_runs_ended_before_delete', 'trg_task_runs_before_truncate']) AS t (name)
LEFT JOIN pg_trigger p ON p.tgrelid = to_regclass('task_runs') AND p.tgname = t.name
WHERE to_regclass('task_lane') IS NOT NULL AND (p.oid IS NULL OR p.tgenabled IN ('D', 'R'))

-- name: hot_ratio
-- One row: (updates of the record since its statistics began, share of them that touched no index or NULL).
SELECT n_tup_upd, n_tup_hot_upd::float8 / nullif(n_tup_upd, 0) FROM pg_stat_user_tables WHERE relid = to_regclass('task_runs')

-- name: clock
-- One row: the time of the database, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: open_transactions
-- (pid, application, state, seconds) of transactions of this database that have been open for long, the oldest first.
SELECT pid, application_name, state, extract(epoch FROM clock_timestamp() - xact_start)::float8
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
  AND clock_timestamp() - xact_start > %(longer_than_s)s::float8 * interval '1 s'
ORDER BY xact_start, pid LIMIT 10

-- name: prepared_transactions
-- (name, seconds) of prepared transactions of this database that nobody ends.
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts WHERE database = current_database() AND clock_timestamp() - prepared > %(longer_than_s)s::float8 * interval '1 s'
ORDER BY prepared, gid

-- name: missing_rights
-- (kind of object, name, right) that the current role lacks.
SELECT 'TABLE', t.name, r.name
FROM unnest(ARRAY['task_runs', 'task_lane', 'periodic_tasks', 'reproq_queue_controls', 'reproq_workers', 'rate_limits', 'workflow_runs',
                  'reproq_queue_settings', 'reproq_queue_idle', 'reproq_cancel_requests', 'reproq_keeper_term', 'reproq_firings', 'reproq_key_floors', 'reproq_line_floors']) AS t (name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (name)
WHERE NOT coalesce(has_table_privilege(to_regclass(t.name), r.name), true)
UNION ALL
SELECT 'SEQUENCE', 'reproq_lease_seq', 'USAGE'
WHERE NOT coalesce(has_sequence_privilege(to_regclass('reproq_lease_seq'), 'USAGE'), true)
UNION ALL
SELECT 'FUNCTION', p.oid::regprocedure::text, 'EXECUTE'
FROM pg_proc p
WHERE p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('task_runs')) AND p.proname LIKE 'reproq\_%%'
  AND NOT has_function_privilege(p.oid, 'EXECUTE')
ORDER BY 1, 2, 3

-- name: superuser
-- One row: is the current role one?
SELECT rolsuper FROM pg_roles WHERE rolname = current_user

-- name: unknown_statuses
-- (status, how many) among the newest `newest` records, of words that are none of the contract's.
SELECT status, count(*)
FROM task_runs
WHERE result_id > (SELECT coalesce(max(result_id), 0) FROM task_runs) - %(newest)s
  AND status NOT IN ('READY', 'RUNNING', 'WAITING', 'SUCCESSFUL', 'FAILED', 'CANCELLED')
GROUP BY status ORDER BY status

-- name: expired_leases
-- One row: (how many leases ended more than `overdue_s` seconds ago, seconds since the first of them did).
SELECT count(*), extract(epoch FROM clock_timestamp() - min(leased_until))::float8
FROM task_lane WHERE state = 'running' AND leased_until < clock_timestamp() - %(overdue_s)s::float8 * interval '1 s'

-- name: overdue_runs
-- One row: (how many parked runs were due more than `overdue_s` seconds ago, seconds since the first of them was).
SELECT count(*), extract(epoch FROM clock_timestamp() - min(due_at))::float8
FROM task_lane WHERE state = 'parked' AND park_reason = 'due' AND due_at < clock_timestamp() - %(overdue_s)s::float8 * interval '1 s'

-- name: stale_workers
-- One row: how many workers have not been seen for a day.
SELECT count(*) FROM reproq_workers WHERE last_seen_at < now() - interval '1 day'

-- name: lane_size
-- One row: (rows of the lane, its bytes without indexes).
SELECT (SELECT count(*) FROM task_lane), pg_relation_size(to_regclass('task_lane'))

-- name: changes_since_analyze
-- One row: (rows of the record that changed since its statistics were gathered, rows that it held then).
SELECT coalesce(s.n_mod_since_analyze, 0), greatest(c.reltuples, 0)::float8
FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid WHERE c.oid = to_regclass('task_runs')

-- name: without_autovacuum
-- Our two large tables, if nobody vacuums and analyses them by himself.
SELECT c.relname
FROM pg_class c
WHERE c.oid IN (to_regclass('task_runs'), to_regclass('task_lane'))
  AND (current_setting('autovacuum') = 'off' OR 'autovacuum_enabled=false' = ANY (c.reloptions) OR 'autovacuum_enabled=off' = ANY (c.reloptions))
ORDER BY c.relname

-- name: served_queues
-- Queues that some worker serves which was seen within `within_s` seconds.
SELECT DISTINCT q.name
FROM reproq_workers w
CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(w.queues) WHEN 'array' THEN w.queues ELSE '[]' END) AS q (name)
WHERE w.last_seen_at > now() - %(within_s)s::float8 * interval '1 s' ORDER BY q.name
