-- name: name_of
-- The notification channel of this schema. Payloads: `ready:<queue>`, `cancel`.
SELECT reproq_channel()

-- name: backend
-- One row: the id of the process that answers.
SELECT pg_backend_pid()
