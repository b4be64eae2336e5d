-- Workflows: chains (a run waits for its parent) and chords (a callback waits for all members), decided by the rows that remain.
-- revision: 3
-- locks: none while migrating.
--
-- Whoever ends a run of a workflow leaves word of it in reproq_flow_ends, in the same commit, and whoever comes next, at first the very same
-- cycle, settles what follows: under the flow's lock (an advisory lock of the transaction that is tried and never waited for, as in 004_keys),
-- in a snapshot taken after the lock. So of two members that end at once one is seen by the other's settling, whoever commits first; and a
-- word that could not be dealt with stays.
--
--   a run succeeded ──► its children wake                a run failed ──► its descendants fail with it (parent_failed)
--   the last member succeeded ──► the callback wakes     a member failed ──► the callback fails (workflow_failed)
--
-- A member that failed and is retried repairs its workflow: when it succeeds, what had failed only because of it wakes again.

UPDATE task_lane l SET workflow_id = r.workflow_id FROM task_runs r
WHERE r.result_id = l.result_id AND r.workflow_id IS NOT NULL AND l.workflow_id IS NULL;

-- Wakes runs of a flow: those that wait, and those that failed only because of others. What somebody else has locked is left; p_causes has
-- for each the run to leave word of then.
CREATE OR REPLACE FUNCTION reproq_wake_runs(p_ids bigint[], p_causes bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    run task_runs;
    cause bigint;
    queues text[] := '{}';
BEGIN
    FOR i IN 1 .. coalesce(cardinality(p_ids), 0) LOOP
        -- Lane, then record, and neither is waited for.
        PERFORM FROM task_lane l WHERE l.result_id = p_ids[i] FOR UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (SELECT FROM task_lane l WHERE l.result_id = p_ids[i]) THEN
            PERFORM reproq_note_end(p_causes[i]);
            CONTINUE;
        END IF;
        SELECT * INTO run FROM task_runs r WHERE r.result_id = p_ids[i] FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            -- Locked by somebody, or deleted: of that no word, which would come back for ever.
            PERFORM reproq_note_end(p_causes[i]) FROM task_runs r WHERE r.result_id = p_ids[i];
            CONTINUE;
        END IF;
        CONTINUE WHEN run.status <> 'WAITING'
            AND NOT (run.status = 'FAILED' AND coalesce(run.errors_json #>> '{-1,kind}', '') IN ('parent_failed', 'workflow_failed'));
        IF run.status = 'WAITING' AND run.wait_count > 1 AND run.parent_id IS NOT NULL THEN
            UPDATE task_runs r SET wait_count = r.wait_count - 1, updated_at = clock, rev = r.rev + 1 WHERE r.result_id = run.result_id;
            CONTINUE;
        END IF;
        UPDATE task_runs r
        SET status = 'READY', wait_count = 0, run_after = CASE WHEN r.run_after > clock THEN r.run_after ELSE clock END,
            finished_at = NULL, failed_at = NULL, last_error = NULL, updated_at = clock, rev = r.rev + 1
        WHERE r.result_id = run.result_id
        RETURNING * INTO run;
        DELETE FROM task_lane l WHERE l.result_id = run.result_id;
        PERFORM reproq_lane_insert(run);
    END LOOP;
END
$$;

-- Ends runs that have not begun, with these errors. What somebody else has locked is left; p_causes has for each the run to leave word of then.
CREATE OR REPLACE FUNCTION reproq_fail_runs(p_ids bigint[], p_errors text[], p_causes bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    no bigint := nextval('reproq_lease_seq');
    seized bigint[];
    left_over bigint[];
    ended integer;
    told integer;
    n integer;
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT l.result_id
        FROM (SELECT id FROM unnest(p_ids) AS u (id) ORDER BY id) e
        JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id])
        JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
        WHERE l.state <> 'running'
        FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED),
    taken AS (
        UPDATE task_lane l
        SET state = 'running', park_reason = NULL, on_key = NULL, leased_by = '', lease_no = no, leased_until = clock_timestamp()
        FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]) RETURNING l.result_id)
    SELECT coalesce(array_agg(t.result_id ORDER BY t.result_id), '{}') INTO seized FROM taken t;
    n := cardinality(seized);
    IF n > 0 THEN
        SELECT count(e.status), count(*) INTO ended, told
        FROM reproq_end('', seized, array_fill(no, ARRAY[n]), array_fill('fail_finally'::text, ARRAY[n]),
                        ARRAY(SELECT u.error FROM unnest(p_ids, p_errors) AS u (id, error) WHERE u.id = ANY (seized) ORDER BY u.id)) e;
        -- What stays seized would be reclaimed, and run.
        IF ended < told THEN
            RAISE lock_not_available;
        ELSIF told < n THEN
            RAISE 'expected % ends, got %', n, told;
        END IF;
    END IF;
    left_over := ARRAY(SELECT DISTINCT u.cause FROM unnest(p_ids, p_causes) AS u (id, cause) JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id])
                       WHERE u.id <> ALL (seized) AND l.state <> 'running');
    PERFORM reproq_note_end(u.cause) FROM unnest(left_over) AS u (cause);
END
$$;

-- What follows in the chain from runs that have ended.
CREATE OR REPLACE FUNCTION reproq_settle_chain(p_succeeded bigint[], p_failed bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids bigint[];
    causes bigint[];
BEGIN
    SELECT array_agg(c.result_id ORDER BY c.result_id), array_agg(c.parent_id ORDER BY c.result_id) INTO ids, causes
    FROM task_runs c WHERE c.parent_id = ANY (p_succeeded) AND c.status IN ('WAITING', 'FAILED');
    PERFORM reproq_wake_runs(ids, causes);

    WITH RECURSIVE descendants AS (
        SELECT c.result_id, c.parent_id AS cause FROM task_runs c WHERE c.parent_id = ANY (p_failed) AND c.status = 'WAITING'
        UNION
        SELECT c.result_id, d.cause FROM descendants d JOIN task_runs c ON c.parent_id = ANY (ARRAY[d.result_id]) AND c.status = 'WAITING')
    SELECT array_agg(d.result_id), array_agg(d.cause) INTO ids, causes FROM descendants d;
    IF ids IS NOT NULL THEN
        PERFORM reproq_fail_runs(ids, ARRAY(
            SELECT jsonb_build_object('kind', 'parent_failed', 'message', format('not run: task %s, which it waited for, did not succeed', u.cause),
                                      'failed_result_id', u.cause)::text
            FROM unnest(causes) WITH ORDINALITY AS u (cause, n) ORDER BY u.n), causes);
    END IF;
END
$$;

-- What follows in the chord from runs that have ended. p_again: left word of, if somebody has the workflow's row.
CREATE OR REPLACE FUNCTION reproq_settle_chord(p_workflow_id uuid, p_succeeded bigint[], p_failed bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    flow workflow_runs;
    callback bigint;
    succeeded integer;
    failed integer;
BEGIN
    SELECT * INTO flow FROM workflow_runs w WHERE w.workflow_id = p_workflow_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM workflow_runs w WHERE w.workflow_id = p_workflow_id) THEN
            PERFORM reproq_note_end(u.id) FROM unnest(p_succeeded || p_failed) AS u (id);
        END IF;
        RETURN;
    END IF;
    callback := coalesce(flow.callback_result_id, 0);
    IF EXISTS (SELECT FROM reproq_coexistence) THEN
        -- An older worker counts what it ends by itself: then nothing may be added, only counted anew.
        SELECT count(*) FILTER (WHERE r.status = 'SUCCESSFUL'), count(*) FILTER (WHERE r.status IN ('FAILED', 'CANCELLED')) INTO succeeded, failed
        FROM task_runs r WHERE r.workflow_id = p_workflow_id AND r.result_id <> callback;
    END IF;
    IF callback = ANY (p_succeeded || p_failed) THEN
        UPDATE workflow_runs w SET status = CASE WHEN callback = ANY (p_succeeded) THEN 'SUCCESSFUL' ELSE 'FAILED' END, updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    ELSIF cardinality(p_failed) > 0 THEN
        UPDATE workflow_runs w
        SET status = 'FAILED', failure_count = coalesce(failed, w.failure_count + cardinality(p_failed)),
            success_count = coalesce(succeeded, w.success_count + cardinality(p_succeeded)), updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
        PERFORM reproq_fail_runs(ARRAY[callback], ARRAY[jsonb_build_object(
            'kind', 'workflow_failed', 'message', 'Workflow failed due to task failure', 'failed_result_id', p_failed[1])::text], p_failed[1:1]);
    ELSIF NOT EXISTS (SELECT FROM task_lane l WHERE l.workflow_id = p_workflow_id AND l.result_id <> callback) THEN
        -- Counted once, or as often as a member is retried: while members remain, the look into the lane ends at the first of them.
        SELECT count(*) FILTER (WHERE r.status = 'SUCCESSFUL'), count(*) FILTER (WHERE r.status <> 'SUCCESSFUL') INTO succeeded, failed
        FROM task_runs r WHERE r.workflow_id = p_workflow_id AND r.result_id <> callback;
        IF failed = 0 AND succeeded >= flow.expected_count THEN
            PERFORM reproq_wake_runs(ARRAY[callback], p_succeeded[1:1]);
        END IF;
        -- Not where the callback has ended: a member that is run once more changes nothing then.
        UPDATE workflow_runs w
        SET success_count = succeeded, failure_count = failed, updated_at = now(),
            status = CASE WHEN failed = 0 AND succeeded >= w.expected_count AND EXISTS (SELECT FROM task_lane l WHERE l.result_id = callback)
                          THEN 'WAITING_CALLBACK' ELSE w.status END
        WHERE w.workflow_id = p_workflow_id;
    ELSE
        UPDATE workflow_runs w
        SET success_count = coalesce(succeeded, w.success_count + cardinality(p_succeeded)), updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    END IF;
END
$$;

-- Settles all that was left word of one flow, whose lock we hold. A run's present status counts: since the word was left, it may have been
-- retried. ORPHANED: its parent was deleted.
CREATE OR REPLACE FUNCTION reproq_settle_flow(p_flow text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    succeeded bigint[];
    failed bigint[];
    orphans bigint[];
BEGIN
    WITH gone AS (DELETE FROM reproq_flow_ends e WHERE e.flow = p_flow RETURNING e.result_id, e.status),
    known AS (
        SELECT g.result_id, g.status = 'ORPHANED' AS is_orphan, coalesce(r.status, g.status) AS status
        FROM gone g LEFT JOIN task_runs r ON r.result_id = ANY (ARRAY[g.result_id]))
    SELECT coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE NOT k.is_orphan AND k.status = 'SUCCESSFUL'), '{}'),
           coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE NOT k.is_orphan AND k.status IN ('FAILED', 'CANCELLED')), '{}'),
           coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE k.is_orphan AND k.status = 'WAITING'), '{}')
    INTO succeeded, failed, orphans FROM known k;
    IF orphans <> '{}' THEN
        PERFORM reproq_fail_runs(orphans, ARRAY(
            SELECT '{"kind": "parent_failed", "message": "not run: the task that it waited for was deleted"}' FROM unnest(orphans)), orphans);
        INSERT INTO reproq_flow_ends (flow, result_id, status)
        SELECT p_flow, l.result_id, 'ORPHANED'
        FROM unnest(orphans) AS u (id) JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id]) AND l.state = 'waiting';
    END IF;
    PERFORM reproq_settle_chain(succeeded, failed);
    IF p_flow LIKE 'flow:%' AND (succeeded <> '{}' OR failed <> '{}') THEN
        PERFORM reproq_settle_chord(substr(p_flow, 6)::uuid, succeeded, failed);
    END IF;
END
$$;

-- Settles up to p_limit of the flows that somebody left word of. Returns whether more are left, to be looked at soon.
--
-- It is a part of every cycle, so nothing in one workflow may stop it: whoever locks a table is waited for as long as in reproq_end, and the
-- word of a flow that PostgreSQL refuses to settle (a constraint, somebody's trigger) is dropped; the keeper's sweep leaves it again.
CREATE OR REPLACE FUNCTION reproq_settle_flows(p_limit integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    most_rounds CONSTANT integer := 3;
    flows text[];
    one text;
BEGIN
    -- A round for what the one before has ended: a chain of a chord's members, for example.
    FOR round IN 1 .. most_rounds LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM reproq_flow_ends);
        BEGIN
            -- From flow to flow, locking: the words of one that somebody keeps locked must not stand before the others.
            flows := ARRAY(
                WITH RECURSIVE named AS (
                    (SELECT e.flow FROM reproq_flow_ends e ORDER BY e.flow LIMIT 1)
                    UNION ALL
                    SELECT (SELECT e.flow FROM reproq_flow_ends e WHERE e.flow > n.flow ORDER BY e.flow LIMIT 1)
                    FROM named n WHERE n.flow IS NOT NULL)
                SELECT n.flow FROM named n
                WHERE n.flow IS NOT NULL AND pg_try_advisory_xact_lock(hashtextextended(n.flow, 7204)) LIMIT p_limit);
            FOREACH one IN ARRAY flows LOOP
                PERFORM reproq_settle_flow(one);
            END LOOP;
        EXCEPTION
            WHEN lock_not_available THEN
                RETURN false;
            WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
                -- One of them; its locks went with what it did.
                FOREACH one IN ARRAY flows LOOP
                    BEGIN
                        CONTINUE WHEN NOT (reproq_lock_keys(ARRAY[one]))[1];
                        PERFORM reproq_settle_flow(one);
                    EXCEPTION
                        WHEN lock_not_available THEN
                            RETURN false;
                        WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
                            RAISE WARNING 'workflow %: what follows from the end of its runs is refused: %', one, SQLERRM;
                            IF (reproq_lock_keys(ARRAY[one]))[1] THEN
                                DELETE FROM reproq_flow_ends e WHERE e.flow = one;
                            END IF;
                    END;
                END LOOP;
        END;
        EXIT WHEN flows = '{}';
    END LOOP;
    RETURN EXISTS (SELECT FROM reproq_flow_ends);
END
$$;

-- For the keeper: leaves word of ends that nobody settled, as a producer leaves them that dies between two of its inserts, or one whose
-- parent had ended before. Looks at up to p_limit waiting runs after p_after. Returns where to go on (NULL = done).
CREATE OR REPLACE FUNCTION reproq_sweep_flows(p_after bigint, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    waiting bigint[];
BEGIN
    waiting := ARRAY(SELECT l.result_id FROM task_lane l WHERE l.state = 'waiting' AND l.result_id > p_after ORDER BY l.result_id LIMIT p_limit);
    PERFORM reproq_note_end(p.result_id)
    FROM task_runs r JOIN task_runs p ON p.result_id = ANY (ARRAY[r.parent_id])
    WHERE r.result_id = ANY (waiting) AND p.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED');
    PERFORM reproq_note_end((SELECT m.result_id FROM task_runs m WHERE m.workflow_id = w.workflow_id AND m.result_id <> w.callback_result_id
                             AND m.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
                             ORDER BY m.status = 'SUCCESSFUL', m.result_id LIMIT 1))
    FROM task_runs r JOIN workflow_runs w ON w.workflow_id = r.workflow_id AND w.callback_result_id = r.result_id
    WHERE r.result_id = ANY (waiting)
      AND NOT EXISTS (SELECT FROM task_lane l WHERE l.workflow_id = w.workflow_id AND l.result_id <> w.callback_result_id);
    RETURN CASE WHEN cardinality(waiting) = p_limit THEN waiting[p_limit] END;
END
$$;
