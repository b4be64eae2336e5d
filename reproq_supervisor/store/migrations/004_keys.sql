-- Keys: never more runs of one lock_key than one, nor of one concurrency_key than its limit, under any number of claimers.
-- revision: 10
-- locks: ACCESS EXCLUSIVE on task_lane while columns and checks are added (milliseconds; waits for open cycles).
--
-- A *key* is held by the running rows that name it, and by nothing else: no counter can drift, and no permit gets stuck in a queue that is
-- paused or that nobody serves. Whether there is room is only ever decided, and a run is only ever parked on a key, under that key's lock (an
-- advisory lock of the transaction). It is taken without waiting, so that no claimer waits for another one's commit, no order of locks
-- matters, and nothing deadlocks.
--
--            ┌────── claim: room ──────────────► running ──ended, given back──┐
--   ready ───┤                                                               │ reproq_free_keys: the freed permit wakes the best
--     ▲      └─ claim: full, under the lock ──► parked on the key ◄───────────┘ waiter of each queue, in the commit that frees it
--     └──────────────── woken ─────────────────────┘
--
-- A woken run holds nothing. It stands in line again, and may find that another took the room; then it parks once more. Waiters of every
-- queue are woken, because one that stands in a queue nobody serves must not keep the key from the others.
--
-- Why no waiter is forgotten: a run parks under the lock, on a count made under the lock. Whoever frees the key without getting the lock
-- leaves a row in reproq_key_arrivals, committed with the freeing; it is deleted only under the lock, by a cycle that then counts again in a
-- fresh snapshot. So either the parker saw the room, or the row outlives the parking. The same row announces runs that were parked when they
-- were inserted, which happens without any lock: enqueue waits for nobody.
-- When it fails: a claimer that dies rolls back everything at once. The keeper looks for keys with room and waiters all the same.

ALTER TABLE task_lane
    ADD COLUMN IF NOT EXISTS workflow_id uuid,
    ADD COLUMN IF NOT EXISTS lock_name text,      -- 'lock:' and the record's lock_key
    ADD COLUMN IF NOT EXISTS limit_name text,     -- 'limit:' and its concurrency_key
    ADD COLUMN IF NOT EXISTS limit_size integer,  -- its concurrency_limit
    ADD COLUMN IF NOT EXISTS on_key text;         -- which of the two it waits for, or 'rate:' and the key of a rate limit

ALTER TABLE task_lane DROP CONSTRAINT IF EXISTS task_lane_check;
ALTER TABLE task_lane DROP CONSTRAINT IF EXISTS task_lane_park_reason_check;
ALTER TABLE task_lane DROP CONSTRAINT IF EXISTS task_lane_parked;
ALTER TABLE task_lane ADD CONSTRAINT task_lane_parked CHECK (
    (state = 'parked') = (park_reason IS NOT NULL) AND park_reason IN ('due', 'key', 'rate')
    AND coalesce(park_reason IN ('key', 'rate'), false) = (on_key IS NOT NULL)) NOT VALID;

-- Names of keys. One that is too long for an index would stop every claim that meets it, so its digest stands for it.
CREATE OR REPLACE FUNCTION reproq_lock_name(lock_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(lock_key) > 500 THEN 'lock:md5:' || md5(lock_key) ELSE 'lock:' || nullif(lock_key, '') END
$$;

CREATE OR REPLACE FUNCTION reproq_limit_name(concurrency_key text, concurrency_limit integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN NOT concurrency_limit > 0 THEN NULL
                WHEN octet_length(concurrency_key) > 500 THEN 'limit:md5:' || md5(concurrency_key)
                ELSE 'limit:' || nullif(concurrency_key, '') END
$$;

-- Runs that an earlier version only parked.
UPDATE task_lane l
SET state = CASE WHEN l.due_at <= now() THEN 'ready' ELSE 'parked' END,
    park_reason = CASE WHEN l.due_at > now() THEN 'due' END,
    lock_name = reproq_lock_name(r.lock_key),
    limit_name = reproq_limit_name(r.concurrency_key, r.concurrency_limit),
    limit_size = r.concurrency_limit
FROM task_runs r
WHERE r.result_id = l.result_id AND l.park_reason = 'unsupported';
ALTER TABLE task_lane DROP COLUMN IF EXISTS keys;

-- Runs of workflows that have ended, and what follows from it is not settled yet: see 011_flows.
CREATE TABLE IF NOT EXISTS reproq_flow_ends (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow      text NOT NULL,  -- 'flow:' and the id of the workflow, or 'run:' and that of a run without one
    result_id bigint NOT NULL,
    status    text NOT NULL,
    left_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE reproq_flow_ends ADD COLUMN IF NOT EXISTS left_at timestamptz NOT NULL DEFAULT clock_timestamp();
CREATE INDEX IF NOT EXISTS reproq_flow_ends_left ON reproq_flow_ends (left_at, id);
DROP INDEX IF EXISTS reproq_flow_ends_flow;

-- Leaves word that a run has ended, if it has.
CREATE OR REPLACE FUNCTION reproq_note_end(run_id bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    INSERT INTO reproq_flow_ends (flow, result_id, status)
    SELECT coalesce('flow:' || r.workflow_id, 'run:' || r.result_id), r.result_id, r.status
    FROM task_runs r WHERE r.result_id = run_id AND r.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
$$;

-- Keys to look at again: somebody came to wait, or freed one without its lock. Insert-only for whoever holds no lock.
CREATE TABLE IF NOT EXISTS reproq_key_arrivals (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key     text NOT NULL,
    left_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE reproq_key_arrivals ADD COLUMN IF NOT EXISTS left_at timestamptz NOT NULL DEFAULT clock_timestamp();
CREATE INDEX IF NOT EXISTS reproq_key_arrivals_left ON reproq_key_arrivals (left_at, id);
DROP INDEX IF EXISTS reproq_key_arrivals_key;

DROP FUNCTION IF EXISTS reproq_key_used(text);

-- Takes the locks of these keys without waiting; says of each whether it got it.
CREATE OR REPLACE FUNCTION reproq_lock_keys(names text[]) RETURNS boolean[]
LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(pg_try_advisory_xact_lock(hashtextextended(u.name, 7204)) ORDER BY u.n)
    FROM unnest(names) WITH ORDINALITY AS u (name, n)
$$;

-- Leaves word that these keys want a look; rates need none, since time brings their tokens. Waits for nobody.
CREATE OR REPLACE FUNCTION reproq_note_keys(names text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF array_remove(names, NULL) <> '{}' THEN
        INSERT INTO reproq_key_arrivals (key) SELECT DISTINCT u.name FROM unnest(names) AS u (name) WHERE u.name NOT LIKE 'rate:%';
    END IF;
END
$$;

-- Wakes waiters of keys whose locks we hold: of each queue the best that fit now, at most most[i] of them (NULL = as many as have room).
-- A larger limit of a later waiter counts for it alone: the best hundred of a queue are looked at. One statement for all keys: a cycle frees
-- a hundred of them, and a statement or two for each cost as much again as the whole cycle without keys.
CREATE OR REPLACE FUNCTION reproq_wake_waiters(names text[], most integer[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    fits bigint[];
    keys text[];
    woken bigint[];
    queues text[];
BEGIN
    IF coalesce(cardinality(names), 0) = 0 THEN
        RETURN;
    END IF;
    WITH RECURSIVE lines AS (
        SELECT u.name, u.most, (SELECT l.queue_name FROM task_lane l WHERE l.on_key = u.name ORDER BY l.queue_name LIMIT 1) AS queue
        FROM unnest(names, most) AS u (name, most)
        UNION ALL
        SELECT n.name, n.most,
               (SELECT l.queue_name FROM task_lane l WHERE l.on_key = n.name AND l.queue_name > n.queue ORDER BY l.queue_name LIMIT 1)
        FROM lines n WHERE n.queue IS NOT NULL),
    counted AS MATERIALIZED (
        SELECT n.name, n.most, n.queue,
               CASE WHEN n.name LIKE 'lock:%'
                    THEN (SELECT count(*) FROM task_lane l WHERE l.lock_name = n.name AND l.leased_by IS NOT NULL)
                    ELSE (SELECT count(*) FROM task_lane l WHERE l.limit_name = n.name AND l.leased_by IS NOT NULL) END AS used
        FROM lines n WHERE n.queue IS NOT NULL),
    fitting AS MATERIALIZED (
        SELECT f.result_id, c.name
        FROM counted c
        CROSS JOIN LATERAL (
            SELECT b.result_id
            FROM (SELECT l.result_id, l.queue_name, l.order_key, l.due_at, CASE WHEN l.limit_name = c.name THEN l.limit_size ELSE 1 END AS size
                  FROM task_lane l
                  WHERE l.on_key = c.name AND l.queue_name = c.queue
                  ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                  LIMIT 100) b
            WHERE b.size > c.used
            ORDER BY b.queue_name, b.order_key, b.due_at, b.result_id
            LIMIT coalesce(c.most, (
                SELECT greatest(max(s.size) - c.used, 0)
                FROM (SELECT CASE WHEN l.limit_name = c.name THEN l.limit_size ELSE 1 END AS size
                      FROM task_lane l
                      WHERE l.on_key = c.name AND l.queue_name = c.queue
                      ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                      LIMIT 100) s))) f),
    picked AS MATERIALIZED (
        SELECT l.result_id FROM fitting f JOIN task_lane l ON l.result_id = ANY (ARRAY[f.result_id]) AND l.on_key = f.name
        FOR UPDATE OF l SKIP LOCKED),
    up AS (
        UPDATE task_lane l SET state = 'ready', park_reason = NULL, on_key = NULL
        FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]) RETURNING l.result_id, l.queue_name)
    SELECT ARRAY(SELECT f.result_id FROM fitting f), ARRAY(SELECT f.name FROM fitting f), array_agg(u.result_id), array_agg(DISTINCT u.queue_name)
    INTO fits, keys, woken, queues FROM up u;
    IF cardinality(fits) > coalesce(cardinality(woken), 0) THEN
        -- Somebody has some of them locked, and may put them back as they were.
        PERFORM reproq_note_keys(ARRAY(
            SELECT u.name FROM unnest(fits, keys) AS u (id, name) WHERE u.id <> ALL (coalesce(woken, '{}'))));
    END IF;
    IF queues IS NOT NULL THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
END
$$;

-- These keys have become free, once for each time that they are named: called in the transaction that frees them, after the rows were written.
CREATE OR REPLACE FUNCTION reproq_free_keys(freed text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    most_names CONSTANT integer := 128;  -- as in reproq_admit; word is left of the others
    names text[];
    times integer[];
    got boolean[];
BEGIN
    IF freed = '{}' THEN
        RETURN;
    END IF;
    SELECT array_agg(f.name), array_agg(f.times) INTO names, times
    FROM (SELECT u.name, count(*)::integer AS times FROM unnest(freed) AS u (name) WHERE u.name IS NOT NULL GROUP BY u.name) f;
    got := reproq_lock_keys(names[1:most_names]);
    PERFORM reproq_note_keys(ARRAY(SELECT u.name FROM unnest(names, got) AS u (name, has) WHERE u.has IS NOT TRUE));
    SELECT array_agg(u.name), array_agg(u.n) INTO names, times FROM unnest(names, times, got) AS u (name, n, has) WHERE u.has;
    PERFORM reproq_wake_waiters(names, times);
END
$$;

-- Looks again at up to p_limit of the keys that somebody left word of. Returns whether more may be left, to be looked at soon.
CREATE OR REPLACE FUNCTION reproq_settle_keys(p_limit integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    most_words CONSTANT integer := 5000;
    since timestamptz := reproq_look_since('keys');
    began_at timestamptz := clock_timestamp();
    passed bigint := pg_stat_get_xact_tuples_returned('reproq_key_arrivals_left'::regclass);
    seen integer := 0;
    words bigint[] := '{}';
    names text[] := '{}';
    refused text[] := '{}';
    are_left boolean := false;
    word record;
BEGIN
    -- From word to word, locking: those of a key that somebody keeps locked must not stand before the others.
    FOR word IN SELECT a.id, a.key FROM reproq_key_arrivals a WHERE a.left_at >= since ORDER BY a.left_at, a.id LOOP
        seen := seen + 1;
        IF word.key = ANY (refused) THEN
            CONTINUE;
        ELSIF word.key <> ALL (names) THEN
            IF NOT pg_try_advisory_xact_lock(hashtextextended(word.key, 7204)) THEN
                refused := refused || word.key;
                CONTINUE;
            END IF;
            names := names || word.key;
        END IF;
        words := words || word.id;
        are_left := cardinality(names) >= p_limit OR cardinality(words) >= most_words;
        EXIT WHEN are_left;
    END LOOP;
    PERFORM reproq_note_look('keys', since, pg_stat_get_xact_tuples_returned('reproq_key_arrivals_left'::regclass) - passed - seen,
                             clock_timestamp() - began_at);
    IF words <> '{}' THEN
        -- In a statement after the locks: what was committed before is seen by the counts that follow, what comes later stays.
        DELETE FROM reproq_key_arrivals a WHERE a.id = ANY (words);
        PERFORM reproq_wake_waiters(names, array_fill(NULL::integer, ARRAY[cardinality(names)]));
    END IF;
    RETURN are_left OR refused <> '{}';
END
$$;

-- Of runs with keys, ready and locked by this transaction, in their order: those that have room for all their keys.
--   The others are parked on the key that is full.
--   busy: how many were left as they are, since somebody has the lock of one of their keys at this moment, or since they have more keys than
--   one claim may lock.
CREATE OR REPLACE FUNCTION reproq_admit(p_ids bigint[], OUT admitted bigint[], OUT busy integer)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    most_names CONSTANT integer := 128;  -- all sessions share one table of locks, some thousands of them
    names text[];
    got boolean[];
    used integer[];
    parked bigint[] := '{}';
    parked_on text[] := '{}';
    passed text[] := '{}';
    run record;
BEGIN
    admitted := '{}';
    busy := 0;
    names := ARRAY(SELECT d.name
                   FROM (SELECT k.name, min(u.n) AS n
                         FROM unnest(p_ids) WITH ORDINALITY AS u (id, n)
                         JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id])
                         CROSS JOIN LATERAL (VALUES (l.lock_name), (l.limit_name)) AS k (name)
                         WHERE k.name IS NOT NULL GROUP BY k.name) d
                   ORDER BY d.n LIMIT most_names);
    got := reproq_lock_keys(names);
    -- In a statement after the locks. Counted in place: a call of a function for each would cost as much again.
    used := ARRAY(SELECT CASE WHEN NOT u.has THEN NULL
                              WHEN u.name LIKE 'lock:%'
                              THEN (SELECT count(*)::integer FROM task_lane l WHERE l.lock_name = u.name AND l.leased_by IS NOT NULL)
                              ELSE (SELECT count(*)::integer FROM task_lane l WHERE l.limit_name = u.name AND l.leased_by IS NOT NULL) END
                  FROM unnest(names, got) WITH ORDINALITY AS u (name, has, n) ORDER BY u.n);
    FOR run IN
        SELECT l.result_id, l.lock_name, l.limit_name, l.limit_size, array_position(names, l.lock_name) AS a,
               array_position(names, l.limit_name) AS b
        FROM unnest(p_ids) WITH ORDINALITY AS u (id, n) JOIN task_lane l ON l.result_id = ANY (ARRAY[u.id])
        ORDER BY u.n
    LOOP
        IF (run.lock_name IS NOT NULL AND NOT coalesce(got[run.a], false))
           OR (run.limit_name IS NOT NULL AND NOT coalesce(got[run.b], false)) THEN
            busy := busy + 1;
        ELSIF used[run.a] >= 1 THEN
            parked := parked || run.result_id;
            parked_on := parked_on || run.lock_name;
            passed := passed || run.limit_name;
        ELSIF used[run.b] >= run.limit_size THEN
            parked := parked || run.result_id;
            parked_on := parked_on || run.limit_name;
            passed := passed || run.lock_name;
        ELSE
            admitted := admitted || run.result_id;
            IF run.a IS NOT NULL THEN
                used[run.a] := used[run.a] + 1;
            END IF;
            IF run.b IS NOT NULL THEN
                used[run.b] := used[run.b] + 1;
            END IF;
        END IF;
    END LOOP;
    IF cardinality(parked) > 0 THEN
        UPDATE task_lane l SET state = 'parked', park_reason = 'key', on_key = p.name
        FROM unnest(parked, parked_on) AS p (id, name) WHERE l.result_id = ANY (ARRAY[p.id]);
        -- A run that was woken for one key and parks on its other one has used nothing of the first: the next in line may.
        SELECT array_agg(p.name), array_agg(p.times) INTO names, used
        FROM (SELECT u.name, count(*)::integer AS times FROM unnest(passed) AS u (name) WHERE u.name IS NOT NULL GROUP BY u.name) p;
        PERFORM reproq_wake_waiters(names, used);
    END IF;
END
$$;

-- For the keeper: looks at the next p_limit keys that somebody waits for, after p_after in their order, and wakes who fits. Nothing should be
-- found: it mends what a fault elsewhere, or a hand in the tables, has left behind. Returns where to go on (NULL = done).
CREATE OR REPLACE FUNCTION reproq_sweep_keys(p_after text, p_limit integer) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    names text[] := '{}';
    name text := p_after;
BEGIN
    LOOP
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name AND l.on_key < 'rate:' ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        names := names || name;
        EXIT WHEN cardinality(names) >= p_limit;
    END LOOP;
    PERFORM reproq_note_keys(names);
    RETURN name;
END
$$;
