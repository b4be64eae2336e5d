-- What operators do with runs: let those that ended run again, as they are or anew; take back those whose lease has expired.
-- revision: 3
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
            WHEN OTHERS OR assert_failure THEN
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

-- Enqueues these runs' tasks anew: same content, queue, keys and limits, due now, of no workflow, and without a time after which it is not
-- worth running. Returns of each what became of it, and the run that *other* names:
--   enqueued   other is the new one
--   duplicate  other is active, has the same content, and one was asked for at most (also where older programs left that unknown)
--   refused    PostgreSQL refuses the row        unknown
CREATE OR REPLACE FUNCTION reproq_replay(p_ids bigint[]) RETURNS TABLE (result_id bigint, outcome text, other bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    most_tries CONSTANT integer := 10;
    run task_runs;
    key text;
BEGIN
    FOREACH result_id IN ARRAY p_ids LOOP
        other := NULL;
        SELECT r.* INTO run FROM task_runs r WHERE r.result_id = reproq_replay.result_id;
        IF NOT FOUND THEN
            outcome := 'unknown';
            RETURN NEXT;
            CONTINUE;
        END IF;
        key := CASE WHEN run.dedupe_key IS NOT NULL OR (run.was_deduped IS NOT FALSE AND run.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED'))
                    THEN nullif(rtrim(run.spec_hash), '') END;
        BEGIN
            -- Again where the one that was in the way has ended in between.
            FOR try IN 1 .. most_tries LOOP
                INSERT INTO task_runs (backend_alias, queue_name, priority, spec_json, spec_hash, task_path, status, max_attempts,
                                       timeout_seconds, lock_key, concurrency_key, concurrency_limit, dedupe_key)
                VALUES (run.backend_alias, run.queue_name, run.priority, run.spec_json, run.spec_hash, run.task_path, 'READY', run.max_attempts,
                        run.timeout_seconds, run.lock_key, run.concurrency_key, run.concurrency_limit, key)
                ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
                RETURNING task_runs.result_id INTO other;
                outcome := 'enqueued';
                EXIT WHEN other IS NOT NULL;
                outcome := 'duplicate';
                SELECT r.result_id INTO other FROM task_runs r WHERE r.dedupe_key = key;
                EXIT WHEN other IS NOT NULL;
            END LOOP;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            outcome := 'refused';
            RAISE WARNING 'task run %: replaying it is refused: %', result_id, SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Ends these attempts if their leases, by number, still are the ones that ended at least p_older_s seconds ago: with p_action *requeue* as the
-- keeper does, each counted; with *fail* for good. Returns of each what became of it:
--   requeued, failed, cancelled     it has ended so
--   renewed   its lease goes on, or others have dealt with it
--   locked    somebody else has it  refused     PostgreSQL refuses to end it
CREATE OR REPLACE FUNCTION reproq_reclaim_these(p_ids bigint[], p_lease_nos bigint[], p_older_s double precision, p_action text)
RETURNS TABLE (result_id bigint, outcome text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT timestamptz := statement_timestamp() - p_older_s * interval '1 s';
    error CONSTANT text := CASE p_action WHEN 'fail' THEN '{"kind": "reclaim", "message": "Lease expired; marking task failed."}'
                                         ELSE '{"kind": "lease_expiry", "message": "Worker heartbeat lost or process crashed"}' END;
    verdict CONSTANT text := CASE p_action WHEN 'fail' THEN 'fail_finally' ELSE 'fail' END;
    told bigint[] := '{}';
    picked bigint[] := '{}';
    expired record;
BEGIN
    FOR expired IN
        WITH picked AS MATERIALIZED (
            SELECT l.result_id, l.leased_by, l.lease_no
            FROM (SELECT * FROM unnest(p_ids, p_lease_nos) AS u (id, no) ORDER BY id) e
            JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.lease_no = e.no
            JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
            WHERE l.state = 'running' AND l.leased_until < before
            FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED)
        SELECT p.leased_by, array_agg(p.result_id) AS ids, array_agg(p.lease_no) AS nos FROM picked p GROUP BY p.leased_by
    LOOP
        picked := picked || expired.ids;
        FOR result_id, outcome IN
            SELECT e.result_id, CASE e.status WHEN 'READY' THEN 'requeued' WHEN 'FAILED' THEN 'failed' ELSE lower(e.status) END
            FROM reproq_end(expired.leased_by, expired.ids, expired.nos, array_fill(verdict, ARRAY[cardinality(expired.ids)]),
                            array_fill(error, ARRAY[cardinality(expired.ids)])) e
            WHERE e.status IS NOT NULL
        LOOP
            told := told || result_id;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    PERFORM reproq_settle_flows(1000);
    RETURN QUERY
    SELECT u.id, CASE WHEN u.id = ANY (picked) THEN 'refused' WHEN l.result_id IS NOT NULL THEN 'locked' ELSE 'renewed' END
    FROM unnest(p_ids, p_lease_nos) AS u (id, no)
    LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id]) AND l.lease_no = u.no AND l.leased_until < before
    WHERE u.id <> ALL (told);
END
$$;
