-- Schedules: each firing enqueues one run, whoever notices it: a keeper, the command `beat`, pg_cron.
-- revision: 3
-- locks: none.
--
-- Every one of them locks the schedule's row first, then looks whether the firing was entered, and enters it with its run: the primary key
-- refuses a second one. An older producer's beat locks the same row and moves next_run_at; what it did before us shows in the row's version.

CREATE TABLE IF NOT EXISTS reproq_firings (
    name text NOT NULL,
    fire_at timestamptz NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('enqueued', 'skipped')),
    result_id bigint,
    fired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, fire_at)
);
CREATE INDEX IF NOT EXISTS reproq_firings_fired_at ON reproq_firings (fired_at);

-- Fires schedules that were read at the versions given: enqueues the firings (p_of says which schedule each belongs to, from 1) that nobody
-- has entered, and moves the schedules on. Schedules that have changed since, or are locked, are left for the next look. Returns a row for
-- each schedule that was moved, and for each firing that was entered.
CREATE OR REPLACE FUNCTION reproq_fire(
    p_names text[], p_versions text[], p_next timestamptz[],
    p_of integer[], p_fire_at timestamptz[], p_run_after timestamptz[], p_specs text[], p_hashes text[])
RETURNS TABLE (name text, fire_at timestamptz, outcome text, result_id bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH mine AS MATERIALIZED (
        SELECT g.n, p.name, p.overlap, p.task_path, p.queue_name, p.priority, p.max_attempts, p.timeout_seconds, p.concurrency_key,
               p.concurrency_limit, g.next_run_at,
               p.overlap = 'skip' AND EXISTS (SELECT FROM task_lane l WHERE l.result_id = p.last_result_id) AS is_running
        FROM unnest(p_names, p_versions, p_next) WITH ORDINALITY AS g (name, version, next_run_at, n)
        JOIN periodic_tasks p ON p.name = g.name
        WHERE p.enabled AND p.xmin::text = g.version
        ORDER BY p.name
        FOR NO KEY UPDATE OF p SKIP LOCKED),
    given AS MATERIALIZED (
        SELECT m.*, f.fire_at, f.run_after, f.spec, f.hash,
               m.overlap = 'skip' AND (m.is_running OR row_number() OVER (PARTITION BY m.n ORDER BY f.fire_at) > 1) AS is_skipped
        FROM unnest(p_of, p_fire_at, p_run_after, p_specs, p_hashes) AS f (n, fire_at, run_after, spec, hash)
        JOIN mine m ON m.n = f.n
        WHERE NOT EXISTS (SELECT FROM reproq_firings b WHERE b.name = m.name AND b.fire_at = f.fire_at)),
    made AS (
        INSERT INTO task_runs (queue_name, priority, run_after, spec_json, spec_hash, task_path, status, max_attempts, timeout_seconds,
                               concurrency_key, concurrency_limit, dedupe_key)
        SELECT coalesce(nullif(v.queue_name, ''), 'default'), v.priority, v.run_after, v.spec::jsonb, v.hash, v.task_path, 'READY',
               CASE WHEN v.max_attempts > 0 THEN v.max_attempts ELSE 3 END, v.timeout_seconds, v.concurrency_key, v.concurrency_limit, NULL
        FROM given v WHERE NOT v.is_skipped ORDER BY v.fire_at, v.name
        RETURNING result_id, spec_json ->> 'periodic_name' AS name, (spec_json ->> 'scheduled_at')::timestamptz AS fire_at),
    entered AS (
        INSERT INTO reproq_firings (name, fire_at, outcome, result_id)
        SELECT m.name, m.fire_at, 'enqueued', m.result_id FROM made m
        UNION ALL
        SELECT v.name, v.fire_at, 'skipped', NULL FROM given v WHERE v.is_skipped
        RETURNING name, fire_at, outcome, result_id),
    moved AS (
        UPDATE periodic_tasks p
        SET next_run_at = coalesce(m.next_run_at, 'infinity'), updated_at = now(),
            last_run_at = greatest(p.last_run_at, (SELECT max(e.fire_at) FROM entered e WHERE e.name = m.name)),
            last_result_id = coalesce((SELECT max(e.result_id) FROM entered e WHERE e.name = m.name), p.last_result_id)
        FROM mine m WHERE p.name = m.name
        RETURNING p.name)
    SELECT d.name, NULL::timestamptz, 'moved', NULL::bigint FROM moved d
    UNION ALL
    SELECT e.name, e.fire_at, e.outcome, e.result_id FROM entered e;
END
$$;

-- Takes schedules that cannot fire out of the way, if they are still those that were read.
CREATE OR REPLACE FUNCTION reproq_disable_schedule(p_name text, p_version text, p_reason text) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE periodic_tasks p SET enabled = false, is_faulty = true, disabled_reason = p_reason, updated_at = now()
    WHERE p.name = p_name AND p.enabled AND p.xmin::text = p_version;
    RETURN FOUND;
END
$$;

-- Arguments of a payload in the contract's forms: {"args": [...], "kwargs": {...}}, a list of arguments, or an object of named ones.
CREATE OR REPLACE FUNCTION reproq_schedule_arguments(p_payload jsonb, OUT args jsonb, OUT kwargs jsonb)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
BEGIN
    args := '[]';
    kwargs := '{}';
    CASE jsonb_typeof(p_payload)
        WHEN 'array' THEN args := p_payload;
        WHEN 'null' THEN NULL;
        WHEN 'object' THEN
            IF p_payload ? 'args' OR p_payload ? 'kwargs' THEN
                args := coalesce(nullif(p_payload -> 'args', 'null'), '[]');
                kwargs := coalesce(nullif(p_payload -> 'kwargs', 'null'), '{}');
                IF jsonb_typeof(args) <> 'array' OR jsonb_typeof(kwargs) <> 'object' THEN
                    args := NULL;
                END IF;
            ELSE
                kwargs := p_payload;
            END IF;
        ELSE args := NULL;
    END CASE;
END
$$;

-- Firings are remembered for two days, longer than anything is made up for: deletes up to p_limit older ones, and returns how many.
CREATE OR REPLACE FUNCTION reproq_forget_firings(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n integer;
BEGIN
    WITH old AS MATERIALIZED (
        SELECT f.name, f.fire_at FROM reproq_firings f
        WHERE f.fired_at < statement_timestamp() - interval '2 days' ORDER BY f.fired_at LIMIT p_limit FOR UPDATE SKIP LOCKED)
    DELETE FROM reproq_firings f USING old o WHERE f.name = o.name AND f.fire_at = o.fire_at;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;
