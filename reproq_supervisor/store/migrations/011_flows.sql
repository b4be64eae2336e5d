-- Workflows: chains (a run waits for its parent) and chords (a callback waits for all members), decided by the rows that remain.
-- revision: 5
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
--
-- Beside the ends themselves there are these words (reproq_flow_ends.status):
--   ORPHANED  a waiting run whose parent was deleted without having succeeded: it fails
--   FREED     a waiting run whose parent succeeded and was deleted before that was settled: it wakes
--   DROPPED   a member that succeeded and was deleted: the callback expects one less
--   STRANDED  a waiting run for which nothing is left to wait for, by the keeper's sweep: it fails

UPDATE task_lane l SET workflow_id = r.workflow_id FROM task_runs r
WHERE r.result_id = l.result_id AND r.workflow_id IS NOT NULL AND l.workflow_id IS NULL;

-- Wakes runs of a flow: those that wait, and those that failed only because of others. What somebody else has locked is left; p_causes has
-- for each the run to leave word of then (NULL = that it is free).
CREATE OR REPLACE FUNCTION reproq_wake_runs(p_ids bigint[], p_causes bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    run task_runs;
BEGIN
    FOR i IN 1 .. coalesce(cardinality(p_ids), 0) LOOP
        -- Lane, then record, and neither is waited for.
        PERFORM FROM task_lane l WHERE l.result_id = p_ids[i] FOR UPDATE SKIP LOCKED;
        IF FOUND OR NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = p_ids[i]) THEN
            SELECT * INTO run FROM task_runs r WHERE r.result_id = p_ids[i] FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
        IF NOT FOUND THEN
            -- Locked by somebody, or deleted: of that no word, which would come back for ever.
            PERFORM reproq_note_end(p_causes[i]) FROM task_runs r WHERE r.result_id = p_ids[i];
            INSERT INTO reproq_flow_ends (flow, result_id, status)
            SELECT coalesce('flow:' || r.workflow_id, 'run:' || r.result_id), r.result_id, 'FREED'
            FROM task_runs r WHERE r.result_id = p_ids[i] AND p_causes[i] IS NULL;
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
    trouble text;
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
        SELECT count(e.status), count(*), max(e.trouble) INTO ended, told, trouble
        FROM reproq_end('', seized, array_fill(no, ARRAY[n]), array_fill('fail_finally'::text, ARRAY[n]),
                        ARRAY(SELECT u.error FROM unnest(p_ids, p_errors) AS u (id, error) WHERE u.id = ANY (seized) ORDER BY u.id)) e;
        -- What stays seized would be reclaimed, and run.
        IF trouble IS NOT NULL OR told < n THEN
            RAISE 'expected % ends, got %: %', n, ended, coalesce(trouble, 'some are gone');
        ELSIF ended < told THEN
            RAISE lock_not_available;
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

-- What follows in the chord from runs that have ended, and from members that succeeded and were deleted.
DROP FUNCTION IF EXISTS reproq_settle_chord(uuid, bigint[], bigint[]);
CREATE OR REPLACE FUNCTION reproq_settle_chord(p_workflow_id uuid, p_succeeded bigint[], p_failed bigint[], p_dropped bigint[]) RETURNS void
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
            -- Somebody has the row.
            PERFORM reproq_note_end(u.id) FROM unnest(p_succeeded || p_failed) AS u (id);
            INSERT INTO reproq_flow_ends (flow, result_id, status)
            SELECT 'flow:' || p_workflow_id, u.id, 'DROPPED' FROM unnest(p_dropped) AS u (id);
        END IF;
        RETURN;
    END IF;
    IF p_dropped <> '{}' THEN
        flow.expected_count := greatest(flow.expected_count - cardinality(p_dropped), 0);
        UPDATE workflow_runs w SET expected_count = flow.expected_count, updated_at = now() WHERE w.workflow_id = p_workflow_id;
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
    -- From the end: under an old snapshot the entries of members that have ended stay, and they are mostly the first.
    ELSIF (SELECT l.result_id FROM task_lane l WHERE l.workflow_id = p_workflow_id AND l.result_id <> callback
           ORDER BY l.workflow_id DESC, l.result_id DESC LIMIT 1) IS NULL
    THEN
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
    ELSIF flow.expected_count <= 1000 OR succeeded IS NOT NULL THEN
        UPDATE workflow_runs w
        SET success_count = coalesce(succeeded, w.success_count + cardinality(p_succeeded)), updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    ELSIF flow.updated_at < clock_timestamp() - flow.expected_count * interval '1 ms' THEN
        -- The progress of a large one is counted now and then, a thousandth of the time: ten thousand versions of its row would be walked again
        -- and again while an old snapshot keeps them.
        UPDATE workflow_runs w
        SET success_count = (SELECT count(*) FROM task_runs r WHERE r.workflow_id = p_workflow_id AND r.result_id <> callback AND r.status = 'SUCCESSFUL'),
            updated_at = now()
        WHERE w.workflow_id = p_workflow_id;
    END IF;
END
$$;

-- Settles what was left word of in one flow, whose lock we hold: p_words[i] of run p_runs[i]. A run's present status counts: since the word was
-- left, it may have been retried.
DROP FUNCTION IF EXISTS reproq_settle_flow(text);
CREATE OR REPLACE FUNCTION reproq_settle_flow(p_flow text, p_runs bigint[], p_words text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    succeeded bigint[];
    failed bigint[];
    dropped bigint[];
    freed bigint[];
    lone bigint[];
    lone_words text[];
BEGIN
    WITH known AS (
        SELECT g.run AS result_id, g.word, r.status AS present,
               CASE WHEN g.word IN ('ORPHANED', 'FREED', 'DROPPED', 'STRANDED') THEN NULL ELSE coalesce(r.status, g.word) END AS ended
        FROM unnest(p_runs, p_words) AS g (run, word) LEFT JOIN task_runs r ON r.result_id = ANY (ARRAY[g.run]))
    SELECT coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE k.ended = 'SUCCESSFUL'), '{}'),
           coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE k.ended IN ('FAILED', 'CANCELLED')), '{}'),
           coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE k.word = 'DROPPED'), '{}'),
           coalesce(array_agg(DISTINCT k.result_id) FILTER (WHERE k.word = 'FREED' AND k.present = 'WAITING'), '{}'),
           array_agg(k.result_id) FILTER (WHERE k.word IN ('ORPHANED', 'STRANDED') AND k.present = 'WAITING'),
           array_agg(k.word) FILTER (WHERE k.word IN ('ORPHANED', 'STRANDED') AND k.present = 'WAITING')
    INTO succeeded, failed, dropped, freed, lone, lone_words FROM known k;
    IF lone IS NOT NULL THEN
        PERFORM reproq_fail_runs(lone, ARRAY(
            SELECT CASE u.word WHEN 'ORPHANED' THEN '{"kind": "parent_failed", "message": "not run: the task that it waited for was deleted"}'
                               ELSE '{"kind": "parent_failed", "message": "not run: nothing is left of what it waited for"}' END
            FROM unnest(lone, lone_words) WITH ORDINALITY AS u (id, word, n) ORDER BY u.n), lone);
        INSERT INTO reproq_flow_ends (flow, result_id, status)
        SELECT p_flow, l.result_id, u.word
        FROM unnest(lone, lone_words) AS u (id, word) JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id]) AND l.state = 'waiting';
    END IF;
    PERFORM reproq_wake_runs(freed, array_fill(NULL::bigint, ARRAY[cardinality(freed)]));
    PERFORM reproq_settle_chain(succeeded, failed);
    IF p_flow LIKE 'flow:%' AND (succeeded <> '{}' OR failed <> '{}' OR dropped <> '{}') THEN
        PERFORM reproq_settle_chord(substr(p_flow, 6)::uuid, succeeded, failed, dropped);
    END IF;
END
$$;

-- Takes these words, of flows whose locks we hold, and settles what they say.
CREATE OR REPLACE FUNCTION reproq_settle_words(p_words bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    told record;
BEGIN
    FOR told IN
        WITH gone AS (DELETE FROM reproq_flow_ends e WHERE e.id = ANY (p_words) RETURNING e.id, e.flow, e.result_id, e.status)
        SELECT g.flow, array_agg(g.result_id) AS runs, array_agg(g.status) AS words FROM gone g GROUP BY g.flow ORDER BY min(g.id)
    LOOP
        PERFORM reproq_settle_flow(told.flow, told.runs, told.words);
    END LOOP;
END
$$;

-- Settles up to p_limit of the flows that somebody left word of. Returns whether more may be left, to be looked at soon.
--
-- It is a part of every cycle, so nothing in one workflow may stop it: whoever locks a table is waited for as long as in reproq_end, and the
-- word of a flow that PostgreSQL refuses to settle (a constraint, somebody's trigger) is dropped; the keeper's sweep leaves it again.
CREATE OR REPLACE FUNCTION reproq_settle_flows(p_limit integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    most_rounds CONSTANT integer := 3;
    most_words CONSTANT integer := 5000;
    since timestamptz := reproq_look_since('flows');
    began_at timestamptz;
    passed bigint;
    seen integer;
    words bigint[];
    flows text[];
    refused text[];
    are_left boolean;
    one text;
    word record;
BEGIN
    -- A round for what the one before has ended: a chain of a chord's members, for example.
    FOR round IN 1 .. most_rounds LOOP
        began_at := clock_timestamp();
        passed := pg_stat_get_xact_tuples_returned('reproq_flow_ends_left'::regclass);
        seen := 0;
        words := '{}';
        flows := '{}';
        refused := '{}';
        are_left := false;
        -- From word to word, locking: those of a flow that somebody keeps locked must not stand before the others.
        FOR word IN SELECT e.id, e.flow FROM reproq_flow_ends e WHERE e.left_at >= since ORDER BY e.left_at, e.id LOOP
            seen := seen + 1;
            IF word.flow = ANY (refused) THEN
                CONTINUE;
            ELSIF word.flow <> ALL (flows) THEN
                IF NOT pg_try_advisory_xact_lock(hashtextextended(word.flow, 7204)) THEN
                    refused := refused || word.flow;
                    CONTINUE;
                END IF;
                flows := flows || word.flow;
            END IF;
            words := words || word.id;
            are_left := cardinality(flows) >= p_limit OR cardinality(words) >= most_words;
            EXIT WHEN are_left;
        END LOOP;
        PERFORM reproq_note_look('flows', since, pg_stat_get_xact_tuples_returned('reproq_flow_ends_left'::regclass) - passed - seen,
                                 clock_timestamp() - began_at);
        EXIT WHEN words = '{}';
        BEGIN
            PERFORM reproq_settle_words(words);
        EXCEPTION
            WHEN lock_not_available THEN
                RETURN false;
            WHEN OTHERS OR assert_failure THEN
                -- One of them.
                FOREACH one IN ARRAY flows LOOP
                    BEGIN
                        PERFORM reproq_settle_words(ARRAY(SELECT e.id FROM reproq_flow_ends e WHERE e.id = ANY (words) AND e.flow = one));
                    EXCEPTION
                        WHEN lock_not_available THEN
                            RETURN false;
                        WHEN OTHERS OR assert_failure THEN
                            RAISE WARNING 'workflow %: what follows from the end of its runs is refused: %', one, SQLERRM;
                            DELETE FROM reproq_flow_ends e WHERE e.id = ANY (words) AND e.flow = one;
                    END;
                END LOOP;
        END;
    END LOOP;
    RETURN are_left OR refused <> '{}' OR words <> '{}';
END
$$;

-- For the keeper: leaves word of ends that nobody settled, as a producer leaves them that dies between two of its inserts, or one whose
-- parent had ended before. Looks at up to p_limit waiting runs after p_after. Returns where to go on (NULL = done).
--
-- A run of a workflow is stranded when nothing has come for so long that could wake it: no parent, and it is no callback; or it is one, and
-- with all members that there are it has too few.
DROP FUNCTION IF EXISTS reproq_sweep_flows(bigint, integer);
CREATE OR REPLACE FUNCTION reproq_sweep_flows(p_after bigint, p_limit integer, p_stranded_s double precision DEFAULT 3600) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    long_ago timestamptz := clock_timestamp() - p_stranded_s * interval '1 s';
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
    INSERT INTO reproq_flow_ends (flow, result_id, status)
    SELECT 'flow:' || r.workflow_id, r.result_id, 'STRANDED'
    FROM task_runs r LEFT JOIN workflow_runs w ON w.workflow_id = r.workflow_id AND w.callback_result_id = r.result_id
    WHERE r.result_id = ANY (waiting) AND r.workflow_id IS NOT NULL AND r.parent_id IS NULL
      AND r.created_at < long_ago AND coalesce(w.updated_at < long_ago, true)
      AND NOT EXISTS (SELECT FROM task_lane l WHERE l.workflow_id = r.workflow_id AND l.state <> 'waiting')
      AND NOT EXISTS (SELECT FROM task_runs m WHERE m.workflow_id = r.workflow_id AND greatest(m.created_at, m.updated_at) >= long_ago)
      AND (w.workflow_id IS NULL OR w.expected_count > (
          SELECT count(*) FROM task_runs m
          WHERE m.workflow_id = r.workflow_id AND m.result_id <> w.callback_result_id AND m.status = 'SUCCESSFUL'));
    RETURN CASE WHEN cardinality(waiting) = p_limit THEN waiting[p_limit] END;
END
$$;
