-- What operators do with runs that have ended: run them again.
-- revision: 1
-- locks: none while migrating.
--
-- Every function handles each run on its own, so that one that is locked, refused or in conflict costs the others nothing, and says of each
-- what became of it. A run that has ended has no lane row, so the record is the first lock here; it is not waited for.

-- Which run stands before *run*, which others wait for in vain; NULL if nothing does. is_active: it has not ended, so that it may be waited for.
CREATE OR REPLACE FUNCTION reproq_stands_before(run task_runs, OUT result_id bigint, OUT is_active boolean)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    -- Of its chain: the parent, or where that did not run either, what it did not run for.
    SELECT CASE WHEN c.result_id IS NOT NULL THEN c.result_id ELSE p.result_id END, p.status IN ('READY', 'RUNNING', 'WAITING')
    INTO result_id, is_active
    FROM task_runs p
    LEFT JOIN task_runs c ON c.result_id = ANY (ARRAY[CASE WHEN jsonb_typeof(p.errors_json #> '{-1,failed_result_id}') = 'number'
                                                           THEN (p.errors_json #>> '{-1,failed_result_id}')::numeric::bigint END])
                             AND p.status = 'FAILED' AND p.errors_json #>> '{-1,kind}' = 'parent_failed' AND c.status <> 'SUCCESSFUL'
    WHERE p.result_id = run.parent_id AND p.status <> 'SUCCESSFUL';
    -- Of its chord: a member, those that have ended first.
    IF result_id IS NULL AND EXISTS (SELECT FROM workflow_runs w WHERE w.workflow_id = run.workflow_id AND w.callback_result_id = run.result_id)
    THEN
        SELECT m.result_id, m.status IN ('READY', 'RUNNING', 'WAITING') INTO result_id, is_active
        FROM task_runs m
        WHERE m.workflow_id = run.workflow_id AND m.result_id <> run.result_id AND m.status <> 'SUCCESSFUL'
        ORDER BY m.status IN ('READY', 'RUNNING', 'WAITING'), m.result_id LIMIT 1;
    END IF;
END
$$;

-- Makes failed and cancelled runs active again, in this order: with all their attempts, due now, their errors kept. Returns of each what
-- became of it, and the run that *other* names:
--   retried    ready, or waiting for another run of its workflow that is active (other)
--   duplicate  an active run has the same content, and one was asked for at most (other)
--   follows    it waits for a run that has failed (other); it wakes when that is retried and succeeds
--   expired    its time is over: only a new run of the same task can be had
--   active     it has not ended           succeeded  nothing to retry
--   locked     somebody else has it       refused    PostgreSQL refuses the change        unknown
--
-- A run whose end left unknown whether deduplication had been asked for takes its key where that is free, and goes on without where not.
CREATE OR REPLACE FUNCTION reproq_retry(p_ids bigint[]) RETURNS TABLE (result_id bigint, outcome text, other bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    run task_runs;
    key text;
    waits boolean;
BEGIN
    FOREACH result_id IN ARRAY p_ids LOOP
        other := NULL;
        BEGIN
            SELECT r.* INTO run FROM task_runs r WHERE r.result_id = reproq_retry.result_id FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                outcome := CASE WHEN EXISTS (SELECT FROM task_runs r WHERE r.result_id = reproq_retry.result_id) THEN 'locked' ELSE 'unknown' END;
            ELSIF run.status = 'SUCCESSFUL' THEN
                outcome := 'succeeded';
            ELSIF run.status NOT IN ('FAILED', 'CANCELLED') THEN
                outcome := 'active';
            ELSIF run.expires_at <= clock_timestamp() THEN
                outcome := 'expired';
            ELSE
                SELECT b.result_id, b.is_active INTO other, waits FROM reproq_stands_before(run) b;
                key := CASE WHEN other IS NULL AND run.was_deduped IS NOT FALSE THEN nullif(rtrim(run.spec_hash), '') END;
                IF other IS NOT NULL AND NOT waits THEN
                    outcome := 'follows';
                ELSE
                    IF key IS NOT NULL THEN
                        SELECT r.result_id INTO other FROM task_runs r WHERE r.dedupe_key = key;
                    END IF;
                    IF key IS NOT NULL AND other IS NOT NULL AND run.was_deduped THEN
                        outcome := 'duplicate';
                    ELSE
                        IF key IS NOT NULL AND other IS NOT NULL THEN
                            key := NULL;
                            other := NULL;
                        END IF;
                        PERFORM reproq_revive(run, key, coalesce(waits, false));
                        outcome := 'retried';
                    END IF;
                END IF;
            END IF;
        EXCEPTION
            WHEN unique_violation THEN
                -- Enqueued at this moment, by a transaction that has committed since.
                outcome := 'duplicate';
                SELECT r.result_id INTO other FROM task_runs r WHERE r.dedupe_key = key;
            WHEN lock_not_available THEN
                outcome := 'locked';
            WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
                outcome := 'refused';
                RAISE WARNING 'task run %: retrying it is refused: %', result_id, SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Makes a run that has ended, whose record we have locked, ready or waiting, and its workflow a running one.
CREATE OR REPLACE FUNCTION reproq_revive(run task_runs, p_dedupe_key text, p_waits boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    clock timestamptz := clock_timestamp();
BEGIN
    UPDATE task_runs r
    SET status = CASE WHEN p_waits THEN 'WAITING' ELSE 'READY' END,
        wait_count = CASE WHEN p_waits THEN 1 ELSE 0 END,
        run_after = clock,
        attempts = 0,
        started_at = NULL,
        last_attempted_at = NULL,
        finished_at = NULL,
        failed_at = NULL,
        return_json = NULL,
        last_error = NULL,
        leased_by = NULL,
        leased_until = NULL,
        cancel_requested = false,
        dedupe_key = p_dedupe_key,
        updated_at = clock,
        rev = r.rev + 1
    WHERE r.result_id = run.result_id
    RETURNING r.* INTO run;
    DELETE FROM reproq_cancel_requests c WHERE c.result_id = run.result_id;
    PERFORM reproq_lane_insert(run);
    IF run.workflow_id IS NOT NULL THEN
        UPDATE workflow_runs w
        SET status = CASE WHEN w.callback_result_id = run.result_id AND NOT p_waits THEN 'WAITING_CALLBACK' ELSE 'RUNNING' END, updated_at = clock
        WHERE w.workflow_id = ANY (ARRAY(SELECT f.workflow_id FROM workflow_runs f
                                         WHERE f.workflow_id = run.workflow_id AND f.status = 'FAILED' FOR NO KEY UPDATE SKIP LOCKED));
    END IF;
END
$$;
