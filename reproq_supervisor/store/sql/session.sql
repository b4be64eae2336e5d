-- name: backend
-- One row: the id of the process that answers, and the isolation level of statements outside of transactions.
SELECT pg_backend_pid(), current_setting('default_transaction_isolation')

-- name: tell_iso_times
-- For this session: times as ISO 8601.
SELECT set_config('DateStyle', 'ISO', false)

-- name: see_commits
-- For this session: every statement sees what others have committed before it.
SELECT set_config('default_transaction_isolation', 'read committed', false)
