-- The one way in which an attempt ends, whatever the cause: shard, keeper and commands all come here.
-- revision: 17
-- locks: none while migrating.
--
--   reproq_end_in_groups guards a batch: one refused row costs only itself, and so does one that somebody else has locked
--     reproq_set_aside   after a wait for a lock was given up: locks what is free, and says what is not
--     reproq_end_batch   reads the values; reproq_decide says what follows from each outcome
--       reproq_finish    the end: lane row deleted, record written
--       reproq_give_back   retry or release: lane row back to ready or parked, record written
--
-- Lock order is lane (by id), then record. Nobody waits long for a lock, for whoever waits renews no leases: a transaction that others left
-- open over one record must not stop a shard.
--
-- The functions keep to nested loops over the given ids, sorted: a hash join or a sequential scan, picked on stale statistics, would lock in
-- another order and read the whole table. For the same reason the fence is leased_by and lease_no without state = 'running', which says no
-- more (only running rows have a leased_by) but lets the planner walk all leases instead.
--
-- Plans are kept, and most are made while nothing waits. To a planner that sees an empty table the walk along its whole primary key, for
-- each id anew, costs as much as one look into it, and seems of use for a merge. So ids are joined by = ANY (ARRAY[id]), which can be looked
-- up but not merged: with plain equality a burst after a quiet night was worked off at 650 tasks/s until the table was analysed.
-- Where each run of a cycle passes, in reproq_finish, by >= id AND <= id, which is the same without an array for each row.
-- Times are the database's clock.

-- What goes to the end of errors_json for one attempt: an array of one. *refused*: the words that PostgreSQL did not take as jsonb.
CREATE OR REPLACE FUNCTION reproq_error_entry(error jsonb, refused text, attempt integer, worker_id text, clock timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_array(
        CASE WHEN jsonb_typeof(error) = 'object' THEN error
             WHEN error IS NULL AND refused IS NOT NULL THEN jsonb_build_object(
                 'kind', coalesce(substring(refused FROM '"kind"\s*:\s*"([a-z_]{1,40})"'), 'app_error'),
                 'message', 'the error cannot be stored: expected JSON text that PostgreSQL accepts, got '
                            || length(refused) || ' characters that it refuses')
             ELSE jsonb_build_object('kind', 'app_error', 'message', coalesce(error #>> '{}', 'no message')) END
        || jsonb_build_object('attempt', attempt, 'at', to_char(clock AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || CASE WHEN worker_id <> '' THEN jsonb_build_object('worker_id', worker_id) ELSE '{}' END)
$$;

-- *words* as jsonb after the one repair that keeps their sense: \u0000, which jsonb cannot hold, becomes the replacement character.
CREATE OR REPLACE FUNCTION reproq_repaired_jsonb(words text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS
$$ SELECT reproq_jsonb_or_null(regexp_replace(words, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')) $$;

-- Ends runs for good: of the given endings those with outcome succeed, fail_finally or cancel. Returns those whose fence held, by their
-- status.
--   given: the result or the error of each, as jsonb; refused: its text where PostgreSQL does not take it.
DROP FUNCTION IF EXISTS reproq_finish(text, bigint[], bigint[], text[], jsonb[], text[], double precision[], text[]);
CREATE OR REPLACE FUNCTION reproq_finish(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_outcomes text[], p_given jsonb[], p_refused text[],
    p_started_ago double precision[], p_logs_uris text[]
) RETURNS TABLE (result_ids bigint[], status text)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    clock timestamptz := clock_timestamp();
    worker jsonb := jsonb_build_array(p_leased_by);
    locks text[];
    limits text[];
    freed text[] := '{}';
    members bigint[];
    flows text[];
BEGIN
    FOR result_ids, status, locks, limits, members, flows IN
    WITH ended AS MATERIALIZED (
        DELETE FROM task_lane l
        USING (SELECT *
               FROM unnest(p_ids, p_lease_nos, p_outcomes, p_given, p_refused, p_started_ago, p_logs_uris)
                    AS u (id, no, outcome, given, refused, started_ago, logs_uri)
               WHERE outcome IN ('succeed', 'fail_finally', 'cancel') ORDER BY id) e
        WHERE l.result_id >= e.id AND l.result_id <= e.id AND l.leased_by = p_leased_by AND l.lease_no = e.no
        RETURNING l.result_id AS id, l.attempts, l.claimed_at, l.lock_name, l.limit_name, l.workflow_id, e.started_ago, e.logs_uri,
                  CASE e.outcome WHEN 'succeed' THEN 'SUCCESSFUL' WHEN 'cancel' THEN 'CANCELLED' ELSE 'FAILED' END AS status,
                  CASE WHEN e.outcome = 'succeed' THEN coalesce(e.given, 'null') END AS result,
                  CASE WHEN e.outcome <> 'succeed' THEN reproq_error_entry(e.given, e.refused, l.attempts, p_leased_by, clock) END AS error),
    written AS (
        UPDATE task_runs r
        SET status = e.status,
            started_at = coalesce(r.started_at, clock - e.started_ago * interval '1 s'),
            last_attempted_at = coalesce(e.claimed_at, r.last_attempted_at),
            finished_at = clock,
            failed_at = CASE WHEN e.status = 'FAILED' THEN clock END,
            attempts = e.attempts,
            -- A run that was seen to run has its worker already (without a leased_until it was only claimed: see 014_coexist).
            worker_ids = CASE WHEN (r.status = 'RUNNING' AND r.leased_until IS NOT NULL) OR p_leased_by = '' THEN r.worker_ids
                              ELSE reproq_append(r.worker_ids, worker, 50) END,
            return_json = e.result,
            errors_json = CASE WHEN e.error IS NULL THEN r.errors_json ELSE reproq_append(r.errors_json, e.error, 50) END,
            last_error = CASE WHEN e.error IS NOT NULL THEN reproq_cut(coalesce(e.error #>> '{0,message}', e.error #>> '{0,kind}'), 1024) END,
            run_after = CASE WHEN e.status = 'SUCCESSFUL' THEN r.run_after END,
            cancel_requested = r.cancel_requested OR e.status = 'CANCELLED',
            leased_by = NULL,
            leased_until = NULL,
            logs_uri = coalesce(e.logs_uri, r.logs_uri),
            was_deduped = r.dedupe_key IS NOT NULL,
            dedupe_key = NULL,
            updated_at = clock,
            rev = r.rev + 1
        FROM ended e
        WHERE r.result_id >= e.id AND r.result_id <= e.id
        RETURNING r.result_id, r.status, e.lock_name, e.limit_name, e.workflow_id)
    SELECT array_agg(w.result_id), w.status, array_agg(w.lock_name) FILTER (WHERE w.lock_name IS NOT NULL),
           array_agg(w.limit_name) FILTER (WHERE w.limit_name IS NOT NULL),
           array_agg(w.result_id) FILTER (WHERE w.workflow_id IS NOT NULL),
           array_agg('flow:' || w.workflow_id) FILTER (WHERE w.workflow_id IS NOT NULL)
    FROM written w
    GROUP BY w.status
    LOOP
        RETURN NEXT;
        freed := freed || locks || limits;
        IF members IS NOT NULL THEN
            INSERT INTO reproq_flow_ends (flow, result_id, status) SELECT u.flow, u.id, status FROM unnest(flows, members) AS u (flow, id);
        END IF;
    END LOOP;
    PERFORM reproq_free_keys(freed);

    -- Not those of runs that go on: a stale ending must not take the wish away from the present holder.
    DELETE FROM reproq_cancel_requests c
    WHERE c.result_id = ANY (p_ids) AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = ANY (ARRAY[c.result_id]));
END
$$;

-- Gives runs back: of the given endings those with outcome retry, release or put_back. Returns those whose fence held.
--   A retry is due anew after its delay (seconds); the others take the attempt back, and keep their place unless a release has a delay, too.
--   Only a release nears the cap: what was put back had never started, so that no number of pauses and reloads may end it.
CREATE OR REPLACE FUNCTION reproq_give_back(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_outcomes text[], p_given jsonb[], p_refused text[],
    p_started_ago double precision[], p_logs_uris text[], p_delays double precision[]
) RETURNS TABLE (result_id bigint, status text)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    clock timestamptz := clock_timestamp();
    worker jsonb := jsonb_build_array(p_leased_by);
    queues text[];
    lock_name text;
    limit_name text;
    freed text[] := '{}';
BEGIN
    FOR result_id, status, lock_name, limit_name IN
    WITH back AS MATERIALIZED (
        UPDATE task_lane l
        SET state = CASE WHEN e.delay > 0 THEN 'parked' ELSE 'ready' END,
            park_reason = CASE WHEN e.delay > 0 THEN 'due' END,
            due_at = CASE WHEN e.due_anew THEN clock + e.delay * interval '1 s' ELSE l.due_at END,
            -- By the aging of now, also where the place is kept: while it ran, the queue may have got another one.
            order_key = reproq_order_key(CASE WHEN e.due_anew THEN clock + e.delay * interval '1 s' ELSE l.due_at END, l.priority, coalesce(
                (SELECT s.priority_aging_s FROM reproq_queue_settings s WHERE s.queue_name = l.queue_name), 60)),
            attempts = CASE WHEN e.counted THEN l.attempts ELSE greatest(l.attempts - 1, 0) END,
            releases = CASE WHEN e.capped THEN l.releases + 1 ELSE l.releases END,
            deaths = CASE WHEN e.capped AND e.given ->> 'kind' = 'worker_crashed' THEN least(l.deaths + 1, 1000) ELSE l.deaths END,
            crashes = CASE WHEN e.given ->> 'kind' IN ('worker_crashed', 'lease_expiry') THEN least(l.crashes + 1, 10000)
                           ELSE l.crashes END,
            leased_by = NULL,
            leased_until = NULL
        FROM (SELECT id, no, outcome = 'retry' AS counted, outcome = 'release' AS capped, given, refused, started_ago, logs_uri, w.delay,
                     outcome = 'retry' OR w.delay > 0 AS due_anew
              FROM unnest(p_ids, p_lease_nos, p_outcomes, p_given, p_refused, p_started_ago, p_logs_uris, p_delays)
                   AS u (id, no, outcome, given, refused, started_ago, logs_uri, delay)
              CROSS JOIN LATERAL (SELECT CASE WHEN u.outcome <> 'put_back' THEN coalesce(greatest(u.delay, 0), 0) ELSE 0 END AS delay) w
              WHERE outcome IN ('retry', 'release', 'put_back') ORDER BY id) e
        WHERE l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
        RETURNING l.result_id AS id, l.attempts, l.claimed_at, l.due_at, l.lock_name, l.limit_name, e.counted, e.due_anew, e.started_ago, e.logs_uri,
                  CASE WHEN e.counted THEN reproq_error_entry(e.given, e.refused, l.attempts, p_leased_by, clock) END AS error)
    UPDATE task_runs r
    SET status = 'READY',
        started_at = coalesce(r.started_at, clock - b.started_ago * interval '1 s'),
        last_attempted_at = CASE WHEN b.counted THEN coalesce(b.claimed_at, r.last_attempted_at) ELSE r.last_attempted_at END,
        attempts = b.attempts,
        worker_ids = CASE WHEN (r.status = 'RUNNING' AND r.leased_until IS NOT NULL) OR NOT b.counted THEN r.worker_ids
                          ELSE reproq_append(r.worker_ids, worker, 50) END,
        errors_json = CASE WHEN b.error IS NULL THEN r.errors_json ELSE reproq_append(r.errors_json, b.error, 50) END,
        run_after = CASE WHEN b.due_anew THEN b.due_at ELSE r.run_after END,
        finished_at = NULL,
        failed_at = NULL,
        last_error = NULL,
        leased_by = NULL,
        leased_until = NULL,
        logs_uri = coalesce(b.logs_uri, r.logs_uri),
        updated_at = clock,
        rev = r.rev + 1
    FROM back b
    WHERE r.result_id = ANY (ARRAY[b.id])
    RETURNING r.result_id, r.status, b.lock_name, b.limit_name
    LOOP
        RETURN NEXT;
        IF lock_name IS NOT NULL OR limit_name IS NOT NULL THEN
            freed := freed || lock_name || limit_name;
        END IF;
    END LOOP;
    PERFORM reproq_free_keys(freed);

    -- The state stands apart, or the planner may take it for a reason to walk all that is ready.
    SELECT array_agg(DISTINCT l.queue_name) FILTER (WHERE l.state = 'ready' OR (l.park_reason = 'due' AND l.due_at < clock + reproq_soon()))
    INTO queues FROM task_lane l WHERE l.result_id = ANY (p_ids);
    IF queues IS NOT NULL THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
END
$$;

-- What follows from each outcome: fail becomes retry or fail_finally, release may have reached its cap, and a wish to cancel outweighs
-- another attempt. A release with an error is one of the run that may be the reason for the death of all that ran it. What was claimed with
-- it has died as often, and only apart do they show which of them it was: so with its fourth such death it waits, and from the fifth on each
-- counts as a failure. Reads the lane without locks: what it reads of a run changes only at the hands of the holder, whose fence is
-- checked by the write that follows.
CREATE OR REPLACE FUNCTION reproq_decide(
    p_ids bigint[], INOUT outcomes text[], INOUT given jsonb[], INOUT delays double precision[]
) LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    release_cap CONSTANT integer := 10;
    suspect_from CONSTANT smallint := 3;  -- as in reproq_claim
    charged_from CONSTANT smallint := suspect_from + 1;
BEGIN
    SELECT array_agg(d.outcome ORDER BY d.n),
           array_agg(CASE WHEN d.outcome = 'cancel' AND (d.given IS NULL OR d.was = 'release')
                          THEN jsonb_build_object('kind', 'cancelled', 'message', 'Task cancelled by request')
                          WHEN d.was = 'release' AND d.outcome = 'fail_finally' AND NOT d.charged
                          THEN jsonb_build_object(
                              'kind', 'worker_crashed',
                              'message', 'given back ' || release_cap || ' times without an end: what runs this task does not survive it')
                          ELSE d.given END ORDER BY d.n),
           array_agg(d.delay ORDER BY d.n)
    INTO outcomes, given, delays
    FROM (SELECT e.n, e.given, e.outcome AS was, c.charged,
                 CASE WHEN e.outcome NOT IN ('fail', 'release', 'put_back') THEN e.outcome
                      WHEN r.cancel_requested OR EXISTS (SELECT FROM reproq_cancel_requests c WHERE c.result_id = e.id) THEN 'cancel'
                      WHEN (e.outcome = 'fail' OR c.charged) AND l.attempts >= l.max_attempts THEN 'fail_finally'
                      WHEN e.outcome = 'fail' OR c.charged THEN 'retry'
                      WHEN e.outcome = 'release' AND l.releases >= release_cap THEN 'fail_finally'
                      ELSE e.outcome END AS outcome,
                 -- The first retry after a crash is at once: the task is rarely to blame.
                 CASE WHEN c.suspected THEN reproq_retry_delay_s(l.attempts)
                      WHEN e.outcome IN ('release', 'put_back') THEN 0
                      WHEN e.delay IS NOT NULL THEN e.delay
                      WHEN e.given ->> 'kind' IN ('worker_crashed', 'lease_expiry') AND l.crashes = 0 THEN 0
                      ELSE reproq_retry_delay_s(l.attempts, q.retry_base_s, q.retry_cap_s) END AS delay
          FROM unnest(p_ids, outcomes, given, delays) WITH ORDINALITY AS e (id, outcome, given, delay, n)
          LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id])
          LEFT JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
          LEFT JOIN reproq_queue_settings q ON q.queue_name = ANY (ARRAY[l.queue_name])
          CROSS JOIN LATERAL (
              SELECT coalesce(s.blamed AND l.deaths >= suspect_from, false), coalesce(s.blamed AND l.deaths >= charged_from, false)
              FROM (SELECT e.outcome = 'release' AND e.given ->> 'kind' = 'worker_crashed') AS s (blamed)) AS c (suspected, charged)
         ) d;
END
$$;

-- Ends a batch, or raises on the first row that PostgreSQL refuses for another reason than its JSON text.
DROP FUNCTION IF EXISTS reproq_end_batch(text, bigint[], bigint[], text[], text[], double precision[], double precision[], text[]);
CREATE OR REPLACE FUNCTION reproq_end_batch(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_outcomes text[], p_values text[], p_delays double precision[],
    p_started_ago double precision[], p_logs_uris text[]
) RETURNS TABLE (result_ids bigint[], status text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    outcomes text[] := p_outcomes;
    given jsonb[];
    delays double precision[] := p_delays;
    refused text[];
BEGIN
    BEGIN
        given := p_values::jsonb[];
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        -- Somebody's value is not storable. Look at each; a result is never repaired, an error only as far as its sense stays.
        SELECT array_agg(CASE WHEN v.broken AND v.outcome = 'succeed' THEN 'fail_finally' ELSE v.outcome END ORDER BY v.n),
               array_agg(CASE WHEN v.broken AND v.outcome = 'succeed'
                              THEN jsonb_build_object(
                                  'kind', 'bad_result',
                                  'message', 'the result cannot be stored: expected JSON that PostgreSQL accepts '
                                             || '(no NUL, no half surrogate pair, no NaN), got '
                                             || length(v.words) || ' characters that it refuses')
                              WHEN v.broken THEN reproq_repaired_jsonb(v.words) ELSE v.parsed END ORDER BY v.n),
               array_agg(CASE WHEN v.broken AND v.outcome <> 'succeed' THEN v.words END ORDER BY v.n)
        INTO outcomes, given, refused
        FROM (SELECT e.n, e.outcome, e.words, p.parsed, e.words IS NOT NULL AND p.parsed IS NULL AS broken
              FROM unnest(p_outcomes, p_values) WITH ORDINALITY AS e (outcome, words, n)
              CROSS JOIN LATERAL (SELECT reproq_jsonb_or_null(e.words) AS parsed OFFSET 0) p) v;
    END;

    IF outcomes && ARRAY['fail', 'release', 'put_back'] THEN
        SELECT d.outcomes, d.given, d.delays INTO outcomes, given, delays FROM reproq_decide(p_ids, outcomes, given, delays) d;
        RETURN QUERY
        SELECT array_agg(g.result_id), g.status
        FROM reproq_give_back(p_leased_by, p_ids, p_lease_nos, outcomes, given, refused, p_started_ago, p_logs_uris, delays) g
        GROUP BY g.status;
    END IF;
    IF outcomes && ARRAY['succeed', 'fail_finally', 'cancel'] THEN
        RETURN QUERY SELECT * FROM reproq_finish(p_leased_by, p_ids, p_lease_nos, outcomes, given, refused, p_started_ago, p_logs_uris);
    END IF;
    IF outcomes && ARRAY['completed'] THEN
        -- They have ended themselves, in a transaction of their own; whether they have, the look at lost ones tells.
        PERFORM reproq_note_logs(p_leased_by, p_ids, outcomes, p_logs_uris);
    END IF;
END
$$;

-- For a batch that met a lock: locks the lane rows and records of the runs whose fence holds, without waiting. The outcome of those that
-- somebody else has locked becomes 'busy', which no later step knows, and they are returned. All are busy while the whole table is locked
-- against writing, as during CREATE INDEX.
CREATE OR REPLACE FUNCTION reproq_set_aside(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], INOUT outcomes text[], OUT busy bigint[]
) LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    free bigint[] := '{}';
BEGIN
    BEGIN
        LOCK TABLE task_runs IN ROW EXCLUSIVE MODE NOWAIT;
        free := ARRAY(SELECT l.result_id
                      FROM (SELECT * FROM unnest(p_ids, p_lease_nos) AS u (id, no) ORDER BY id) e
                      JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
                      JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
                      FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED);
    EXCEPTION WHEN lock_not_available THEN
        free := '{}';
    END;
    SELECT array_agg(CASE WHEN l.result_id IS NULL THEN e.outcome ELSE 'busy' END ORDER BY e.n),
           coalesce(array_agg(e.id) FILTER (WHERE l.result_id IS NOT NULL), '{}')
    INTO outcomes, busy
    FROM unnest(p_ids, p_lease_nos, outcomes) WITH ORDINALITY AS e (id, no, outcome, n)
    LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
                             AND l.result_id <> ALL (free);
END
$$;

-- Ends a batch of attempts of one holder. All arrays have one entry for each attempt:
--   outcomes: succeed, fail, fail_finally, cancel, release, put_back; completed: it was ended by reproq_complete;
--   values: JSON text, the result or the error object; of a release the suspicion, see reproq_decide;
--   delays: seconds until a retry, NULL = policy;
--   started_ago: seconds since the execution began, NULL = never;
--   logs_uris: where the output went, NULL = nowhere.
-- Returns runs with the status of their records now, those of one status together, for every run whose fence (leased_by, lease_no) held; the
-- others are lost to the caller.
-- Status NULL: nothing of it is written, so say it again later. Without a trouble, since somebody else keeps the run locked, for longer than the
-- lock_timeout; with one, since PostgreSQL refuses to write it: see reproq_trouble.
--
-- A row that is refused costs only itself, whatever the reason (ADR 29). If it is one of values (a constraint, a size, a trigger that raises) the
-- attempt fails by it, and is told so; any other, and a failure that is refused as well, is nobody's verdict on this result: a table or a right
-- that somebody's trigger misses will be there again.
CREATE OR REPLACE FUNCTION reproq_end_in_groups(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_outcomes text[], p_values text[], p_delays double precision[] DEFAULT NULL,
    p_started_ago double precision[] DEFAULT NULL, p_logs_uris text[] DEFAULT NULL
) RETURNS TABLE (result_ids bigint[], status text, trouble text)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
    most_waits CONSTANT integer := 3;
    outcomes text[];
    busy bigint[];
    met_lock boolean := false;
    waits integer := 0;
    error text;
    is_refused boolean;
BEGIN
    BEGIN
        RETURN QUERY
        SELECT b.*, NULL::text
        FROM reproq_end_batch(p_leased_by, p_ids, p_lease_nos, p_outcomes, p_values, p_delays, p_started_ago, p_logs_uris) b;
        RETURN;
    EXCEPTION
        WHEN lock_not_available THEN
            met_lock := true;
        WHEN OTHERS OR assert_failure THEN
            NULL;
    END;
    -- What is no row's fault, such as a right that is missing on our own tables, fails here.
    SELECT s.outcomes, s.busy INTO outcomes, busy FROM reproq_set_aside(p_leased_by, p_ids, p_lease_nos, p_outcomes) s;
    IF busy <> '{}' THEN
        RETURN QUERY SELECT busy, NULL::text, NULL::text;
    END IF;
    IF met_lock THEN
        BEGIN
            RETURN QUERY
            SELECT b.*, NULL::text
            FROM reproq_end_batch(p_leased_by, p_ids, p_lease_nos, outcomes, p_values, p_delays, p_started_ago, p_logs_uris) b;
            RETURN;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            NULL;
        END;
    END IF;
    -- One row is refused and must not cost the others their endings.
    FOR i IN 1 .. cardinality(p_ids) LOOP
        CONTINUE WHEN outcomes[i] = 'busy';
        is_refused := false;
        BEGIN
            RETURN QUERY
            SELECT b.*, NULL::text
            FROM reproq_end_batch(p_leased_by, p_ids[i:i], p_lease_nos[i:i], p_outcomes[i:i], p_values[i:i], p_delays[i:i], p_started_ago[i:i],
                                  p_logs_uris[i:i]) b;
            CONTINUE;
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
            WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
                is_refused := true;
                error := jsonb_build_object('kind', 'bad_result', 'message', 'the end of this attempt cannot be stored: ' || SQLERRM)::text;
            WHEN OTHERS THEN
                RAISE WARNING 'task run %: its end is refused: %', p_ids[i], SQLERRM;
                RETURN QUERY SELECT p_ids[i:i], NULL::text, reproq_trouble(SQLSTATE, SQLERRM);
                CONTINUE;
        END;
        IF is_refused THEN
            BEGIN
                RETURN QUERY
                SELECT b.*, NULL::text
                FROM reproq_end_batch(p_leased_by, p_ids[i:i], p_lease_nos[i:i], '{fail_finally}', ARRAY[error], '{NULL}', p_started_ago[i:i],
                                      '{NULL}') b;
                CONTINUE;
            EXCEPTION
                WHEN lock_not_available THEN
                    NULL;
                WHEN OTHERS OR assert_failure THEN
                    RAISE WARNING 'task run %: its end is refused: %', p_ids[i], SQLERRM;
                    RETURN QUERY SELECT p_ids[i:i], NULL::text, reproq_trouble(SQLSTATE, SQLERRM);
                    CONTINUE;
            END;
        END IF;
        -- Not the run itself is locked, that would have been set aside, but something that somebody's trigger wants.
        RETURN QUERY SELECT p_ids[i:i], NULL::text, NULL::text;
        waits := waits + 1;
        IF waits >= most_waits THEN
            RETURN QUERY
            SELECT ARRAY[e.id], NULL::text, NULL::text FROM unnest(p_ids[i + 1:], outcomes[i + 1:]) AS e (id, outcome) WHERE e.outcome <> 'busy';
            EXIT;
        END IF;
    END LOOP;
END
$$;

-- The same with a row for each run.
DROP FUNCTION IF EXISTS reproq_end(text, bigint[], bigint[], text[], text[], double precision[], double precision[], text[]);
CREATE OR REPLACE FUNCTION reproq_end(
    p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_outcomes text[], p_values text[], p_delays double precision[] DEFAULT NULL,
    p_started_ago double precision[] DEFAULT NULL, p_logs_uris text[] DEFAULT NULL
) RETURNS TABLE (result_id bigint, status text, trouble text)
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT u.id, g.status, g.trouble
    FROM reproq_end_in_groups(p_leased_by, p_ids, p_lease_nos, p_outcomes, p_values, p_delays, p_started_ago, p_logs_uris) g
    CROSS JOIN LATERAL unnest(g.result_ids) AS u (id)
$$;
