-- Claim, renew, show, and the cycle that does all of it in one commit. Why ids are joined by = ANY (ARRAY[id]), 007_ending says.
-- revision: 20
-- locks: none while migrating.

-- Bytes of a spec as JSON text. Short ones are not unpacked for it: as stored they are about as long.
CREATE OR REPLACE FUNCTION reproq_spec_bytes(spec jsonb) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pg_column_size(spec) < 2000 AND pg_column_compression(spec) IS NULL THEN pg_column_size(spec)
                ELSE octet_length(spec::text) END::bigint
$$;

-- Locks up to p_limit runs of one queue, the first in line after a place in that line, and says which of them may run, in their order: ids,
-- their rows of the lane (ctids, good as long as nobody but this transaction can write them), their keys in the line (keys, dues), the rate
-- whose token each has spent (rates; NULL array = none has), and the number of their holds. ids NULL: nobody is in line.
-- passed_id: some of the first in line had no room in their keys or found no token of their rate; it is the last that was looked at, the place
-- to go on from. busy: how many of them a claim should try again soon, because somebody had the lock of a key or a bucket.
DROP FUNCTION IF EXISTS reproq_take(text, bigint, double precision, text, integer, double precision, timestamptz, bigint);
DROP FUNCTION IF EXISTS reproq_take(text, bigint, double precision, text, integer, bigint, double precision, timestamptz, bigint);
CREATE OR REPLACE FUNCTION reproq_next_in_line(
    p_queue text, p_limit integer, p_after_key double precision, p_after_due timestamptz, p_after_id bigint,
    OUT ids bigint[], OUT ctids tid[], OUT keys double precision[], OUT dues timestamptz[], OUT rates text[], OUT hold bigint,
    OUT busy integer, OUT passed_id bigint, OUT passed_key double precision, OUT passed_due timestamptz)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    with_keys bigint[];
    admitted bigint[];
    able bigint[];
    limited bigint[];
    poor integer;
    many integer;
    last_id bigint;
    last_key double precision;
    last_due timestamptz;
BEGIN
    busy := 0;
    IF EXISTS (SELECT FROM reproq_coexistence) THEN
        SELECT array_agg(p.result_id), array_agg(p.order_key), array_agg(p.due_at), array_agg(p.result_id) FILTER (WHERE p.has_keys)
        INTO ids, keys, dues, with_keys
        FROM reproq_pick_beside_older(p_queue, p_limit, p_after_key, p_after_due, p_after_id) p;
    ELSE
        SELECT array_agg(p.result_id), array_agg(p.ctid), array_agg(p.order_key), array_agg(p.due_at),
               array_agg(p.result_id) FILTER (WHERE p.has_keys)
        INTO ids, ctids, keys, dues, with_keys
        FROM (SELECT l.result_id, l.ctid, l.order_key, l.due_at, l.lock_name IS NOT NULL OR l.limit_name IS NOT NULL AS has_keys
              FROM task_lane l
              WHERE l.state = 'ready' AND l.queue_name = p_queue AND (l.order_key, l.due_at, l.result_id) > (p_after_key, p_after_due, p_after_id)
              ORDER BY l.order_key, l.due_at, l.result_id
              LIMIT p_limit
              FOR UPDATE SKIP LOCKED) p;
    END IF;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    many := cardinality(ids);
    last_id := ids[many];
    last_key := keys[many];
    last_due := dues[many];
    able := ids;
    IF with_keys IS NOT NULL THEN
        SELECT a.admitted, a.busy, a.hold_no INTO admitted, busy, hold FROM reproq_admit(with_keys) a;
        able := ARRAY(SELECT u.id FROM unnest(ids) WITH ORDINALITY AS u (id, n) WHERE u.id <> ALL (with_keys) OR u.id = ANY (admitted)
                      ORDER BY u.n);
    END IF;
    IF ctids IS NULL OR with_keys IS NOT NULL THEN
        -- What looked at keys may have written to them.
        SELECT coalesce(array_agg(l.result_id ORDER BY u.n), '{}'), array_agg(l.ctid ORDER BY u.n), array_agg(l.order_key ORDER BY u.n),
               array_agg(l.due_at ORDER BY u.n)
        INTO ids, ctids, keys, dues
        FROM unnest(able) WITH ORDINALITY AS u (id, n) JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id]);
    END IF;
    IF ids <> '{}' AND EXISTS (SELECT FROM rate_limits b WHERE b.tokens_per_second > 0 AND b.burst_size > 0) THEN
        limited := reproq_limited(p_queue, ids);
    END IF;
    IF limited IS NOT NULL THEN
        SELECT s.able, s.busy, s.names INTO able, poor, rates FROM reproq_spend(limited) s;
        busy := busy + poor;
        IF cardinality(able) < cardinality(ids) THEN
            -- Nothing was written to those that may run.
            SELECT coalesce(array_agg(u.id), '{}'), array_agg(u.at), array_agg(u.key), array_agg(u.due), array_agg(u.rate)
            INTO ids, ctids, keys, dues, rates
            FROM (SELECT * FROM unnest(ids, ctids, keys, dues, rates, limited) WITH ORDINALITY AS a (id, at, key, due, rate, limited, n)
                  WHERE a.limited IS NULL OR a.limited = ANY (able) ORDER BY a.n) u;
        END IF;
    END IF;
    IF cardinality(ids) < many THEN
        passed_id := last_id;
        passed_key := last_key;
        passed_due := last_due;
    END IF;
END
$$;

-- Claims up to wanted[i] runs of queues[i], in that order of turns; what a queue cannot fill is offered to the others, in the proportion of
-- what they wanted, and what they cannot fill either to each in the same order.
-- A run whose time is over (expires_at), that somebody wants cancelled, or whose spec is too large is ended here instead of returned: its
-- record is read anyway.
--
-- A claim ends with the run whose spec goes beyond p_bytes, whatever was wanted: a reply that does not fit into the shard's memory would be
-- asked for again and again.
--
-- Claims leave dead entries at the front of the ready index, and while somebody holds an old snapshot they stay: a look from the start
-- walks over all of them (5 ms after 60,000 claims, 50 ms after 300,000). So a look that was dear is reported, with the place it reached,
-- and the caller begins the next ones there (after_*[i]; NULL arrays = from the start). See store/looks.py for when it must look from the
-- start again.
-- what: claimed; suspect, claimed too, but its shards keep dying: it must show as RUNNING before it starts, so that the next death counts;
-- looked: queue_name, order_key, due_at and result_id of the last run taken
-- (NULL = none), took_s of a dear look from the
-- start (NULL = it began at the caller's place); cut: queue_name had more, which p_bytes did not allow; or contended: somebody had the lock
-- of a key at this moment, so that a claim a moment later may find more.
-- p_is_idle: the caller has said that it sleeps; a claim that brings something takes that back.
--
-- What is wide, a spec, goes through one loop and no further step: each costs 0.2 to 0.7 us a run. So the rows of the lane, which are locked,
-- are written after that, by what is narrow and known of them, their place.
DROP FUNCTION IF EXISTS reproq_claim(text, double precision, text[], integer[], double precision[], timestamptz[], bigint[]);
DROP FUNCTION IF EXISTS reproq_claim(text, double precision, text[], integer[], double precision[], timestamptz[], bigint[], bigint);
CREATE OR REPLACE FUNCTION reproq_claim(
    p_leased_by text, p_lease_s double precision, p_queues text[], p_wanted integer[],
    p_after_keys double precision[] DEFAULT NULL, p_after_dues timestamptz[] DEFAULT NULL, p_after_ids bigint[] DEFAULT NULL,
    p_bytes bigint DEFAULT 67108864, p_is_idle boolean DEFAULT false
) RETURNS TABLE (what text, result_id bigint, lease_no bigint, attempt integer, queue_name text, priority integer, task_path text,
                 timeout_s integer, max_attempts integer, spec text, order_key double precision, due_at timestamptz,
                 took_s double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    most_tries CONSTANT integer := 5;
    suspect_from CONSTANT smallint := 3;
    clock timestamptz;
    -- Queues that have nothing more to give; the paused ones from the start.
    drained text[] := ARRAY(SELECT c.queue_name FROM reproq_queue_controls c WHERE c.queue_name = ANY (p_queues) AND c.paused);
    -- One number for the whole claim: it only has to grow, and to differ from that of every earlier lease of the same run.
    number CONSTANT bigint := nextval('reproq_lease_seq');
    missing integer := 0;
    claimed integer := 0;
    wanted bigint;
    bytes_left bigint := p_bytes;
    share integer;
    got integer;
    to_find bigint;
    after_key double precision;
    after_due timestamptz;
    after_id bigint;
    line record;
    wishes bigint[];
    n integer;
    bytes bigint;
    unrecorded integer;
    contended boolean := false;
    began_at timestamptz;
    passed bigint;
    is_from_start boolean;
    refused bigint[] := '{}';
    reasons text[] := '{}';
BEGIN
    FOREACH share IN ARRAY p_wanted LOOP
        missing := missing + share;
    END LOOP;
    lease_no := number;
    <<rounds>>
    FOR round IN 1 .. 3 LOOP
        EXIT WHEN missing <= 0 OR p_queues <@ drained;
        IF round = 2 THEN
            -- What those want that may have more.
            wanted := (SELECT sum(u.w) FROM unnest(p_queues, p_wanted) AS u (queue, w) WHERE u.queue <> ALL (drained));
        END IF;
        FOR i IN 1 .. cardinality(p_queues) LOOP
            CASE round
                WHEN 1 THEN share := p_wanted[i];
                WHEN 2 THEN
                    share := CASE WHEN wanted > 0 THEN ceil(missing::float8 * p_wanted[i] / wanted) ELSE 0 END;
                    wanted := wanted - CASE WHEN p_queues[i] = ANY (drained) THEN 0 ELSE p_wanted[i] END;
                ELSE share := missing;
            END CASE;
            CONTINUE WHEN share <= 0 OR p_queues[i] = ANY (drained);
            queue_name := p_queues[i];
            got := 0;
            began_at := clock_timestamp();
            passed := pg_stat_get_xact_tuples_returned('task_lane_ready'::regclass);
            is_from_start := coalesce(p_after_keys[i], '-Infinity') = '-Infinity';
            after_key := coalesce(p_after_keys[i], '-Infinity');
            after_due := coalesce(p_after_dues[i], '-infinity');
            after_id := coalesce(p_after_ids[i], 0);
            to_find := 0;
            FOR try IN 1 .. most_tries LOOP
                clock := clock_timestamp();
                SELECT * INTO line FROM reproq_next_in_line(queue_name, share - got, after_key, after_due, after_id);
                n := 0;
                IF line.ids <> '{}' THEN
                    wishes := (SELECT array_agg(c.result_id) FROM reproq_cancel_requests c WHERE c.result_id = ANY (line.ids));
                    unrecorded := 0;
                    -- The first one whatever its size, the others while their specs are no longer than bytes_left in all.
                    FOR what, result_id, attempt, priority, task_path, timeout_s, max_attempts, spec, n, bytes IN
                        SELECT CASE WHEN f.recorded IS NULL THEN 'unrecorded' WHEN f.unwanted IS NOT NULL THEN f.unwanted
                                    WHEN f.deaths >= suspect_from THEN 'suspect' ELSE 'claimed' END,
                               f.result_id, f.attempts + 1, f.priority, coalesce(f.spec_json ->> 'task_path', f.task_path), f.timeout_seconds,
                               f.max_attempts,
                               -- What earlier attempts noted down travels with the spec, to whom it is the same whether it does.
                               CASE WHEN f.unwanted IS NOT NULL THEN NULL
                                    WHEN f.metadata_json = '{}' OR jsonb_typeof(f.spec_json) <> 'object' THEN f.spec_json::text
                                    ELSE (f.spec_json || jsonb_build_object('metadata', f.metadata_json))::text END,
                               f.n::integer, f.bytes
                        FROM (SELECT u.n, l.result_id, l.attempts, l.priority, l.timeout_seconds, l.max_attempts, l.deaths,
                                     r.result_id AS recorded, r.spec_json, r.metadata_json, r.task_path, w.unwanted,
                                     sum(CASE WHEN w.unwanted IS NULL THEN r.bytes END) OVER (ORDER BY u.n ROWS UNBOUNDED PRECEDING) AS bytes
                              FROM unnest(line.ids, line.ctids) WITH ORDINALITY AS u (id, at, n)
                              JOIN task_lane l ON l.ctid = u.at AND l.result_id = u.id
                              LEFT JOIN LATERAL (
                                  SELECT t.result_id, t.spec_json, t.metadata_json, t.task_path, t.expires_at, t.cancel_requested,
                                         reproq_spec_bytes(t.spec_json)::integer AS bytes
                                  FROM task_runs t WHERE t.result_id = u.id OFFSET 0) r ON true
                              CROSS JOIN LATERAL (
                                  SELECT reproq_unwanted(r.expires_at, r.cancel_requested OR u.id = ANY (wishes), r.bytes, clock) AS unwanted) w
                             ) f
                        WHERE f.n = 1 OR coalesce(f.bytes, 0) <= bytes_left
                        ORDER BY f.n
                    LOOP
                        IF what = 'claimed' OR what = 'suspect' THEN
                            RETURN NEXT;
                        ELSIF what = 'unrecorded' THEN
                            unrecorded := unrecorded + 1;
                        ELSE
                            refused := refused || result_id;
                            reasons := reasons || what;
                        END IF;
                    END LOOP;
                    UPDATE task_lane l
                    SET state = 'running', leased_by = p_leased_by, lease_no = number, leased_until = clock + p_lease_s * interval '1 s',
                        claimed_at = clock, attempts = l.attempts + 1,
                        hold_no = CASE WHEN l.lock_name IS NULL AND l.limit_name IS NULL THEN l.hold_no
                                       ELSE coalesce(line.hold, 9223372036854775807) END,
                        paid_rate = u.rate
                    FROM unnest(line.ctids[:n], line.ids[:n], line.rates[:n]) AS u (at, id, rate)
                    WHERE l.ctid = u.at AND l.result_id = u.id;
                    IF n > unrecorded THEN
                        to_find := got + cardinality(line.ids);
                    END IF;
                    got := got + n - unrecorded;
                    bytes_left := bytes_left - coalesce(bytes, 0);
                    IF line.rates[n + 1:] <> '{}' THEN
                        -- What was too long for this claim has spent nothing.
                        PERFORM reproq_refund(line.rates[n + 1:]);
                    END IF;
                END IF;
                contended := contended OR line.busy > 0;
                IF line.passed_id IS NULL THEN
                    result_id := line.ids[n];
                    order_key := line.keys[n];
                    due_at := line.dues[n];
                ELSE
                    result_id := line.passed_id;
                    order_key := line.passed_key;
                    due_at := line.passed_due;
                    after_key := order_key;
                    after_due := due_at;
                    after_id := result_id;
                END IF;
                EXIT WHEN line.passed_id IS NULL OR got >= share OR got < to_find OR bytes_left <= 0;
            END LOOP;
            missing := missing - got;
            claimed := claimed + got;
            what := 'looked';
            passed := pg_stat_get_xact_tuples_returned('task_lane_ready'::regclass) - passed;
            took_s := CASE WHEN is_from_start THEN extract(epoch FROM clock_timestamp() - began_at) END;
            -- Dear by what it read, not by the clock: a first call, which plans, is slow too. 10,000 entries are 1 to 2 ms.
            IF (is_from_start AND passed > share + 10000) OR (NOT is_from_start AND got > 0) THEN
                RETURN NEXT;
            END IF;
            took_s := NULL;
            order_key := NULL;
            due_at := NULL;
            IF got < to_find OR bytes_left <= 0 THEN
                what := 'cut';
                RETURN NEXT;
                EXIT rounds;
            END IF;
            IF got < share THEN
                IF line.passed_id IS NOT NULL THEN
                    -- There are more than were looked at.
                    what := 'cut';
                    RETURN NEXT;
                END IF;
                drained := drained || queue_name;
            END IF;
        END LOOP;
    END LOOP;
    IF contended THEN
        what := 'contended';
        RETURN NEXT;
    END IF;
    IF cardinality(refused) > 0 THEN
        PERFORM reproq_refuse(p_leased_by, lease_no, refused, reasons);
    END IF;
    claimed := claimed - cardinality(refused);
    IF claimed > 0 AND EXISTS (SELECT FROM reproq_coexistence) THEN
        PERFORM reproq_show_claimed(p_leased_by, lease_no);
    END IF;
    IF claimed > 0 AND p_is_idle THEN
        DELETE FROM reproq_queue_idle i WHERE i.worker_id = p_leased_by;
    END IF;
END
$$;

-- Ends runs that were just claimed and shall not run, for these reasons: expired, cancelled, too_large. The attempt and the worker do not
-- count, since nothing began. Those that somebody else has locked are parked, so that the next claims do not meet them again at once; those
-- that PostgreSQL refuses for longer.
DROP FUNCTION IF EXISTS reproq_refuse(text, bigint, bigint[]);
CREATE OR REPLACE FUNCTION reproq_refuse(p_leased_by text, p_lease_no bigint, p_ids bigint[], p_reasons text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    busy bigint[];
    refused bigint[];
BEGIN
    UPDATE task_lane l SET leased_by = '', attempts = greatest(l.attempts - 1, 0)
    WHERE l.result_id = ANY (p_ids) AND l.leased_by = p_leased_by AND l.lease_no = p_lease_no;

    SELECT array_agg(e.result_id), array_agg(e.result_id) FILTER (WHERE e.trouble IS NOT NULL) INTO busy, refused
    FROM (SELECT array_agg(r.result_id) AS ids, array_agg(p_lease_no) AS nos,
                 array_agg(CASE u.reason WHEN 'cancelled' THEN 'cancel' ELSE 'fail_finally' END) AS outcomes,
                 array_agg(CASE u.reason
                           WHEN 'expired' THEN jsonb_build_object('kind', 'expired', 'message', 'not run: it had expired at ' || r.expires_at)
                           WHEN 'cancelled' THEN jsonb_build_object('kind', 'cancelled', 'message', 'Task cancelled by request')
                           ELSE jsonb_build_object('kind', 'invalid_spec', 'message',
                               'spec_json: expected at most 1048576 bytes, got ' || octet_length(r.spec_json::text)
                               || '; store large data elsewhere and pass where it is') END::text) AS errors
          FROM unnest(p_ids, p_reasons) AS u (id, reason) JOIN task_runs r ON r.result_id = ANY (ARRAY[u.id])) f
    CROSS JOIN LATERAL reproq_end('', f.ids, f.nos, f.outcomes, f.errors) e
    WHERE e.status IS NULL;
    IF busy IS NOT NULL THEN
        UPDATE task_lane l
        SET state = 'parked', park_reason = 'due', leased_by = NULL, leased_until = NULL,
            due_at = clock_timestamp() + CASE WHEN l.result_id = ANY (refused) THEN interval '1 min' ELSE interval '2 s' END
        WHERE l.result_id = ANY (busy) AND l.leased_by = '' AND l.lease_no = p_lease_no;
        PERFORM reproq_note_keys(ARRAY(SELECT k.name FROM task_lane l CROSS JOIN LATERAL (VALUES (l.lock_name), (l.limit_name)) AS k (name)
                                       WHERE l.result_id = ANY (busy)));
    END IF;
END
$$;

-- Extends leases to now + lease_s. Returns the runs for which it did not: lost, if the lease is no longer the caller's; unrenewed, if
-- somebody else has locked the lane row, which others' changes of a record do until they commit.
CREATE OR REPLACE FUNCTION reproq_renew(p_leased_by text, p_lease_s double precision, p_ids bigint[], p_lease_nos bigint[])
RETURNS TABLE (what text, result_id bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    free bigint[] := p_ids;
    renewed bigint[];
BEGIN
    FOR round IN 1 .. 2 LOOP
        BEGIN
            WITH own AS (
                UPDATE task_lane l SET leased_until = clock_timestamp() + p_lease_s * interval '1 s'
                FROM (SELECT * FROM unnest(p_ids, p_lease_nos) AS u (id, no) WHERE round = 1 OR id = ANY (free) ORDER BY id) e
                WHERE l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
                RETURNING l.result_id)
            SELECT coalesce(array_agg(o.result_id), '{}') INTO renewed FROM own o;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            renewed := '{}';
            free := ARRAY(SELECT l.result_id FROM task_lane l WHERE l.result_id = ANY (p_ids) AND l.leased_by = p_leased_by
                          FOR NO KEY UPDATE SKIP LOCKED);
        END;
    END LOOP;
    IF cardinality(renewed) < cardinality(p_ids) THEN
        RETURN QUERY
        SELECT CASE WHEN l.result_id IS NULL THEN 'lost' ELSE 'unrenewed' END, e.id
        FROM unnest(p_ids, p_lease_nos) AS e (id, no)
        LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
        WHERE e.id <> ALL (renewed);
    END IF;
END
$$;

-- Writes RUNNING, start, attempt and worker into the records of runs that have been executing for a while. Returns the runs for which it
-- did not: lost, if they are no longer the caller's; busy, if somebody else has locked them; refused, if PostgreSQL does, with its trouble.
DROP FUNCTION IF EXISTS reproq_show(text, bigint[], bigint[], double precision[]);
CREATE OR REPLACE FUNCTION reproq_show(p_leased_by text, p_ids bigint[], p_lease_nos bigint[], p_started_ago double precision[])
RETURNS TABLE (what text, result_id bigint, trouble text)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    clock timestamptz := clock_timestamp();
    worker jsonb := jsonb_build_array(p_leased_by);
    free bigint[];
BEGIN
    BEGIN
        -- Locked first: between a plain look and the write, a reclaim could give the run to somebody else.
        free := ARRAY(SELECT l.result_id
                      FROM (SELECT * FROM unnest(p_ids, p_lease_nos) AS u (id, no) ORDER BY id) e
                      JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
                      JOIN task_runs r ON r.result_id = ANY (ARRAY[e.id])
                      FOR NO KEY UPDATE OF l, r SKIP LOCKED);
        UPDATE task_runs r
        SET status = 'RUNNING',
            started_at = coalesce(r.started_at, clock - e.started_ago * interval '1 s'),
            last_attempted_at = l.claimed_at,
            attempts = l.attempts,
            worker_ids = reproq_append(r.worker_ids, worker, 50),
            leased_by = p_leased_by,
            leased_until = l.leased_until,
            updated_at = clock,
            rev = r.rev + 1
        FROM unnest(p_ids, p_started_ago) AS e (id, started_ago)
        JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id])
        WHERE e.id = ANY (free) AND r.result_id = ANY (ARRAY[e.id])
              AND (r.status = 'READY' OR r.leased_until IS NULL);  -- the latter: see 014_coexist
    EXCEPTION
        WHEN lock_not_available THEN
            -- The table is locked against writing.
            free := '{}';
        WHEN OTHERS OR assert_failure THEN
            IF cardinality(p_ids) = 1 THEN
                RAISE WARNING 'task run %: its start is refused: %', p_ids[1], SQLERRM;
                RETURN QUERY SELECT 'refused', p_ids[1], reproq_trouble(SQLSTATE, SQLERRM);
            ELSE
                -- One of them.
                FOR i IN 1 .. cardinality(p_ids) LOOP
                    RETURN QUERY SELECT * FROM reproq_show(p_leased_by, p_ids[i:i], p_lease_nos[i:i], p_started_ago[i:i]);
                END LOOP;
            END IF;
            RETURN;
    END;
    IF cardinality(free) < cardinality(p_ids) THEN
        RETURN QUERY
        SELECT CASE WHEN l.result_id IS NULL THEN 'lost' ELSE 'busy' END, e.id, NULL::text
        FROM unnest(p_ids, p_lease_nos) AS e (id, no)
        LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[e.id]) AND l.leased_by = p_leased_by AND l.lease_no = e.no
        WHERE e.id <> ALL (free);
    END IF;
END
$$;

-- Which of these runs the holder still holds, with the number of the lease.
CREATE OR REPLACE FUNCTION reproq_held(p_leased_by text, p_ids bigint[]) RETURNS TABLE (result_id bigint, lease_no bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
    SELECT l.result_id, l.lease_no FROM task_lane l WHERE l.result_id = ANY (p_ids) AND l.leased_by = p_leased_by
$$;

-- Endings whose fence failed, but whose run shows this very holder as the last and is in nobody's hands: the reply to an earlier, committed
-- cycle was lost.
CREATE OR REPLACE FUNCTION reproq_ended_before(p_leased_by text, p_ids bigint[]) RETURNS TABLE (result_id bigint, status text)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT r.result_id, r.status
    FROM task_runs r
    LEFT JOIN task_lane l ON l.result_id = ANY (ARRAY[r.result_id])
    WHERE r.result_id = ANY (p_ids) AND r.worker_ids ->> -1 = p_leased_by AND l.state IS DISTINCT FROM 'running'
$$;

-- Seconds until the next run is due that waits for its time; negative when it has been, NULL when there is none.
CREATE OR REPLACE FUNCTION reproq_next_due_s() RETURNS double precision
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    SELECT extract(epoch FROM l.due_at - clock_timestamp())::double precision
    FROM task_lane l WHERE l.state = 'parked' AND l.park_reason = 'due' ORDER BY l.due_at, l.result_id LIMIT 1
$$;

-- A shard's whole conversation. One row for each thing to tell, by *what*: ended (status), lost, cancel; busy, an ending or a start that is
-- not written because somebody has locked the run; refused, one that PostgreSQL does not write (status: the trouble); unrenewed as reproq_renew, claimed, suspect, looked and cut as reproq_claim tells;
-- throttled, when a look may find more after took_s: a token will be there, or a run will be due.
-- runs: of all of which it is said; NULL where it is said of result_id alone. A row for each end, through every layer and to the client, cost
-- as much as a quarter of writing it.
CREATE OR REPLACE FUNCTION reproq_brief_cycle(
    p_leased_by text, p_lease_s double precision,
    p_end_ids bigint[], p_end_lease_nos bigint[], p_end_outcomes text[], p_end_values text[], p_end_delays double precision[],
    p_end_started_ago double precision[], p_end_logs_uris text[],
    p_show_ids bigint[], p_show_lease_nos bigint[], p_show_started_ago double precision[],
    p_renew_ids bigint[], p_renew_lease_nos bigint[],
    p_watch_ids bigint[],
    p_queues text[], p_wanted integer[], p_after_keys double precision[], p_after_dues timestamptz[], p_after_ids bigint[],
    p_is_idle boolean, p_bytes bigint DEFAULT 67108864
) RETURNS TABLE (what text, result_id bigint, status text, lease_no bigint, attempt integer, queue_name text, priority integer,
                 task_path text, timeout_s integer, max_attempts integer, spec text, order_key double precision, due_at timestamptz,
                 took_s double precision, runs bigint[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    told bigint[] := '{}';
    paid bigint[];
    paid_rates text[];
    unspent text[];
    trouble text;
    next_due_s double precision;
BEGIN
    IF cardinality(p_end_ids) > 0 OR cardinality(p_show_ids) > 0 THEN
        -- What somebody's constraint trigger refuses at the commit would cost all others of this cycle their ends.
        SET CONSTRAINTS ALL IMMEDIATE;
    END IF;
    IF cardinality(p_end_ids) > 0 THEN
        IF 'put_back' = ANY (p_end_outcomes) THEN
            -- Before the ends: a lane row may go with its own.
            SELECT array_agg(l.result_id), array_agg(l.paid_rate) INTO paid, paid_rates
            FROM unnest(p_end_ids, p_end_lease_nos, p_end_outcomes) AS u (id, no, outcome)
            JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id]) AND l.leased_by = p_leased_by AND l.lease_no = u.no
            WHERE u.outcome = 'put_back' AND l.paid_rate IS NOT NULL;
        END IF;
        FOR runs, status, trouble IN
            SELECT * FROM reproq_end_in_groups(p_leased_by, p_end_ids, p_end_lease_nos, p_end_outcomes, p_end_values, p_end_delays,
                                               p_end_started_ago, p_end_logs_uris)
        LOOP
            what := CASE WHEN status IS NOT NULL THEN 'ended' WHEN trouble IS NULL THEN 'busy' ELSE 'refused' END;
            told := told || runs;
            IF what = 'ended' AND paid IS NOT NULL THEN
                unspent := unspent || ARRAY(SELECT u.rate FROM unnest(paid, paid_rates) AS u (id, rate) WHERE u.id = ANY (runs));
            END IF;
            status := coalesce(status, trouble);
            RETURN NEXT;
        END LOOP;
        IF unspent <> '{}' THEN
            PERFORM reproq_refund_unbegun(unspent);
        END IF;
        IF cardinality(told) < cardinality(p_end_ids) THEN
            FOR what, runs, status IN
                SELECT CASE WHEN b.status IS NULL THEN 'lost' ELSE 'ended' END, array_agg(u.id), b.status
                FROM unnest(p_end_ids) AS u (id)
                LEFT JOIN reproq_ended_before(p_leased_by, p_end_ids) b ON b.result_id = u.id
                WHERE u.id <> ALL (told)
                GROUP BY b.status
            LOOP
                RETURN NEXT;
            END LOOP;
        END IF;
        runs := NULL;
    ELSE
        -- Nothing here is worth a wait for the disk: a claim or a renewal that a crashed server forgets is found by the look at the leases
        -- after reconnecting.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;

    IF reproq_settle_flows(100) THEN
        what := 'contended';
        result_id := NULL;
        status := NULL;
        RETURN NEXT;
    END IF;

    status := NULL;
    IF cardinality(p_renew_ids) > 0 THEN
        FOR what, result_id IN SELECT * FROM reproq_renew(p_leased_by, p_lease_s, p_renew_ids, p_renew_lease_nos) LOOP
            RETURN NEXT;
        END LOOP;
    END IF;
    IF cardinality(p_show_ids) > 0 THEN
        FOR what, result_id, status IN SELECT * FROM reproq_show(p_leased_by, p_show_ids, p_show_lease_nos, p_show_started_ago) LOOP
            RETURN NEXT;
        END LOOP;
        status := NULL;
    END IF;
    IF cardinality(p_watch_ids) > 0 THEN
        what := 'cancel';
        FOR result_id IN SELECT c.result_id FROM reproq_cancel_requests c WHERE c.result_id = ANY (p_watch_ids) LOOP
            RETURN NEXT;
        END LOOP;
    END IF;
    IF cardinality(p_queues) > 0 THEN
        IF p_is_idle THEN
            -- Whoever sleeps has the time to look what will be due, and hears of what is due sooner than the keeper looks. Not in every cycle:
            -- under an old snapshot the look walks over all that was ever parked.
            next_due_s := reproq_next_due_s();
            IF next_due_s <= 0 THEN
                PERFORM reproq_wake_due(100);
                next_due_s := reproq_next_due_s();
            END IF;
        END IF;
        IF reproq_settle_keys(100) THEN
            what := 'contended';
            RETURN NEXT;
        END IF;
        PERFORM reproq_wake_throttled();
        RETURN QUERY
        SELECT c.what, c.result_id, NULL::text, c.lease_no, c.attempt, c.queue_name, c.priority, c.task_path, c.timeout_s, c.max_attempts, c.spec,
               c.order_key, c.due_at, c.took_s, NULL::bigint[]
        FROM reproq_claim(p_leased_by, p_lease_s, p_queues, p_wanted, p_after_keys, p_after_dues, p_after_ids, p_bytes, p_is_idle) c;
        PERFORM reproq_settle_flows(100);  -- of those that expired, and were ended by the claim
        took_s := least(reproq_next_token_s(), CASE WHEN next_due_s < extract(epoch FROM reproq_soon()) THEN greatest(next_due_s, 0) END);
        IF took_s IS NOT NULL THEN
            what := 'throttled';
            RETURN NEXT;
        END IF;
    END IF;
END
$$;

-- The same with a row for each run, as shards of earlier versions ask.
DROP FUNCTION IF EXISTS reproq_cycle(
    text, double precision, bigint[], bigint[], text[], text[], double precision[], double precision[], text[], bigint[], bigint[],
    double precision[], bigint[], bigint[], bigint[], text[], integer[], double precision[], timestamptz[], bigint[], boolean);
CREATE OR REPLACE FUNCTION reproq_cycle(
    p_leased_by text, p_lease_s double precision,
    p_end_ids bigint[], p_end_lease_nos bigint[], p_end_outcomes text[], p_end_values text[], p_end_delays double precision[],
    p_end_started_ago double precision[], p_end_logs_uris text[],
    p_show_ids bigint[], p_show_lease_nos bigint[], p_show_started_ago double precision[],
    p_renew_ids bigint[], p_renew_lease_nos bigint[],
    p_watch_ids bigint[],
    p_queues text[], p_wanted integer[], p_after_keys double precision[], p_after_dues timestamptz[], p_after_ids bigint[],
    p_is_idle boolean, p_bytes bigint DEFAULT 67108864
) RETURNS TABLE (what text, result_id bigint, status text, lease_no bigint, attempt integer, queue_name text, priority integer,
                 task_path text, timeout_s integer, max_attempts integer, spec text, order_key double precision, due_at timestamptz,
                 took_s double precision)
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT b.what, coalesce(u.run, b.result_id), b.status, b.lease_no, b.attempt, b.queue_name, b.priority, b.task_path, b.timeout_s,
           b.max_attempts, b.spec, b.order_key, b.due_at, b.took_s
    FROM reproq_brief_cycle(p_leased_by, p_lease_s, p_end_ids, p_end_lease_nos, p_end_outcomes, p_end_values, p_end_delays, p_end_started_ago,
                            p_end_logs_uris, p_show_ids, p_show_lease_nos, p_show_started_ago, p_renew_ids, p_renew_lease_nos, p_watch_ids,
                            p_queues, p_wanted, p_after_keys, p_after_dues, p_after_ids, p_is_idle, p_bytes) b
    LEFT JOIN LATERAL unnest(b.runs) AS u (run) ON true
$$;
