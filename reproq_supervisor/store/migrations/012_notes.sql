-- What a running task says of itself: the contract's metadata_json, and its own completion.
-- revision: 3
-- locks: none while migrating.

-- Writes the notes of runs, each the whole of its metadata_json, as JSON text; one that PostgreSQL refuses, for its value or by somebody's
-- trigger, changes nothing. Returns the runs
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
    EXCEPTION
        WHEN lock_not_available THEN
            free := '{}';
        WHEN OTHERS OR assert_failure THEN
            IF cardinality(p_ids) = 1 THEN
                RAISE WARNING 'task run %: what it notes down is refused: %', p_ids[1], SQLERRM;
            ELSE
                -- One of them.
                FOR i IN 1 .. cardinality(p_ids) LOOP
                    RETURN QUERY SELECT * FROM reproq_note(p_leased_by, p_ids[i:i], p_lease_nos[i:i], p_metadata[i:i]);
                END LOOP;
            END IF;
            RETURN;
    END;
    RETURN QUERY
    SELECT l.result_id
    FROM unnest(p_ids, p_lease_nos) AS e (id, no)
    JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
    WHERE l.result_id <> ALL (free);
END
$$;

-- Ends a run well from within its own transaction (`context.completing()`): its writes and its result are one commit. Called last in it, so
-- that the locks on lane and record are short. Returns the run's status; lost, if it is not the caller's any more; busy, if somebody else has
-- it locked: say it again soon.
--
-- SECURITY DEFINER: a task that connects as another role needs rights on its own tables only. What it can end is the run whose worker and
-- lease number it knows, which are random and growing.
CREATE OR REPLACE FUNCTION reproq_complete(
    p_leased_by text, p_result_id bigint, p_lease_no bigint, p_value text, p_started_ago double precision, p_metadata text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    ended text;
    trouble text;
BEGIN
    -- Set at the start of the transaction, gone with it: a task that commits in between must not have half of its writes kept.
    IF current_setting('reproq.completing', true) IS DISTINCT FROM p_lease_no::text THEN
        RAISE 'the transaction of the block has been ended within the block'
            USING ERRCODE = 'invalid_transaction_state', HINT = 'COMMIT and ROLLBACK are for the end of the task alone';
    END IF;
    BEGIN
        PERFORM FROM task_lane l WHERE l.result_id = p_result_id AND l.leased_by = p_leased_by AND l.lease_no = p_lease_no FOR UPDATE;
        IF NOT FOUND THEN
            RETURN 'lost';
        END IF;
        IF p_metadata IS NOT NULL THEN
            UPDATE task_runs r
            SET metadata_json = coalesce(reproq_jsonb_or_null(p_metadata), r.metadata_json), rev = r.rev + 1
            WHERE r.result_id = p_result_id;
        END IF;
        SELECT e.status, e.trouble INTO ended, trouble
        FROM reproq_end(p_leased_by, ARRAY[p_result_id], ARRAY[p_lease_no], '{succeed}', ARRAY[p_value], '{NULL}', ARRAY[p_started_ago]) e;
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'busy';
    END;
    IF trouble IS NOT NULL THEN
        -- The task's own transaction: it fails by this, with all its writes, and is tried again as its attempts say.
        RAISE 'the end of task run % is refused: %', p_result_id, trouble;
    END IF;
    RETURN coalesce(ended, 'busy');
END
$$;

-- Where the output of runs went that have completed themselves: of the given endings those with outcome completed. Only the shard knows it.
CREATE OR REPLACE FUNCTION reproq_note_logs(p_leased_by text, p_ids bigint[], p_outcomes text[], p_logs_uris text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    UPDATE task_runs r
    SET logs_uri = e.logs_uri, rev = r.rev + 1
    FROM (SELECT * FROM unnest(p_ids, p_outcomes, p_logs_uris) AS u (id, outcome, logs_uri) ORDER BY id) e
    WHERE e.outcome = 'completed' AND e.logs_uri IS NOT NULL AND r.result_id = ANY (ARRAY[e.id])
      AND r.status = 'SUCCESSFUL' AND r.worker_ids ->> -1 = p_leased_by
$$;
