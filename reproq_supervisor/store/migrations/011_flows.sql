-- Workflows: chains (a run waits for its parent) and chords (a callback waits for all members), decided by the rows that remain.
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
            PERFORM reproq_note_end(p_causes[i]);
            CONTINUE;
        END IF;
        CONTINUE WHEN run.status <> 'WAITING' AND NOT (run.status = 'FAILED' AND run.errors_json #>> '{-1,kind}' IN ('parent_failed', 'workflow_failed'));
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
        PERFORM FROM reproq_end('', seized, array_fill(no, ARRAY[n]), array_fill('fail_finally'::text, ARRAY[n]),
                                ARRAY(SELECT u.error FROM unnest(p_ids, p_errors) AS u (id, error) WHERE u.id = ANY (seized) ORDER BY u.id));
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
    IF callback = ANY (p_succeeded || p_failed) THEN
        UPDATE workflow_runs w SET status = CASE WHEN callback = ANY (p_succeeded) THEN 'SUCCESSFUL' ELSE 'FAILED' END, updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    ELSIF cardinality(p_failed) > 0 THEN
        UPDATE workflow_runs w
        SET status = 'FAILED', failure_count = w.failure_count + cardinality(p_failed), success_count = w.success_count + cardinality(p_succeeded),
            updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
        PERFORM reproq_fail_runs(ARRAY[callback], ARRAY[jsonb_build_object(
            'kind', 'workflow_failed', 'message', 'Workflow failed due to task failure', 'failed_result_id', p_failed[1])::text], p_failed[1:1]);
    ELSIF NOT EXISTS (SELECT FROM task_lane l WHERE l.workflow_id = p_workflow_id AND l.result_id <> callback) THEN
        -- Counted once, or as often as a member is retried: while members remain, the look into the lane ends at the first of them.
        SELECT count(*) FILTER (WHERE r.status = 'SUCCESSFUL'), count(*) FILTER (WHERE r.status <> 'SUCCESSFUL') INTO succeeded, failed
        FROM task_runs r WHERE r.workflow_id = p_workflow_id AND r.result_id <> callback;
        UPDATE workflow_runs w
        SET success_count = succeeded, failure_count = failed, updated_at = now(),
            status = CASE WHEN failed = 0 AND succeeded >= w.expected_count THEN 'WAITING_CALLBACK' ELSE w.status END
        WHERE w.workflow_id = p_workflow_id;
        IF failed = 0 AND succeeded >= flow.expected_count THEN
            PERFORM reproq_wake_runs(ARRAY[callback], p_succeeded[1:1]);
        END IF;
    ELSE
        UPDATE workflow_runs w SET success_count = w.success_count + cardinality(p_succeeded), updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    END IF;
END
$$;

-- Settles up to p_limit of the ends that somebody left word of, with all that shares their flows. Returns whether more are left.
CREATE OR REPLACE FUNCTION reproq_settle_flows(p_limit integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    most_rounds CONSTANT integer := 3;
    flows text[];
    got boolean[];
    succeeded bigint[];
    failed bigint[];
BEGIN
    -- A round for what the one before has ended: a chain of a chord's members, for example.
    FOR round IN 1 .. most_rounds LOOP
        flows := ARRAY(SELECT DISTINCT e.flow FROM (SELECT flow FROM reproq_flow_ends ORDER BY id LIMIT p_limit) e);
        EXIT WHEN flows = '{}';
        got := reproq_lock_keys(flows);
        flows := ARRAY(SELECT u.flow FROM unnest(flows, got) AS u (flow, has) WHERE u.has);
        EXIT WHEN flows = '{}';
        FOR i IN 1 .. cardinality(flows) LOOP
            WITH gone AS (DELETE FROM reproq_flow_ends e WHERE e.flow = flows[i] RETURNING e.result_id, e.status)
            SELECT coalesce(array_agg(DISTINCT g.result_id) FILTER (WHERE g.status = 'SUCCESSFUL'), '{}'),
                   coalesce(array_agg(DISTINCT g.result_id) FILTER (WHERE g.status <> 'SUCCESSFUL'), '{}')
            INTO succeeded, failed FROM gone g;
            PERFORM reproq_settle_chain(succeeded, failed);
            IF flows[i] LIKE 'flow:%' THEN
                PERFORM reproq_settle_chord(substr(flows[i], 6)::uuid, succeeded, failed);
            END IF;
        END LOOP;
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
