-- name: limit_waits
-- For the rest of the transaction: how long to wait for a lock, and how long a statement may take.
SELECT set_config('lock_timeout', %(lock)s, true), set_config('statement_timeout', %(statement)s, true)

-- name: unlimit
-- For the session: nothing of what takes long (building an index, checking a constraint) is cut short, and none of it holds producers up.
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout')

-- name: idle_as_long_as_it_takes
-- For the rest of the transaction: it may stay open. The last of these is younger than some servers.
SELECT set_config(name, '0', true)
FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', 'statement_timeout', 'transaction_timeout')

-- name: nothing
-- One row, if the connection is there.
SELECT 1

-- name: holders
-- (pid, application, state, seconds its transaction has been open) of those who hold a lock on a table, the oldest three.
SELECT a.pid, a.application_name, a.state, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
  AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation = to_regclass(%(table)s))
ORDER BY a.xact_start, a.pid LIMIT 3

-- name: estimate
-- One row: (estimated rows, pages) of a table; none when it is not there. Never analysed, it is guessed from its size.
SELECT CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_relation_size(c.oid) / 300 END::float8, pg_relation_size(c.oid)
FROM pg_class c WHERE c.oid = to_regclass(%(table)s)

-- name: columns
-- (name, type, default or NULL, may not be null, is an identity) of the columns of a table.
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.attidentity <> ''
FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped

-- name: options
-- One row for each storage option of a table, as name=value.
SELECT unnest(c.reloptions) FROM pg_class c WHERE c.oid = to_regclass(%(table)s)

-- name: constraints
-- (name, kind, definition, validated) of the checks and foreign keys of a table.
SELECT c.conname, c.contype::text, pg_get_constraintdef(c.oid), c.convalidated
FROM pg_constraint c WHERE c.conrelid = to_regclass(%(table)s) AND c.contype IN ('c', 'f')

-- name: index
-- One row for an index of that name: can it be used?
SELECT i.indisvalid AND i.indisready AND i.indislive
FROM pg_index i WHERE i.indexrelid = to_regclass(%(index)s)

-- name: indexes_of
-- (name, is a pattern index of a single column, as some frameworks add to keys) of the indexes of a table.
SELECT c.relname, i.indnatts = 1 AND o.opcname IN ('text_pattern_ops', 'varchar_pattern_ops')
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = to_regclass(%(table)s) ORDER BY c.relname

-- name: is_building
-- One row: does somebody else build an index of that name at this moment?
SELECT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = to_regclass(%(index)s) AND p.pid <> pg_backend_pid())

-- name: building
-- What the builder of an index of a table says: (phase, share done or NULL).
SELECT p.phase, greatest(p.blocks_done::float8 / nullif(p.blocks_total, 0), p.tuples_done::float8 / nullif(p.tuples_total, 0))
FROM pg_stat_progress_create_index p WHERE p.relid = to_regclass(%(table)s) LIMIT 1

-- name: sequence
-- One row: (schema, name) of the sequence that a column owns, NULLs for none.
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_get_serial_sequence(quote_ident(current_schema()) || '.' || quote_ident(%(table)s), %(column)s)::regclass

-- name: lock_task_runs
-- Keeps everybody out for the rest of the transaction.
LOCK TABLE task_runs IN ACCESS EXCLUSIVE MODE

-- name: largest_id
-- One row: the number after the largest id, 1 when there is none.
SELECT coalesce(max(result_id), 0) + 1 FROM task_runs

-- name: free_spec_hash
-- The same bytes under a type without a length.
ALTER TABLE task_runs ALTER COLUMN spec_hash TYPE bpchar

-- name: trigger_functions
-- The definition of each function that a trigger of the record calls.
SELECT DISTINCT pg_get_functiondef(t.tgfoid) FROM pg_trigger t WHERE t.tgrelid = to_regclass('task_runs') AND NOT t.tgisinternal

-- name: next_upto
-- One row: the id with which the next `rows` records after an id end; NULL when there are none.
SELECT max(x.result_id) FROM (SELECT r.result_id FROM task_runs r WHERE r.result_id > %(after)s ORDER BY r.result_id LIMIT %(rows)s) x

-- name: adopt
-- One row: (runs that were brought into the lane, those of them whose key another run owns, runs passed over because others hold them).
SELECT placed, doubled, passed FROM reproq_adopt(%(after)s, %(upto)s)

-- name: firing_triggers
-- Names of the triggers of our tables that are on.
SELECT t.tgname FROM pg_trigger t WHERE t.tgrelid IN (to_regclass('task_runs'), to_regclass('rate_limits')) AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')

-- name: has_retired
-- One row: is the older layouts' trigger still there, or a function that nothing calls any more, theirs or of an earlier version of ours?
SELECT to_regprocedure('reproq_task_path_from_spec()') IS NOT NULL
    OR to_regprocedure('reproq_wants_rate(text, text)') IS NOT NULL
    OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = to_regclass('task_runs') AND t.tgname = 'trg_task_runs_task_path')

-- name: drop_retired
-- Removes them.
DROP TRIGGER IF EXISTS trg_task_runs_task_path ON task_runs;
DROP FUNCTION IF EXISTS reproq_task_path_from_spec();
DROP FUNCTION IF EXISTS reproq_wants_rate(text, text)
