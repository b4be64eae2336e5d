-- name: server
-- One row: (server version number, encoding of the database, is it a standby?).
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery()

-- name: invariant
-- (fault, how many) among the newest `newest` records: a record has not ended exactly when it has a lane row.
SELECT fault, count(*)
FROM reproq_check_invariant((SELECT coalesce(max(result_id), 0) FROM task_runs) - %(newest)s) GROUP BY fault ORDER BY fault

-- name: unsupported
-- One row: how many runs are parked because they ask for a lock, a concurrency limit or a rate, or belong to a workflow.
SELECT count(*) FROM task_lane WHERE state = 'parked' AND park_reason = 'unsupported'

-- name: waiting
-- One row: how many runs wait for another one.
SELECT count(*) FROM task_lane WHERE state = 'waiting'

-- name: foreign_indexes
-- Indexes of our two large tables that we did not make: each costs something at every write.
SELECT c.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid IN (to_regclass('task_runs'), to_regclass('task_lane'))
  AND c.relname NOT IN ('task_runs_pkey', 'task_runs_dedupe', 'task_runs_failed', 'task_runs_workflow', 'task_runs_parent',
                        'task_lane_pkey', 'task_lane_ready', 'task_lane_due', 'task_lane_leases', 'task_lane_lock_holders',
                        'task_lane_limit_holders', 'task_lane_on_key')
ORDER BY c.relname

-- name: invalid_indexes
-- Indexes of our schema that a failed CREATE INDEX CONCURRENTLY left behind.
SELECT c.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('task_runs')) ORDER BY c.relname

-- name: triggers
-- Names of our triggers that are not there or do not fire.
SELECT t.name
FROM unnest(ARRAY['trg_task_runs_before_insert', 'trg_task_runs_after_insert', 'trg_task_runs_foreign_update',
                  'trg_task_runs_path_update', 'trg_task_runs_before_delete', 'trg_task_runs_before_truncate']) AS t (name)
WHERE NOT EXISTS (SELECT FROM pg_trigger p WHERE p.tgrelid = to_regclass('task_runs') AND p.tgname = t.name AND p.tgenabled <> 'D')

-- name: hot_ratio
-- One row: (updates of the record since its statistics began, share of them that touched no index or NULL).
SELECT n_tup_upd, n_tup_hot_upd::float8 / nullif(n_tup_upd, 0) FROM pg_stat_user_tables WHERE relid = to_regclass('task_runs')

-- name: oldest_snapshot
-- One row: seconds that the oldest transaction in this database has been open; NULL if none is.
SELECT extract(epoch FROM max(now() - xact_start))::float8
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
