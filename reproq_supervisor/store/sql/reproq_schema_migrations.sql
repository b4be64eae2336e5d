-- name: lock
-- Waits until nobody else migrates this schema; held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('reproq migrate ' || current_schema(), 0))

-- name: pin_path
-- Names the schema itself for the rest of the transaction: "$user" and other people's schemas have no place in what functions remember.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)

-- name: create
-- Makes the list of applied steps, the first time.
CREATE TABLE IF NOT EXISTS reproq_schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())

-- name: exists
-- One row: is there such a table?
SELECT to_regclass('reproq_schema_migrations') IS NOT NULL

-- name: list
-- The versions that were applied.
SELECT version FROM reproq_schema_migrations

-- name: add
-- Enters a step, in the transaction that took it.
INSERT INTO reproq_schema_migrations (version, name) VALUES (%(version)s, %(name)s)
