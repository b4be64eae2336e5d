-- Keys: never more runs of one lock_key than one, nor of one concurrency_key than its limit, under any number of claimers.
-- revision: 13
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
    ADD COLUMN IF NOT EXISTS on_key text,         -- which of the two it waits for, or 'rate:' and the key of a rate limit
    -- Drawn by whoever admits it, under the locks of its keys; the largest number where somebody else started it, without them.
    ADD COLUMN IF NOT EXISTS hold_no bigint NOT NULL DEFAULT 9223372036854775807,
    ADD COLUMN IF NOT EXISTS paid_rate text;      -- whose token its last claim spent, NULL for none

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
-- The first place in line of those who came to wait, without its lock; NULL where nobody did.
ALTER TABLE reproq_key_arrivals
    ADD COLUMN IF NOT EXISTS queue_name text,
    ADD COLUMN IF NOT EXISTS order_key double precision,
    ADD COLUMN IF NOT EXISTS due_at timestamptz,
    ADD COLUMN IF NOT EXISTS result_id bigint;
CREATE INDEX IF NOT EXISTS reproq_key_arrivals_left ON reproq_key_arrivals (left_at, id);
DROP INDEX IF EXISTS reproq_key_arrivals_key;

-- While somebody keeps an old snapshot, every holder and every waiter of a key leaves a dead entry behind, and looks from the start walk over
-- all of them. So after a look that was dear the next ones begin where the first living entry was. Without these rows, or with old ones, a
-- look is only dearer. Both are written under the key's lock. Unlogged: a crash or a replica forgets them, which must not know more than its
-- sequence does.
--
-- Of the holders: those with a smaller hold_no have ended, and none will ever come, since the numbers are drawn under the key's lock.
CREATE UNLOGGED TABLE IF NOT EXISTS reproq_key_floors (
    key      text PRIMARY KEY,
    hold_no  bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Of the waiters of a queue: nobody stands before this place. Whoever parks a run before it under the lock moves it back, and who parks without
-- the lock leaves word of the place; until that is settled the run is not looked at, as ever.
CREATE UNLOGGED TABLE IF NOT EXISTS reproq_line_floors (
    key        text,
    queue_name text,
    order_key  double precision NOT NULL,
    due_at     timestamptz NOT NULL,
    result_id  bigint NOT NULL,
    PRIMARY KEY (key, queue_name)
) WITH (fillfactor = 50);

-- How many dead entries make a look dear, beside some for each key.
CREATE OR REPLACE FUNCTION reproq_dear_look() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 1000 $$;

-- How many entries of waiters this transaction has read.
CREATE OR REPLACE FUNCTION reproq_waiters_read() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT coalesce(pg_stat_get_xact_tuples_returned(to_regclass('task_lane_on_key')), 0) $$;

-- How many entries of holders this transaction has read.
CREATE OR REPLACE FUNCTION reproq_holders_read() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(pg_stat_get_xact_tuples_returned(to_regclass('task_lane_lock_holds')), 0)
           + coalesce(pg_stat_get_xact_tuples_returned(to_regclass('task_lane_limit_holds')), 0)
$$;

-- Notes where the next looks at these keys begin, whose locks we hold, if the last one read too much: by what it read, not by the clock.
--   Only where every statement sees all that was committed before it: in an older snapshot a holder that lives may not be seen.
CREATE OR REPLACE FUNCTION reproq_note_floors(names text[], read_too_much bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    newest bigint;
BEGIN
    IF read_too_much <= reproq_dear_look() + 20 * cardinality(names) OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    newest := nextval('reproq_lease_seq');
    INSERT INTO reproq_key_floors AS f (key, hold_no)
    SELECT n.name, least(newest, CASE WHEN n.name LIKE 'lock:%'
                                      THEN (SELECT l.hold_no FROM task_lane l
                                            WHERE l.lock_name = n.name AND l.leased_by IS NOT NULL AND l.hold_no >= n.floor
                                            ORDER BY l.hold_no LIMIT 1)
                                      ELSE (SELECT l.hold_no FROM task_lane l
                                            WHERE l.limit_name = n.name AND l.leased_by IS NOT NULL AND l.hold_no >= n.floor
                                            ORDER BY l.hold_no LIMIT 1) END)
    FROM (SELECT u.name, coalesce((SELECT k.hold_no FROM reproq_key_floors k WHERE k.key = u.name), 0) AS floor
          FROM unnest(names) AS u (name) WHERE u.name IS NOT NULL GROUP BY u.name) n
    ON CONFLICT (key) DO UPDATE SET hold_no = greatest(f.hold_no, excluded.hold_no), noted_at = excluded.noted_at;
END
$$;

-- The same for those who wait for these keys in these queues; a line of which nobody is left begins behind all.
CREATE OR REPLACE FUNCTION reproq_note_lines(names text[], queues text[], read_too_much bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    -- Of a line that is looked at from the start a hundred or two who live are read, too.
    IF read_too_much <= reproq_dear_look() + 250 * cardinality(names) OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    INSERT INTO reproq_line_floors AS f (key, queue_name, order_key, due_at, result_id)
    SELECT n.name, n.queue, coalesce(w.order_key, 'Infinity'), coalesce(w.due_at, 'infinity'), coalesce(w.result_id, 9223372036854775807)
    FROM (SELECT u.name, u.queue, coalesce(k.order_key, '-Infinity') AS order_key, coalesce(k.due_at, '-infinity') AS due_at,
                 coalesce(k.result_id, 0) AS result_id
          FROM (SELECT DISTINCT d.name, d.queue FROM unnest(names, queues) AS d (name, queue)) u
          LEFT JOIN reproq_line_floors k ON k.key = u.name AND k.queue_name = u.queue OFFSET 0) n
    LEFT JOIN LATERAL (
        SELECT l.order_key, l.due_at, l.result_id FROM task_lane l
        WHERE l.on_key = n.name AND l.queue_name = n.queue AND (l.order_key, l.due_at, l.result_id) >= (n.order_key, n.due_at, n.result_id)
        ORDER BY l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id LIMIT 1) w ON true
    ON CONFLICT (key, queue_name) DO UPDATE
    SET order_key = excluded.order_key, due_at = excluded.due_at, result_id = excluded.result_id;
END
$$;

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
    line_names text[];
    line_queues text[];
    passed bigint := reproq_holders_read();
    passed_in_line bigint := reproq_waiters_read();
BEGIN
    IF coalesce(cardinality(names), 0) = 0 THEN
        RETURN;
    END IF;
    WITH RECURSIVE lines AS (
        -- From queue to queue; one whose line has a floor is not looked for, but reached by it. (No queue has an empty name.)
        SELECT u.name, u.most, ''::text AS queue FROM unnest(names, most) AS u (name, most)
        UNION ALL
        SELECT s.name, s.most,
               CASE WHEN s.noted IS NULL
                    THEN (SELECT l.queue_name FROM task_lane l WHERE l.on_key = s.name AND l.queue_name > s.queue
                          ORDER BY l.on_key, l.queue_name LIMIT 1)
                    ELSE coalesce((SELECT l.queue_name FROM task_lane l
                                   WHERE l.on_key = s.name AND l.queue_name > s.queue AND l.queue_name < s.noted
                                   ORDER BY l.on_key, l.queue_name LIMIT 1), s.noted) END
        FROM (SELECT n.name, n.most, n.queue,
                     (SELECT f.queue_name FROM reproq_line_floors f WHERE f.key = n.name AND f.queue_name > n.queue
                      ORDER BY f.queue_name LIMIT 1) AS noted
              FROM lines n WHERE n.queue IS NOT NULL OFFSET 0) s),
    counted AS MATERIALIZED (
        SELECT n.name, n.most, n.queue, coalesce(f.order_key, '-Infinity') AS order_key, coalesce(f.due_at, '-infinity') AS due_at,
               coalesce(f.result_id, 0) AS result_id,
               CASE WHEN n.name LIKE 'lock:%'
                    THEN (SELECT count(*) FROM task_lane l
                          WHERE l.lock_name = n.name AND l.leased_by IS NOT NULL
                            AND l.hold_no >= coalesce((SELECT k.hold_no FROM reproq_key_floors k WHERE k.key = n.name), 0))
                    ELSE (SELECT count(*) FROM task_lane l
                          WHERE l.limit_name = n.name AND l.leased_by IS NOT NULL
                            AND l.hold_no >= coalesce((SELECT k.hold_no FROM reproq_key_floors k WHERE k.key = n.name), 0)) END AS used
        FROM lines n LEFT JOIN reproq_line_floors f ON f.key = n.name AND f.queue_name = n.queue
        WHERE n.queue <> ''),
    fitting AS MATERIALIZED (
        SELECT f.result_id, c.name
        FROM counted c
        CROSS JOIN LATERAL (
            SELECT b.result_id
            FROM (SELECT l.result_id, l.queue_name, l.order_key, l.due_at, CASE WHEN l.limit_name = c.name THEN l.limit_size ELSE 1 END AS size
                  FROM task_lane l
                  WHERE l.on_key = c.name AND l.queue_name = c.queue
                    AND (l.order_key, l.due_at, l.result_id) >= (c.order_key, c.due_at, c.result_id)
                  ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                  LIMIT 100) b
            WHERE b.size > c.used
            ORDER BY b.queue_name, b.order_key, b.due_at, b.result_id
            LIMIT coalesce(c.most, (
                SELECT greatest(max(s.size) - c.used, 0)
                FROM (SELECT CASE WHEN l.limit_name = c.name THEN l.limit_size ELSE 1 END AS size
                      FROM task_lane l
                      WHERE l.on_key = c.name AND l.queue_name = c.queue
                        AND (l.order_key, l.due_at, l.result_id) >= (c.order_key, c.due_at, c.result_id)
                      ORDER BY l.queue_name, l.order_key, l.due_at, l.result_id
                      LIMIT 100) s))) f),
    picked AS MATERIALIZED (
        SELECT l.result_id FROM fitting f JOIN task_lane l ON l.result_id = ANY (ARRAY[f.result_id]) AND l.on_key = f.name
        FOR UPDATE OF l SKIP LOCKED),
    up AS (
        UPDATE task_lane l SET state = 'ready', park_reason = NULL, on_key = NULL
        FROM picked p WHERE l.result_id = ANY (ARRAY[p.result_id]) RETURNING l.result_id, l.queue_name)
    SELECT ARRAY(SELECT f.result_id FROM fitting f), ARRAY(SELECT f.name FROM fitting f), array_agg(u.result_id), array_agg(DISTINCT u.queue_name),
           ARRAY(SELECT c.name FROM counted c), ARRAY(SELECT c.queue FROM counted c)
    INTO fits, keys, woken, queues, line_names, line_queues FROM up u;
    PERFORM reproq_note_lines(line_names, line_queues, reproq_waiters_read() - passed_in_line);
    PERFORM reproq_note_floors(names, reproq_holders_read() - passed);
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
        WITH gone AS (DELETE FROM reproq_key_arrivals a WHERE a.id = ANY (words) RETURNING *)
        UPDATE reproq_line_floors f SET order_key = w.order_key, due_at = w.due_at, result_id = w.result_id
        FROM (SELECT DISTINCT ON (g.key, g.queue_name) g.* FROM gone g WHERE g.queue_name IS NOT NULL
              ORDER BY g.key, g.queue_name, g.order_key, g.due_at, g.result_id) w
        WHERE f.key = w.key AND f.queue_name = w.queue_name
          AND (w.order_key, w.due_at, w.result_id) < (f.order_key, f.due_at, f.result_id);
        PERFORM reproq_wake_waiters(names, array_fill(NULL::integer, ARRAY[cardinality(names)]));
    END IF;
    RETURN are_left OR refused <> '{}';
END
$$;

-- Of runs with keys, ready and locked by this transaction, in their order: those that have room for all their keys.
--   The others are parked on the key that is full.
--   busy: how many were left as they are, since somebody has the lock of one of their keys at this moment, or since they have more keys than
--   one claim may lock. hold_no: what those who are admitted get.
DROP FUNCTION IF EXISTS reproq_admit(bigint[]);
CREATE OR REPLACE FUNCTION reproq_admit(p_ids bigint[], OUT admitted bigint[], OUT busy integer, OUT hold_no bigint)
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
    read_before bigint;
    run record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- The count that follows the locks would be of a time before them.
        RAISE 'claims of runs with keys: expected isolation level read committed, got %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'ALTER ROLE … SET default_transaction_isolation = ''read committed''';
    END IF;
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
    read_before := reproq_holders_read();
    -- In a statement after the locks. Counted in place: a call of a function for each would cost as much again.
    used := ARRAY(SELECT CASE WHEN NOT u.has THEN NULL
                              WHEN u.name LIKE 'lock:%'
                              THEN (SELECT count(*)::integer FROM task_lane l
                                    WHERE l.lock_name = u.name AND l.leased_by IS NOT NULL
                                      AND l.hold_no >= coalesce((SELECT k.hold_no FROM reproq_key_floors k WHERE k.key = u.name), 0))
                              ELSE (SELECT count(*)::integer FROM task_lane l
                                    WHERE l.limit_name = u.name AND l.leased_by IS NOT NULL
                                      AND l.hold_no >= coalesce((SELECT k.hold_no FROM reproq_key_floors k WHERE k.key = u.name), 0)) END
                  FROM unnest(names, got) WITH ORDINALITY AS u (name, has, n) ORDER BY u.n);
    PERFORM reproq_note_floors(ARRAY(SELECT u.name FROM unnest(names, got) AS u (name, has) WHERE u.has),
                               reproq_holders_read() - read_before - (SELECT coalesce(sum(u.n), 0) FROM unnest(used) AS u (n)));
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
        UPDATE reproq_line_floors f SET order_key = w.order_key, due_at = w.due_at, result_id = w.result_id
        FROM (SELECT DISTINCT ON (l.on_key, l.queue_name) l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id
              FROM unnest(parked) AS p (id) JOIN task_lane l ON l.result_id = ANY (ARRAY[p.id])
              ORDER BY l.on_key, l.queue_name, l.order_key, l.due_at, l.result_id) w
        WHERE f.key = w.on_key AND f.queue_name = w.queue_name
          AND (w.order_key, w.due_at, w.result_id) < (f.order_key, f.due_at, f.result_id);
        -- A run that was woken for one key and parks on its other one has used nothing of the first: the next in line may.
        SELECT array_agg(p.name), array_agg(p.times) INTO names, used
        FROM (SELECT u.name, count(*)::integer AS times FROM unnest(passed) AS u (name) WHERE u.name IS NOT NULL GROUP BY u.name) p;
        PERFORM reproq_wake_waiters(names, used);
    END IF;
    -- After the locks, and after all looks: until the caller has written it, no look sees who is admitted, and would note that nobody is there.
    hold_no := nextval('reproq_lease_seq');
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
    IF p_after = '' THEN
        -- Of keys that are no longer busy; whose are, has it again after one dear look.
        DELETE FROM reproq_key_floors f
        WHERE f.key = ANY (ARRAY(SELECT k.key FROM reproq_key_floors k WHERE k.noted_at < clock_timestamp() - interval '1 hour'
                                 FOR UPDATE SKIP LOCKED));
    END IF;
    LOOP
        name := (SELECT l.on_key FROM task_lane l WHERE l.on_key > name AND l.on_key < 'rate:' ORDER BY l.on_key LIMIT 1);
        EXIT WHEN name IS NULL;
        names := names || name;
        EXIT WHEN cardinality(names) >= p_limit;
    END LOOP;
    -- A sweep trusts nothing, these least of all.
    DELETE FROM reproq_line_floors f
    WHERE (f.key, f.queue_name) IN (SELECT k.key, k.queue_name FROM reproq_line_floors k
                                    WHERE k.key > p_after AND (name IS NULL OR k.key <= name) FOR UPDATE SKIP LOCKED);
    PERFORM reproq_note_keys(names);
    RETURN name;
END
$$;
