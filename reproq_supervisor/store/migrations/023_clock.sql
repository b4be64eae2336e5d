-- The database's clock was set back.
-- revision: 1
-- locks: none.

-- Schedules, as they were read, that wait for a time of a clock that was wrong: they fire at p_next, and bear no mark of a time that is yet
-- to come. What they fired while it was wrong stays entered, and does not fire again when its time comes. Returns how many.
CREATE OR REPLACE FUNCTION reproq_follow_clock(p_names text[], p_versions text[], p_next timestamptz[]) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n integer;
BEGIN
    UPDATE periodic_tasks p
    SET next_run_at = coalesce(g.next_run_at, 'infinity'), last_run_at = CASE WHEN p.last_run_at <= now() THEN p.last_run_at END,
        created_at = least(p.created_at, now()), updated_at = now()
    FROM unnest(p_names, p_versions, p_next) AS g (name, version, next_run_at)
    WHERE p.name = g.name AND p.xmin::text = g.version AND p.enabled;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;
