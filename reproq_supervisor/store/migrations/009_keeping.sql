-- What the keeper and the commands do. Every function works in batches, so that a transaction stays short whatever has piled up.
-- revision: 17
-- locks: none while migrating.

-- Ends attempts whose lease has expired; counted. Returns how many. A run that PostgreSQL refuses to end, for whatever reason, is told by a
-- WARNING and looked at again in five minutes, so that one poisoned row never stops the sweep. Runs that somebody else has locked, lane row
-- or record, wait for a later round.
CREATE OR REPLACE FUNCTION reproq_reclaim(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    found integer := 0;
    ended bigint[];
    expired record;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;  -- as in reproq_cycle
    FOR expired IN
        WITH picked AS MATERIALIZED (
            SELECT l.result_id, l.leased_by, l.lease_no
            FROM task_lane l
            JOIN task_runs r ON r.result_id = ANY (ARRAY[l.result_id])
            -- Not clock_timestamp(): a server that was frozen in the middle of this would take what expired meanwhile.
            WHERE l.state = 'running' AND l.leased_until < statement_timestamp()
            ORDER BY l.lease_no, l.result_id
            LIMIT p_limit
            FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED)
        SELECT p.leased_by, array_agg(p.result_id) AS ids, array_agg(p.lease_no) AS nos, array_agg('fail'::text) AS outcomes,
               array_agg('{"kind": "lease_expiry", "message": "Worker heartbeat lost or process crashed"}'::text) AS errors
        FROM picked p
        GROUP BY p.leased_by
    LOOP
        BEGIN
            ended := ARRAY(SELECT e.result_id
                           FROM reproq_end(expired.leased_by, expired.ids, expired.nos, expired.outcomes, expired.errors) e
                           WHERE e.status IS NOT NULL);
        EXCEPTION WHEN OTHERS THEN
            -- What passes by itself (resources, locks, an operator) is for the caller to try again. All else, such as the error of
            -- somebody's trigger that misses a table, is the row's own: which one it is shows one by one.
            IF left(SQLSTATE, 2) IN ('08', '40', '53', '57', '58') THEN
                RAISE;
            END IF;
            ended := '{}';
            FOR i IN 1 .. cardinality(expired.ids) LOOP
                BEGIN
                    ended := ended || ARRAY(SELECT e.result_id
                                            FROM reproq_end(expired.leased_by, expired.ids[i:i], expired.nos[i:i], expired.outcomes[i:i],
                                                            expired.errors[i:i]) e
                                            WHERE e.status IS NOT NULL);
                EXCEPTION WHEN OTHERS THEN
                    IF left(SQLSTATE, 2) IN ('08', '40', '53', '57', '58') THEN
                        RAISE;
                    END IF;
                    RAISE WARNING 'task run %: its expired lease cannot be taken back: %', expired.ids[i], SQLERRM;
                END;
            END LOOP;
        END;
        found := found + cardinality(ended);
        UPDATE task_lane l SET leased_until = clock_timestamp() + interval '5 min'
        WHERE l.result_id = ANY (expired.ids) AND l.result_id <> ALL (ended) AND l.leased_by = expired.leased_by;
    END LOOP;
    PERFORM reproq_settle_flows(1000);
    RETURN found;
END
$$;

-- Gives back, uncounted, up to p_limit of the runs that these workers held; all their processes must be gone. Returns how many. Runs that
-- somebody else has locked, lane row or record, are left: say it again later, or let their leases end.
--
-- Only a run whose record says RUNNING, with the time of its lease, nears the cap of releases: the others may have waited in a buffer beside the one that is to blame.
-- They may also have begun less than half a second before, so their number of deaths grows until it makes them suspects: those are shown before
-- they start, and what was not shown has nothing to do with the death.
-- Of those that did run, the one that was claimed last is suspected: what kills whoever runs it comes later with every retry, what merely
-- takes long does not.
CREATE OR REPLACE FUNCTION reproq_release_workers(p_worker_ids text[], p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    suspicion CONSTANT text := '{"kind": "worker_crashed", "message": "its shard died while it ran, and it had been claimed last"}';
    suspect_from CONSTANT smallint := 3;  -- as in reproq_claim
    found integer := 0;
    ended integer;
    held record;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;  -- as in reproq_cycle
    DELETE FROM reproq_queue_idle i WHERE i.worker_id = ANY (p_worker_ids);
    DELETE FROM reproq_workers w WHERE w.worker_id = ANY (p_worker_ids);
    FOR held IN
        WITH picked AS MATERIALIZED (
            SELECT l.result_id, l.leased_by, l.lease_no, l.claimed_at, r.status = 'RUNNING' AND r.leased_until IS NOT NULL AS has_run
            FROM task_lane l
            JOIN task_runs r ON r.result_id = ANY (ARRAY[l.result_id])
            WHERE l.state = 'running' AND l.leased_by = ANY (p_worker_ids)
            ORDER BY l.lease_no, l.result_id
            LIMIT p_limit
            FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED),
        ranked AS (
            SELECT p.*, p.has_run AND row_number() OVER (
                       PARTITION BY p.leased_by ORDER BY p.has_run DESC, p.claimed_at DESC, p.result_id DESC) = 1 AS is_last
            FROM picked p)
        SELECT p.leased_by, array_agg(p.result_id) AS ids, array_agg(p.lease_no) AS nos,
               array_agg(CASE WHEN p.has_run THEN 'release' ELSE 'put_back' END) AS outcomes,
               array_agg(CASE WHEN p.is_last THEN suspicion END) AS suspicions,
               array_agg(p.result_id) FILTER (WHERE NOT p.has_run) AS unseen
        FROM ranked p
        GROUP BY p.leased_by
    LOOP
        UPDATE task_lane l SET deaths = l.deaths + 1 WHERE l.result_id = ANY (held.unseen) AND l.deaths < suspect_from;
        SELECT count(e.status) INTO ended FROM reproq_end(held.leased_by, held.ids, held.nos, held.outcomes, held.suspicions) e;
        found := found + ended;
    END LOOP;
    PERFORM reproq_settle_flows(1000);
    RETURN found;
END
$$;

-- Which of these workers hold runs. Reads what runs, never what waits.
CREATE OR REPLACE FUNCTION reproq_holders(p_worker_ids text[]) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT DISTINCT l.leased_by FROM task_lane l WHERE l.state = 'running' AND l.leased_by = ANY (p_worker_ids)
$$;

-- Makes ready what is due. Returns how many, and the seconds until the next one is due (NULL = none; 0 = more are due already).
CREATE OR REPLACE FUNCTION reproq_wake_due(p_limit integer, OUT woken integer, OUT next_due_s double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    -- Once: a condition on a volatile function cannot use the index, and would read all that is parked.
    clock timestamptz := clock_timestamp();
    queues text[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT l.result_id, l.lock_name, l.limit_name, l.limit_size
        FROM task_lane l
        WHERE l.state = 'parked' AND l.park_reason = 'due' AND l.due_at <= clock
        ORDER BY l.due_at, l.result_id
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED),
    up AS (
        -- Where others wait for a key, a run that has become due waits with them: see the trigger on insert.
        UPDATE task_lane l
        SET state = CASE WHEN p.on_key IS NULL THEN 'ready' ELSE 'parked' END,
            park_reason = CASE WHEN p.on_key IS NOT NULL THEN 'key' END,
            on_key = p.on_key
        FROM (SELECT k.result_id,
                     CASE WHEN EXISTS (SELECT FROM reproq_line_floors f WHERE f.key = k.lock_name)
                               OR EXISTS (SELECT FROM task_lane w WHERE w.on_key = k.lock_name) THEN k.lock_name
                          WHEN EXISTS (SELECT FROM reproq_line_floors f WHERE f.key = k.limit_name)
                               OR EXISTS (SELECT FROM task_lane w WHERE w.on_key = k.limit_name) THEN k.limit_name END AS on_key
              FROM picked k) p
        WHERE l.result_id = ANY (ARRAY[p.result_id])
        RETURNING l.queue_name, l.on_key, l.order_key, l.due_at, l.result_id),
    words AS (
        INSERT INTO reproq_key_arrivals (key, queue_name, order_key, due_at, result_id)
        SELECT DISTINCT ON (u.on_key, u.queue_name) u.on_key, u.queue_name, u.order_key, u.due_at, u.result_id
        FROM up u WHERE u.on_key IS NOT NULL
        ORDER BY u.on_key, u.queue_name, u.order_key, u.due_at, u.result_id)
    SELECT count(*), array_agg(DISTINCT up.queue_name) INTO woken, queues FROM up;
    IF woken > 0 THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
    SELECT greatest(extract(epoch FROM l.due_at - clock_timestamp())::double precision, 0) INTO next_due_s
    FROM task_lane l WHERE l.state = 'parked' AND l.park_reason = 'due' ORDER BY l.due_at, l.result_id LIMIT 1;
END
$$;

-- Cancels runs. Returns for each: cancelled (it waited, and has ended now), requested (somebody holds it, or has it locked), ended (it had
-- ended before), unknown.
--   p_leaves_word: for a transaction that others may keep open for long. It takes no lock of a key or a workflow then, which would stop all who
--   want it, but leaves word of what follows: the next cycle after the commit, or the keeper, sees to it.
DROP FUNCTION IF EXISTS reproq_cancel(bigint[]);
CREATE OR REPLACE FUNCTION reproq_cancel(p_ids bigint[], p_leaves_word boolean DEFAULT false) RETURNS TABLE (result_id bigint, outcome text)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    error CONSTANT text := '{"kind": "cancelled", "message": "Task cancelled by request"}';
    no bigint := nextval('reproq_lease_seq');
    seized bigint[];
    ended bigint[];
    held bigint[];
    unwished bigint[];
    before task_lane[];
    freed text[];
    n integer;
BEGIN
    -- A waiting run is claimed for a moment, by nobody, so that it ends like any other; without its keys, since it holds none. One that was
    -- woken for a key had its turn, which is the next one's now.
    WITH picked AS MATERIALIZED (
        SELECT l.result_id, l AS whole
        FROM task_lane l
        JOIN task_runs r ON r.result_id = ANY (ARRAY[l.result_id])
        WHERE l.result_id = ANY (p_ids) AND l.state <> 'running'
        ORDER BY l.result_id
        FOR UPDATE OF l SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED),
    taken AS (
        UPDATE task_lane l
        SET state = 'running', park_reason = NULL, on_key = NULL, leased_by = '', lease_no = no, leased_until = clock_timestamp(),
            lock_name = NULL, limit_name = NULL
        FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]) RETURNING l.result_id, p.whole)
    SELECT coalesce(array_agg(t.result_id ORDER BY t.result_id), '{}'), array_agg(t.whole) INTO seized, before FROM taken t;
    n := cardinality(seized);
    IF n > 0 THEN
        ended := ARRAY(SELECT e.result_id FROM reproq_end(
            '', seized, array_fill(no, ARRAY[n]), array_fill('cancel'::text, ARRAY[n]), array_fill(error, ARRAY[n])) e
            WHERE e.status IS NOT NULL);
        IF cardinality(ended) < n THEN
            -- Its end is refused: back to where it waited. Held by nobody and without its keys it would be taken for one whose lease has expired.
            UPDATE task_lane l
            SET state = b.state, park_reason = b.park_reason, on_key = b.on_key, leased_by = NULL, leased_until = NULL,
                lock_name = b.lock_name, limit_name = b.limit_name
            FROM unnest(before) AS b WHERE l.result_id = ANY (ARRAY[b.result_id]) AND b.result_id <> ALL (ended);
        END IF;
        seized := ended;
        freed := ARRAY(SELECT k.name FROM unnest(before) AS b CROSS JOIN LATERAL (VALUES (b.lock_name), (b.limit_name)) AS k (name)
                       WHERE k.name IS NOT NULL AND b.result_id = ANY (ended));
        IF p_leaves_word THEN
            PERFORM reproq_note_keys(freed);
        ELSE
            PERFORM reproq_free_keys(freed);
        END IF;
    END IF;
    IF NOT p_leaves_word THEN
        PERFORM reproq_settle_flows(1000);
    END IF;
    held := ARRAY(SELECT l.result_id FROM task_lane l WHERE l.result_id = ANY (p_ids) AND l.result_id <> ALL (seized));
    -- Not a second wish for the same run: settling looks every second at what others keep locked.
    unwished := ARRAY(SELECT id FROM unnest(held) AS u (id) WHERE NOT EXISTS (SELECT FROM reproq_cancel_requests c WHERE c.result_id = id));
    IF cardinality(unwished) > 0 THEN
        PERFORM reproq_wish_cancel(unwished);
    END IF;
    RETURN QUERY
    SELECT u.id,
           CASE WHEN u.id = ANY (seized) THEN 'cancelled'
                WHEN u.id = ANY (held) THEN 'requested'
                WHEN r.result_id IS NULL THEN 'unknown'
                ELSE 'ended' END
    FROM unnest(p_ids) WITH ORDINALITY AS u (id, n) LEFT JOIN task_runs r ON r.result_id = ANY (ARRAY[u.id])
    ORDER BY u.n;
END
$$;

-- Deals with wishes that no holder will see: drops those of ended runs, cancels those of runs that wait again. Returns how many were
-- cancelled.
--
-- It looks at the wishes one by one, and from there at the lane: asked every second, it may not read the lane as a whole because a plan was
-- made while that was small.
CREATE OR REPLACE FUNCTION reproq_settle_wishes(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    n integer := 0;
    waiting bigint[];
BEGIN
    IF EXISTS (SELECT FROM reproq_coexistence) THEN
        PERFORM reproq_tell_older(p_limit);
    END IF;
    DELETE FROM reproq_cancel_requests c
    WHERE c.requested_at < now() - interval '5 s' AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = ANY (ARRAY[c.result_id]));
    waiting := ARRAY(SELECT c.result_id
                     FROM (SELECT DISTINCT result_id FROM reproq_cancel_requests OFFSET 0) c
                     CROSS JOIN LATERAL (SELECT FROM task_lane l WHERE l.result_id = c.result_id AND l.state <> 'running' OFFSET 0) l
                     LIMIT p_limit);
    IF cardinality(waiting) > 0 THEN
        SELECT count(*) INTO n FROM reproq_cancel(waiting) x WHERE x.outcome = 'cancelled';
    END IF;
    RETURN n;
END
$$;

-- The invariant, for records with an id above p_after, in one snapshot: a record has not ended exactly when it has a lane row.
CREATE OR REPLACE FUNCTION reproq_check_invariant(p_after bigint) RETURNS TABLE (result_id bigint, fault text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT r.result_id, 'no lane row'
    FROM task_runs r
    WHERE r.result_id > p_after AND r.status IN ('READY', 'RUNNING', 'WAITING')
      AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = r.result_id)
    UNION ALL
    SELECT l.result_id, 'lane row of a run that has ended'
    FROM task_lane l
    LEFT JOIN task_runs r ON r.result_id = l.result_id
    WHERE l.result_id > p_after AND (r.result_id IS NULL OR r.status NOT IN ('READY', 'RUNNING', 'WAITING'))
$$;

-- Repairs the invariant for the next p_limit records after p_after. Returns how many rows were made and removed, and where to go on (NULL =
-- done). Failed runs that say no time, as older programs leave them, get one: failures are listed by it.
CREATE OR REPLACE FUNCTION reproq_repair(p_after bigint, p_limit integer, OUT made integer, OUT removed integer, OUT next_after bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    upto bigint;
    run task_runs;
BEGIN
    made := 0;
    removed := 0;
    SELECT max(x.result_id) INTO upto
    FROM (SELECT r.result_id FROM task_runs r WHERE r.result_id > p_after ORDER BY r.result_id LIMIT p_limit) x;
    -- The record is locked and looked at again: between the two looks it may have ended.
    FOR run IN
        SELECT r.* FROM task_runs r
        WHERE r.result_id > p_after AND r.result_id <= upto AND r.status IN ('READY', 'RUNNING', 'WAITING')
          AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = r.result_id)
        ORDER BY r.result_id FOR UPDATE SKIP LOCKED
    LOOP
        IF NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = run.result_id) THEN
            PERFORM reproq_lane_insert(run);
            made := made + 1;
        END IF;
    END LOOP;
    WITH orphans AS MATERIALIZED (
        SELECT l.result_id FROM task_lane l
        WHERE l.result_id > p_after AND (upto IS NULL OR l.result_id <= upto)
          AND NOT EXISTS (SELECT FROM task_runs r WHERE r.result_id = l.result_id AND r.status IN ('READY', 'RUNNING', 'WAITING'))
        ORDER BY l.result_id FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM task_lane l USING orphans o WHERE l.result_id = o.result_id RETURNING 1)
    SELECT count(*) INTO removed FROM gone;
    WITH unstamped AS MATERIALIZED (
        SELECT r.result_id FROM task_runs r
        WHERE r.result_id > p_after AND r.result_id <= upto AND r.status = 'FAILED' AND r.failed_at IS NULL
        ORDER BY r.result_id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE task_runs r SET failed_at = coalesce(r.finished_at, r.updated_at), rev = r.rev + 1
    FROM unstamped u WHERE r.result_id = u.result_id;
    next_after := upto;
END
$$;

-- Gives the next p_limit waiting runs of a queue (by id, after p_after) the order key of its present aging. Returns where to go on (NULL =
-- done). Until all are done the order of old and new keys is approximate; runs that are locked at the moment get theirs in a later round.
CREATE OR REPLACE FUNCTION reproq_rekey(p_queue text, p_after bigint, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    aging_s double precision := coalesce((SELECT s.priority_aging_s FROM reproq_queue_settings s WHERE s.queue_name = p_queue), 60);
    upto bigint;
BEGIN
    SELECT max(x.result_id) INTO upto
    FROM (SELECT l.result_id FROM task_lane l WHERE l.result_id > p_after ORDER BY l.result_id LIMIT p_limit) x;
    WITH picked AS MATERIALIZED (
        SELECT l.result_id FROM task_lane l
        WHERE l.result_id > p_after AND l.result_id <= upto AND l.queue_name = p_queue AND l.state <> 'running'
        ORDER BY l.result_id FOR UPDATE SKIP LOCKED),
    moved AS (
        UPDATE task_lane l SET order_key = reproq_order_key(l.due_at, l.priority, aging_s)
        FROM picked p
        WHERE l.result_id = ANY (ARRAY[p.result_id]) AND l.order_key IS DISTINCT FROM reproq_order_key(l.due_at, l.priority, aging_s)
        RETURNING l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id)
    -- Who waits for a key may stand before its floor now, or before one that is noted at this moment: the word says its place.
    INSERT INTO reproq_key_arrivals (key, queue_name, order_key, due_at, result_id)
    SELECT DISTINCT ON (m.on_key) m.on_key, m.queue_name, m.order_key, m.due_at, m.result_id
    FROM moved m WHERE m.on_key NOT LIKE 'rate:%'
    ORDER BY m.on_key, m.order_key, m.due_at, m.result_id;
    RETURN upto;
END
$$;
