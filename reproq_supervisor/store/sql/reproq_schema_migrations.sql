-- name: try_lock
-- One row: is the caller alone in migrating this schema from now on, until its transaction ends?
SELECT pg_try_advisory_xact_lock(hashtextextended('reproq migrate ' || current_schema(), 0))

-- name: pin_path
-- Names the schema itself for the rest of the transaction: "$user" and other people's schemas have no place in what functions remember.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)

-- name: create
-- Makes the list of applied steps, the first time.
CREATE TABLE IF NOT EXISTS reproq_schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), revision integer NOT NULL DEFAULT 1)

-- name: widen
-- Gives the list of an older program its column of revisions.
ALTER TABLE reproq_schema_migrations ADD COLUMN IF NOT EXISTS revision integer NOT NULL DEFAULT 1

-- name: exists
-- One row: is there such a table?
SELECT to_regclass('reproq_schema_migrations') IS NOT NULL

-- name: list
-- (version, revision) of the steps that were applied. The list may be older than its column of revisions.
SELECT m.version, coalesce((to_jsonb(m) ->> 'revision')::int, 1) FROM reproq_schema_migrations m

-- name: add
-- Enters a step, in the transaction that took it.
INSERT INTO reproq_schema_migrations AS m (version, name, revision) VALUES (%(version)s, %(name)s, %(revision)s)
ON CONFLICT (version) DO UPDATE SET revision = excluded.revision, name = excluded.name, applied_at = now()
