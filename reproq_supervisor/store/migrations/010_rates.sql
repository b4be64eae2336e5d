-- Rates: tokens are spent at the claim, exactly, by any number of claimers on any number of hosts.
-- revision: 2
-- locks: none while migrating.
--
-- A limit is a row of rate_limits, a bucket of tokens that fills with time. Only a claim that meets runs under an active limit touches it, so
-- that where none is set no row is shared. The bucket is locked without waiting, like the lock of a key: whoever finds it taken leaves the
-- runs where they are and comes back a moment later. What finds no token is parked on the rate. Nobody has to wake it: time brings the tokens,
-- and every claim, and the keeper, looks whether they have come.

-- Of runs that are ready and locked by this transaction, in their order: those for which there is a token, spent here, or which need none.
--   The others are parked. busy: how many were left as they are, since somebody has the bucket at this moment.
CREATE OR REPLACE FUNCTION reproq_spend(p_ids bigint[], OUT able bigint[], OUT busy integer)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    names text[];
    keys text[];
    tokens integer[];
    clock timestamptz;
    waiting text[];
BEGIN
    -- Of each run, in its order, the rate that applies.
    names := ARRAY(SELECT reproq_rate_of(r.task_path, r.queue_name)
                   FROM unnest(p_ids) WITH ORDINALITY AS u (id, n) LEFT JOIN task_runs r ON r.result_id = ANY (ARRAY[u.id]) ORDER BY u.n);
    SELECT array_agg(l.key) INTO keys
    FROM (SELECT b.key FROM rate_limits b WHERE b.key = ANY (names) FOR UPDATE SKIP LOCKED) l;
    -- After the lock: whoever had it before wrote an earlier time.
    clock := clock_timestamp();
    tokens := ARRAY(SELECT reproq_tokens(b, clock) FROM unnest(keys) WITH ORDINALITY AS u (key, n) JOIN rate_limits b ON b.key = u.key ORDER BY u.n);
    WITH ranked AS MATERIALIZED (
        SELECT u.id, u.n, u.name, array_position(keys, u.name) AS at, row_number() OVER (PARTITION BY u.name ORDER BY u.n) AS rank
        FROM unnest(p_ids, names) WITH ORDINALITY AS u (id, name, n)),
    judged AS MATERIALIZED (
        SELECT r.*, CASE WHEN r.name IS NULL OR r.rank <= tokens[r.at] THEN 'able' WHEN r.at IS NULL THEN 'busy' ELSE 'late' END AS fate
        FROM ranked r),
    spent AS (
        UPDATE rate_limits b
        SET current_tokens = least(b.burst_size, b.current_tokens + b.tokens_per_second * extract(epoch FROM clock - b.last_refilled_at)) - j.used,
            last_refilled_at = clock
        FROM (SELECT name, count(*) AS used FROM judged WHERE fate = 'able' AND name IS NOT NULL GROUP BY name) j
        WHERE b.key = j.name),
    late AS (
        UPDATE task_lane l SET state = 'parked', park_reason = 'rate', on_key = 'rate:' || j.name
        FROM judged j WHERE j.fate = 'late' AND l.result_id = ANY (ARRAY[j.id])
        RETURNING l.lock_name, l.limit_name)
    SELECT coalesce((SELECT array_agg(j.id ORDER BY j.n) FROM judged j WHERE j.fate = 'able'), '{}'),
           (SELECT count(*) FROM judged j WHERE j.fate = 'busy'),
           (SELECT array_agg(k.name) FROM late CROSS JOIN LATERAL (VALUES (late.lock_name), (late.limit_name)) AS k (name))
    INTO able, busy, waiting;
    -- One that was woken for a key and finds no token has used nothing of the key.
    PERFORM reproq_note_keys(waiting);
END
$$;

-- Whole tokens in a bucket at this time.
CREATE OR REPLACE FUNCTION reproq_tokens(bucket rate_limits, clock timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT floor(least(bucket.burst_size, bucket.current_tokens
                       + bucket.tokens_per_second * greatest(extract(epoch FROM clock - bucket.last_refilled_at), 0)))::integer
$$;

-- Wakes who waits for a rate and may find a token now: of each queue the best, as many as there are tokens, and all (a thousand at a time) where
-- the limit is gone.
CREATE OR REPLACE FUNCTION reproq_wake_throttled() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    most CONSTANT integer := 1000;
    clock timestamptz := clock_timestamp();
    name text := 'rate:';
    queue text;
    bucket rate_limits;
    tokens integer;
    queues text[] := '{}';
BEGIN
    LOOP
        -- Nothing sorts behind the rates. An upper bound would be a matter of collation: with most languages 'rate;' comes before 'rate:'.
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        SELECT * INTO bucket FROM rate_limits b WHERE b.key = substr(name, 6) AND b.tokens_per_second > 0 AND b.burst_size > 0;
        tokens := CASE WHEN bucket.key IS NULL THEN most ELSE reproq_tokens(bucket, clock) END;
        CONTINUE WHEN tokens < 1;
        queue := (SELECT l.queue_name FROM task_lane l WHERE l.on_key = name ORDER BY l.queue_name LIMIT 1);
        WHILE queue IS NOT NULL LOOP
            WITH picked AS MATERIALIZED (
                SELECT l.result_id FROM task_lane l
                WHERE l.on_key = name AND l.queue_name = queue
                ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                LIMIT least(tokens, most) FOR UPDATE SKIP LOCKED)
            UPDATE task_lane l SET state = 'ready', park_reason = NULL, on_key = NULL FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]);
            queues := queues || queue;
            queue := (SELECT l.queue_name FROM task_lane l WHERE l.on_key = name AND l.queue_name > queue ORDER BY l.queue_name LIMIT 1);
        END LOOP;
    END LOOP;
    IF cardinality(queues) > 0 THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
END
$$;

-- Seconds until the next token that anybody waits for, NULL when nobody waits.
CREATE OR REPLACE FUNCTION reproq_next_token_s() RETURNS double precision
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    name text := 'rate:';
    wait_s double precision;
    next_s double precision;
BEGIN
    LOOP
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        SELECT (1 - b.current_tokens) / b.tokens_per_second - extract(epoch FROM clock - b.last_refilled_at) INTO wait_s
        FROM rate_limits b WHERE b.key = substr(name, 6) AND b.tokens_per_second > 0 AND b.burst_size > 0;
        next_s := least(next_s, greatest(coalesce(wait_s, 0), 0));
    END LOOP;
    RETURN next_s;
END
$$;
