-- What goes with time: runs that have ended are deleted, and runs that have expired before anybody began them end.
-- revision: 3
-- locks: none while migrating.
--
-- Runs of a workflow go together: its callback waits for all members, so that one that was deleted alone would be missed for ever, and a
-- retried member needs the others. So a workflow goes when every run of it may go; and a parent stays while a child stays.

-- May a run with this status and time go? *before* has a time for each of *statuses*.
CREATE OR REPLACE FUNCTION reproq_is_prunable(status text, at timestamptz, statuses text[], before timestamptz[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT coalesce(at < before[array_position(statuses, status)], false) $$;

-- The time by which a run is judged.
CREATE OR REPLACE FUNCTION reproq_time_of(run task_runs, field text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE field WHEN 'finished_at' THEN coalesce(run.finished_at, run.failed_at, run.updated_at)
                      WHEN 'updated_at' THEN run.updated_at
                      WHEN 'enqueued_at' THEN run.enqueued_at
                      WHEN 'started_at' THEN run.started_at
                      WHEN 'expires_at' THEN run.expires_at END
$$;

-- Deletes these ended runs, whose rows we have locked; one that PostgreSQL refuses to delete costs only itself. Returns those that are gone.
CREATE OR REPLACE FUNCTION reproq_drop_runs(p_ids bigint[], OUT ids bigint[], OUT statuses text[], OUT logs_uris text[])
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    one bigint;
    one_status text;
    one_logs_uri text;
BEGIN
    -- A foreign key of the application's, as Django makes it, is checked at the commit: then one row that it protects would cost all others theirs.
    SET CONSTRAINTS ALL IMMEDIATE;
    BEGIN
        WITH gone AS (DELETE FROM task_runs r WHERE r.result_id = ANY (p_ids) RETURNING r.result_id, r.status, r.logs_uri)
        SELECT coalesce(array_agg(g.result_id), '{}'), coalesce(array_agg(g.status), '{}'), coalesce(array_agg(g.logs_uri), '{}')
        INTO ids, statuses, logs_uris FROM gone g;
        RETURN;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        ids := '{}';
        statuses := '{}';
        logs_uris := '{}';
    END;
    FOREACH one IN ARRAY p_ids LOOP
        BEGIN
            DELETE FROM task_runs r WHERE r.result_id = one RETURNING r.status, r.logs_uri INTO one_status, one_logs_uri;
            IF FOUND THEN
                ids := ids || one;
                statuses := statuses || one_status;
                logs_uris := logs_uris || one_logs_uri;
            END IF;
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
            WHEN OTHERS OR assert_failure THEN
                RAISE WARNING 'task run %: deleting it is refused: %', one, SQLERRM;
        END;
    END LOOP;
END
$$;

-- Looks at the next p_rows records after p_after, and deletes those in these statuses whose time (p_field) is at least as long ago as
-- p_ages_s says for their status: at most p_most, and then all the rest of a workflow that it has begun with.
--   next_after: where to go on, NULL = done. With p_early that is also so when all that was looked at is too young: what comes later is
--     younger still, but for rows that were inserted with older times.
--   ids, statuses, logs_uris: of what is gone, or with p_dry would be.
--   spared: old enough, but a part of something that stays. left_over: locked, or PostgreSQL refuses it.
CREATE OR REPLACE FUNCTION reproq_prune(
    p_after bigint, p_rows integer, p_statuses text[], p_ages_s double precision[], p_field text, p_most integer, p_dry boolean, p_early boolean,
    OUT next_after bigint, OUT ids bigint[], OUT statuses text[], OUT logs_uris text[], OUT spared integer, OUT left_over integer
) LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    most_of_a_flow CONSTANT integer := 20000;  -- of a larger one the rest goes with the next calls
    clock CONSTANT timestamptz := statement_timestamp();
    before timestamptz[] := ARRAY(SELECT clock - a.age_s * interval '1 s' FROM unnest(p_ages_s) WITH ORDINALITY AS a (age_s, n) ORDER BY a.n);
    upto bigint;
    seen integer;
    are_young boolean;
    plain bigint[];
    flows uuid[];
    one uuid;
    members bigint[];
    deleted record;
BEGIN
    ids := '{}';
    statuses := '{}';
    logs_uris := '{}';
    left_over := 0;
    SELECT max(w.result_id), count(*), bool_and(w.enqueued_at >= (SELECT max(b) FROM unnest(before) AS u (b))),
           coalesce(array_agg(w.result_id ORDER BY w.result_id) FILTER (WHERE w.is_old AND w.workflow_id IS NULL), '{}'),
           coalesce(array_agg(DISTINCT w.workflow_id) FILTER (WHERE w.is_old AND w.workflow_id IS NOT NULL), '{}'),
           count(*) FILTER (WHERE w.is_old)
    INTO upto, seen, are_young, plain, flows, spared
    FROM (SELECT r.result_id, r.enqueued_at, r.workflow_id,
                 reproq_is_prunable(r.status, reproq_time_of(r, p_field), p_statuses, before) AS is_old
          FROM task_runs r WHERE r.result_id > p_after ORDER BY r.result_id LIMIT p_rows) w;

    plain := ARRAY(
        SELECT u.id FROM unnest(plain) AS u (id)
        WHERE NOT EXISTS (SELECT FROM task_runs c WHERE c.parent_id = u.id
                          AND NOT reproq_is_prunable(c.status, reproq_time_of(c, p_field), p_statuses, before))
        ORDER BY u.id);
    flows := ARRAY(
        SELECT u.flow FROM unnest(flows) AS u (flow)
        WHERE NOT EXISTS (SELECT FROM task_runs m WHERE m.workflow_id = u.flow
                          AND NOT reproq_is_prunable(m.status, reproq_time_of(m, p_field), p_statuses, before)));
    members := ARRAY(SELECT r.result_id FROM task_runs r
                     WHERE r.result_id > p_after AND r.result_id <= upto AND r.workflow_id = ANY (flows));
    spared := greatest(spared - cardinality(plain) - cardinality(members), 0);
    plain := plain[1:p_most];
    IF p_dry THEN
        SELECT coalesce(array_agg(r.result_id), '{}'), coalesce(array_agg(r.status), '{}'), coalesce(array_agg(r.logs_uri), '{}')
        INTO ids, statuses, logs_uris FROM task_runs r WHERE r.result_id = ANY (plain || members);
    ELSE
        -- One that is retried at this moment is no longer prunable when its lock is had.
        members := ARRAY(SELECT r.result_id FROM task_runs r
                         WHERE r.result_id = ANY (plain) AND reproq_is_prunable(r.status, reproq_time_of(r, p_field), p_statuses, before)
                         ORDER BY r.result_id FOR UPDATE SKIP LOCKED);
        SELECT * INTO deleted FROM reproq_drop_runs(members);
        ids := deleted.ids;
        statuses := deleted.statuses;
        logs_uris := deleted.logs_uris;
        left_over := cardinality(plain) - cardinality(deleted.ids);
        FOREACH one IN ARRAY flows LOOP
            EXIT WHEN cardinality(ids) >= p_most;
            members := ARRAY(SELECT r.result_id FROM task_runs r
                             WHERE r.workflow_id = one AND reproq_is_prunable(r.status, reproq_time_of(r, p_field), p_statuses, before)
                             ORDER BY r.result_id LIMIT most_of_a_flow FOR UPDATE SKIP LOCKED);
            IF cardinality(members) < most_of_a_flow AND cardinality(members) < (SELECT count(*) FROM task_runs r WHERE r.workflow_id = one) THEN
                left_over := left_over + 1;  -- somebody has one of them
                CONTINUE;
            END IF;
            SELECT * INTO deleted FROM reproq_drop_runs(members);
            ids := ids || deleted.ids;
            statuses := statuses || deleted.statuses;
            logs_uris := logs_uris || deleted.logs_uris;
            left_over := left_over + cardinality(members) - cardinality(deleted.ids);
            DELETE FROM workflow_runs w
            WHERE w.workflow_id = ANY (ARRAY(SELECT f.workflow_id FROM workflow_runs f WHERE f.workflow_id = one FOR UPDATE SKIP LOCKED))
              AND NOT EXISTS (SELECT FROM task_runs r WHERE r.workflow_id = one);
        END LOOP;
    END IF;
    next_after := CASE WHEN seen = p_rows AND NOT (p_early AND are_young) THEN upto END;
END
$$;

-- Deletes up to p_limit workflows without runs that nobody has touched for so long. Returns how many.
CREATE OR REPLACE FUNCTION reproq_prune_flows(p_age_s double precision, p_limit integer) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    WITH picked AS MATERIALIZED (
        SELECT w.workflow_id FROM workflow_runs w
        WHERE w.updated_at < statement_timestamp() - p_age_s * interval '1 s'
          AND NOT EXISTS (SELECT FROM task_runs r WHERE r.workflow_id = w.workflow_id)
        ORDER BY w.workflow_id LIMIT p_limit FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM workflow_runs w USING picked p WHERE w.workflow_id = p.workflow_id RETURNING 1)
    SELECT count(*)::integer FROM gone
$$;

-- Ends, as `expired`, runs whose time (expires_at) is over and that nobody has begun: what no claim meets, because it is parked, waits for
-- another, or stands in a queue that is paused. Looks at the next p_limit runs with such a time after a place in the order of those times.
-- What runs goes on: its time limit is another one.
--   ended: how many; with p_dry how many it would be. next_at, next_id: where to go on; NULL = done.
CREATE OR REPLACE FUNCTION reproq_expire(
    p_after timestamptz, p_after_id bigint, p_limit integer, p_dry boolean, OUT ended integer, OUT next_at timestamptz, OUT next_id bigint
) LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    clock CONSTANT timestamptz := clock_timestamp();
    seen integer;
    late bigint[];
    errors text[];
BEGIN
    SELECT count(*), (array_agg(w.expires_at ORDER BY w.expires_at DESC, w.result_id DESC))[1],
           (array_agg(w.result_id ORDER BY w.expires_at DESC, w.result_id DESC))[1],
           coalesce(array_agg(w.result_id ORDER BY w.result_id) FILTER (WHERE w.is_waiting), '{}'),
           array_agg(jsonb_build_object('kind', 'expired', 'message', 'not run: it had expired at ' || w.expires_at)::text ORDER BY w.result_id)
               FILTER (WHERE w.is_waiting)
    INTO seen, next_at, next_id, late, errors
    FROM (SELECT r.result_id, r.expires_at,
                 EXISTS (SELECT FROM task_lane l WHERE l.result_id = r.result_id AND l.state <> 'running') AS is_waiting
          FROM task_runs r
          WHERE (r.expires_at, r.result_id) > (p_after, p_after_id) AND r.expires_at <= clock
          ORDER BY r.expires_at, r.result_id LIMIT p_limit) w;
    ended := cardinality(late);
    IF ended > 0 AND NOT p_dry THEN
        BEGIN
            PERFORM reproq_fail_runs(late, errors, array_fill(NULL::bigint, ARRAY[ended]));
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            FOR i IN 1 .. cardinality(late) LOOP
                BEGIN
                    PERFORM reproq_fail_runs(late[i:i], errors[i:i], ARRAY[NULL::bigint]);
                EXCEPTION
                    WHEN lock_not_available THEN
                        NULL;
                    WHEN OTHERS OR assert_failure THEN
                        RAISE WARNING 'task run %: its end as expired is refused: %', late[i], SQLERRM;
                END;
            END LOOP;
        END;
        SELECT count(*) INTO ended FROM unnest(late) AS u (id)
        WHERE NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = ANY (ARRAY[u.id]));
        PERFORM reproq_settle_flows(1000);
    END IF;
    IF seen < p_limit THEN
        next_at := NULL;
        next_id := NULL;
    END IF;
END
$$;
