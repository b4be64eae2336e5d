-- Rates: tokens are spent at the claim, exactly, by any number of claimers on any number of hosts.
-- revision: 9
-- locks: SHARE ROW EXCLUSIVE on rate_limits while its trigger is made (milliseconds; waits for claims under a limit).
--
-- A limit is a row of rate_limits, a bucket of tokens that fills with time. Only a claim that meets runs under an active limit touches it, so
-- that where none is set no row is shared. The bucket is locked without waiting, like the lock of a key: whoever finds it taken leaves the
-- runs where they are and comes back a moment later. What finds no token is parked on the rate. Nobody has to wake it: time brings the tokens,
-- and every claim, and the keeper, looks whether they have come.
--
-- Which rate applies is decided anew at every claim. A run that is parked on a wide rate when a narrower one is set is found by a review of
-- what is parked: see reproq_rate_reviews.

-- What a bucket holds at this time, never less than nothing and never more than its burst, whatever a hand has written into the row: a cycle
-- that fails over it would stop every queue of its pool. A clock that was set back takes no token away.
CREATE OR REPLACE FUNCTION reproq_level(bucket rate_limits, clock timestamptz) RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT least(bucket.burst_size,
                 CASE WHEN bucket.last_refilled_at > '-infinity' THEN greatest(bucket.current_tokens, 0) ELSE bucket.burst_size END
                 + CASE WHEN bucket.last_refilled_at < clock AND bucket.last_refilled_at > '-infinity'
                        THEN bucket.tokens_per_second * extract(epoch FROM clock - bucket.last_refilled_at) ELSE 0 END)::double precision
$$;

-- The same in whole tokens.
CREATE OR REPLACE FUNCTION reproq_tokens(bucket rate_limits, clock timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT floor(reproq_level(bucket, clock))::integer $$;

-- Of runs that are ready and locked by this transaction, in their order: those for which there is a token, spent here, or which need none.
--   The others are parked. busy: how many were left as they are, since somebody has the bucket at this moment. names: for each of p_ids the
--   rate that applies, NULL for none, as for a run that shall not run: it is only ended. NULL in p_ids stands for a run that needs none either.
--   Which rate a run has is asked once for each task: for each run that was 7 us.
DROP FUNCTION IF EXISTS reproq_spend(bigint[]);
CREATE OR REPLACE FUNCTION reproq_spend(p_ids bigint[], OUT able bigint[], OUT busy integer, OUT names text[])
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    keys text[];
    tokens integer[];
    clock timestamptz := clock_timestamp();
    wishes bigint[] := (SELECT array_agg(c.result_id) FROM reproq_cancel_requests c WHERE c.result_id = ANY (p_ids));
    waiting text[];
BEGIN
    names := ARRAY(
        WITH runs AS MATERIALIZED (
            SELECT u.n, r.queue_name,
                   CASE WHEN reproq_unwanted(r.expires_at, r.cancel_requested OR coalesce(u.id = ANY (wishes), false), r.bytes, clock) IS NULL
                        THEN r.task_path END AS task_path
            FROM unnest(p_ids) WITH ORDINALITY AS u (id, n)
            LEFT JOIN LATERAL (
                SELECT coalesce(t.task_path, '') AS task_path, t.queue_name, t.expires_at, t.cancel_requested,
                       reproq_spec_bytes(t.spec_json) AS bytes
                FROM task_runs t WHERE t.result_id = u.id OFFSET 0) r ON true),
        rates AS MATERIALIZED (
            SELECT d.task_path, d.queue_name, reproq_rate_of(d.task_path, d.queue_name) AS name
            FROM (SELECT DISTINCT r.task_path, r.queue_name FROM runs r WHERE r.task_path IS NOT NULL) d)
        SELECT f.name FROM runs r LEFT JOIN rates f ON f.task_path = r.task_path AND f.queue_name = r.queue_name ORDER BY r.n);
    IF array_remove(names, NULL) = '{}' THEN
        able := p_ids;
        busy := 0;
        RETURN;
    END IF;
    SELECT array_agg(l.key) INTO keys
    FROM (SELECT b.key FROM rate_limits b WHERE b.key = ANY (ARRAY(SELECT DISTINCT n.name FROM unnest(names) AS n (name)))
          FOR UPDATE SKIP LOCKED) l;
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
        SET current_tokens = reproq_level(b, clock) - j.used,
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

-- Gives tokens back that were spent: one for each time that a rate is named.
CREATE OR REPLACE FUNCTION reproq_refund(p_names text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    UPDATE rate_limits b SET current_tokens = least(b.burst_size, b.current_tokens + u.times)
    FROM (SELECT n.name, count(*) AS times FROM unnest(p_names) AS n (name) WHERE n.name IS NOT NULL GROUP BY n.name) u
    WHERE b.key = u.name
$$;

-- Gives back the tokens that runs had spent of which their holder says that they never began: one for each time that a rate is named. It is the
-- rate that applied at their claim, whichever applies now. A bucket that somebody has is waited for no longer than other locks; its tokens are
-- lost then, which is on the safe side.
--   Only on the holder's own word: of what a dead shard had claimed nobody knows that it did not begin.
DROP FUNCTION IF EXISTS reproq_refund_unbegun(bigint[]);
CREATE OR REPLACE FUNCTION reproq_refund_unbegun(p_names text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    -- In order: others may give back to the same ones.
    PERFORM FROM rate_limits b WHERE b.key = ANY (p_names) ORDER BY b.key FOR NO KEY UPDATE;
    PERFORM reproq_refund(p_names);
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$;

-- Wakes who waits for a rate and may find a token now: of each queue the best, as many as there are tokens, and all (a thousand at a time) where
-- the limit is gone. While somebody keeps an old snapshot the look walks over all that was ever woken, so after a dear one this session rests,
-- as with words (003_words): at most a twentieth of its time goes into that.
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
    since timestamptz := reproq_look_since('rates');
    passed bigint := reproq_waiters_read();
    woken integer;
BEGIN
    IF since <> '-infinity' THEN
        RETURN;
    END IF;
    LOOP
        -- Nothing sorts behind the rates. An upper bound would be a matter of collation: with most languages 'rate;' comes before 'rate:'.
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        SELECT * INTO bucket FROM rate_limits b WHERE b.key = substr(name, 6) AND b.tokens_per_second > 0 AND b.burst_size > 0;
        tokens := CASE WHEN bucket.key IS NULL THEN most ELSE reproq_tokens(bucket, clock) END;
        IF tokens < 1 AND bucket.last_refilled_at > clock + interval '1 s' THEN
            -- The clock was set back: nothing would flow into the bucket until it has come there again.
            UPDATE rate_limits b SET last_refilled_at = clock
            WHERE b.key = ANY (ARRAY(SELECT f.key FROM rate_limits f WHERE f.key = bucket.key AND f.last_refilled_at = bucket.last_refilled_at
                                     FOR UPDATE SKIP LOCKED));
        END IF;
        CONTINUE WHEN tokens < 1;
        queue := (SELECT l.queue_name FROM task_lane l WHERE l.on_key = name ORDER BY l.queue_name LIMIT 1);
        WHILE queue IS NOT NULL LOOP
            WITH picked AS MATERIALIZED (
                SELECT l.result_id FROM task_lane l
                WHERE l.on_key = name AND l.queue_name = queue
                ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                LIMIT least(tokens, most) FOR UPDATE SKIP LOCKED)
            UPDATE task_lane l SET state = 'ready', park_reason = NULL, on_key = NULL FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]);
            GET DIAGNOSTICS woken = ROW_COUNT;
            passed := passed + woken;
            queues := queues || queue;
            queue := (SELECT l.queue_name FROM task_lane l WHERE l.on_key = name AND l.queue_name > queue ORDER BY l.queue_name LIMIT 1);
        END LOOP;
    END LOOP;
    PERFORM reproq_note_look('rates', since, reproq_waiters_read() - passed, clock_timestamp() - clock);
    IF cardinality(queues) > 0 THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
END
$$;

-- Seconds until the next token that anybody waits for, NULL when nobody waits; while this session rests, until it looks again.
CREATE OR REPLACE FUNCTION reproq_next_token_s() RETURNS double precision
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    name text := 'rate:';
    wait_s double precision;
    next_s double precision;
BEGIN
    IF reproq_look_since('rates') <> '-infinity' THEN
        RETURN current_setting('reproq.rest_rates')::double precision - extract(epoch FROM clock);
    END IF;
    LOOP
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        SELECT CASE WHEN l.level < 1 THEN (1 - l.level) / b.tokens_per_second ELSE 0 END INTO wait_s
        FROM rate_limits b CROSS JOIN LATERAL (SELECT reproq_level(b, clock) AS level) l
        WHERE b.key = substr(name, 6) AND b.tokens_per_second > 0 AND b.burst_size > 0;
        next_s := least(next_s, greatest(coalesce(wait_s, 0), 0));
    END LOOP;
    RETURN next_s;
END
$$;

-- New limits that may be the first to decide for runs that are parked on a wider one. Each is a walk over all that is parked on rates, in
-- batches, with the place that it has reached.
--   horizon: transactions before it may still park by what they saw before the limit was there, so the last walk begins when all of them
--   have ended. NULL = the first walk has not begun.
CREATE TABLE IF NOT EXISTS reproq_rate_reviews (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text NOT NULL,
    horizon    xid8,
    is_last    boolean NOT NULL DEFAULT false,
    on_key     text NOT NULL DEFAULT 'rate:',
    queue_name text NOT NULL DEFAULT '',
    order_key  double precision NOT NULL DEFAULT '-Infinity',
    due_at     timestamptz NOT NULL DEFAULT '-infinity',
    result_id  bigint NOT NULL DEFAULT 0
);

-- A limit that goes, or becomes 0, needs no review: what is parked on it wakes and is judged again.
CREATE OR REPLACE FUNCTION reproq_rate_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO reproq_rate_reviews (key) VALUES (NEW.key);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER trg_rate_limits_after_insert AFTER INSERT OR UPDATE OF key ON rate_limits FOR EACH ROW
WHEN (NEW.key <> 'global') EXECUTE FUNCTION reproq_rate_after_insert();

-- Looks at the next p_limit runs that are parked on rates, for the oldest new limit: one for which another rate applies is parked on that, or
-- made ready where none does. Returns whether more are left, to be looked at soon. Lines of rates that are no wider than the new one are left out:
-- behind a hundred thousand that wait for a task's tokens every new limit took a tenth of a processor for half a minute.
CREATE OR REPLACE FUNCTION reproq_review_rates(p_limit integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    review reproq_rate_reviews;
    line text;
    snapshot pg_snapshot;
    looked integer;
    missed integer;
    queues text[];
BEGIN
    SELECT * INTO review FROM reproq_rate_reviews r ORDER BY r.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF review.result_id = 0 THEN
        snapshot := pg_current_snapshot();
        review.horizon := coalesce(review.horizon, pg_snapshot_xmax(snapshot));
        review.is_last := pg_snapshot_xmin(snapshot) >= review.horizon;
    END IF;
    line := (SELECT l.on_key FROM task_lane l
             WHERE l.on_key IS NOT NULL AND (l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id)
                   > (review.on_key, review.queue_name, review.order_key, review.due_at, review.result_id)
             ORDER BY l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id
             LIMIT 1);
    WHILE line LIKE 'rate:task:%' OR (line LIKE 'rate:queue:%' AND review.key LIKE 'queue:%') LOOP
        line := (SELECT l.on_key FROM task_lane l WHERE l.on_key > line ORDER BY l.on_key LIMIT 1);
        review.on_key := line;
        review.queue_name := '';  -- no queue has that name
    END LOOP;
    WITH seen AS MATERIALIZED (
        SELECT l.result_id, l.on_key, l.queue_name, l.order_key, l.due_at
        FROM task_lane l
        WHERE l.on_key IS NOT NULL AND (l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id)
              > (review.on_key, review.queue_name, review.order_key, review.due_at, review.result_id)
        ORDER BY l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id
        LIMIT p_limit),
    runs AS MATERIALIZED (
        SELECT s.result_id, s.on_key, coalesce(r.task_path, '') AS task_path, r.queue_name
        FROM seen s JOIN task_runs r ON r.result_id = ANY (ARRAY[s.result_id])),
    rates AS MATERIALIZED (
        SELECT d.task_path, d.queue_name, 'rate:' || reproq_rate_of(d.task_path, d.queue_name) AS belongs
        FROM (SELECT DISTINCT r.task_path, r.queue_name FROM runs r) d),
    misplaced AS MATERIALIZED (
        SELECT r.result_id, r.on_key, f.belongs
        FROM runs r JOIN rates f ON f.task_path = r.task_path AND f.queue_name = r.queue_name
        WHERE f.belongs IS DISTINCT FROM r.on_key),
    picked AS MATERIALIZED (
        SELECT m.result_id, m.belongs FROM misplaced m JOIN task_lane l ON l.result_id = ANY (ARRAY[m.result_id]) AND l.on_key = m.on_key
        FOR UPDATE OF l SKIP LOCKED),
    moved AS (
        UPDATE task_lane l
        SET state = CASE WHEN p.belongs IS NULL THEN 'ready' ELSE 'parked' END, park_reason = CASE WHEN p.belongs IS NOT NULL THEN 'rate' END,
            on_key = p.belongs
        FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id])
        RETURNING l.queue_name, l.on_key)
    SELECT (SELECT count(*) FROM seen), (SELECT count(*) FROM misplaced) - (SELECT count(*) FROM moved),
           (SELECT array_agg(DISTINCT m.queue_name) FROM moved m WHERE m.on_key IS NULL), e.on_key, e.queue_name, e.order_key, e.due_at, e.result_id
    INTO looked, missed, queues, review.on_key, review.queue_name, review.order_key, review.due_at, review.result_id
    FROM (SELECT) one LEFT JOIN (SELECT * FROM seen s ORDER BY s.on_key DESC, s.queue_name DESC, s.order_key DESC, s.due_at DESC, s.result_id DESC
                                 LIMIT 1) e ON true;
    review.is_last := review.is_last AND missed = 0;
    IF looked = p_limit THEN
        UPDATE reproq_rate_reviews r
        SET horizon = review.horizon, is_last = review.is_last, on_key = review.on_key, queue_name = review.queue_name,
            order_key = review.order_key, due_at = review.due_at, result_id = review.result_id
        WHERE r.id = review.id;
    ELSIF review.is_last THEN
        DELETE FROM reproq_rate_reviews r WHERE r.id = review.id;
    ELSE
        -- From the start, when those who may have parked by older knowledge, or have something locked, are gone; behind the others.
        DELETE FROM reproq_rate_reviews r WHERE r.id = review.id;
        INSERT INTO reproq_rate_reviews (key, horizon) VALUES (review.key, review.horizon);
    END IF;
    IF queues IS NOT NULL THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
    RETURN looked = p_limit OR EXISTS (SELECT FROM reproq_rate_reviews r WHERE r.horizon IS NULL OR review.is_last);
END
$$;
