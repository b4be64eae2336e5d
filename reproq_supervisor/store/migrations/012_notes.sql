-- What a running task notes down about itself: the contract's metadata_json, written by the holder of its lease.
-- revision: 1
-- locks: none while migrating.

-- Writes the notes of runs, each the whole of its metadata_json, as JSON text; one that PostgreSQL refuses changes nothing. Returns the runs
-- that somebody else has locked: say those again later. What is not the caller's any more is passed over; the next cycle tells it.
CREATE OR REPLACE FUNCTION reproq_note(p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_metadata text[])
RETURNS TABLE (result_id bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    clock timestamptz := clock_timestamp();
    free bigint[];
BEGIN
    -- A note that a crashed server forgets is written again, or was of a run that is begun anew.
    PERFORM set_config('synchronous_commit', 'off', true);
    BEGIN
        -- Locked first, as in reproq_show.
        free := ARRAY(SELECT l.result_id
                      FROM (SELECT * FROM unnest(p_ids, p_lease_nos) AS u (id, no) ORDER BY id) e
                      JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
                      JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
                      FOR NO KEY UPDATE OF l, r SKIP LOCKED);
        UPDATE task_runs r
        SET metadata_json = coalesce(reproq_jsonb_or_null(e.metadata), r.metadata_json), updated_at = clock, rev = r.rev + 1
        FROM unnest(p_ids, p_metadata) AS e (id, metadata)
        WHERE e.id = ANY (free) AND r.result_id = ANY (ARRAY[e.id]);
    EXCEPTION WHEN lock_not_available THEN
        free := '{}';
    END;
    RETURN QUERY
    SELECT l.result_id
    FROM unnest(p_ids, p_lease_nos) AS e (id, no)
    JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
    WHERE l.result_id <> ALL (free);
END
$$;
