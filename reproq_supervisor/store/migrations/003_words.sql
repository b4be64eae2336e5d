-- Small functions that give one meaning to one word; the larger ones are made of these.
-- revision: 10
-- locks: none.
--
-- Those that take only values are plain SQL, which the planner puts in place of the call. It does so only if the function is declared no
-- stricter than what it uses (extract, to_char and jsonb_build_* are STABLE) and if no argument that is used twice costs anything: hence
-- some STABLE below, and callers that pass columns and variables. A call that stays a call costs 5 to 10 us a row.

-- Within the years that every client can read: `infinity` is a legal time, but no arithmetic of PostgreSQL 15 and 16 takes it.
CREATE OR REPLACE FUNCTION reproq_due_at(enqueued_at timestamptz, run_after timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT least(greatest(enqueued_at, run_after, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-30 00:00+00')
$$;

-- A number of attempts as others may write it, within what can be counted on: below zero and at the end of the type there is no next one.
CREATE OR REPLACE FUNCTION reproq_attempts(attempts integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT least(greatest(attempts, 0), 1000000000) $$;

-- Smaller runs first. With aging the order of two waiting runs never changes, because both age at the same pace: so it can be a stored key.
CREATE OR REPLACE FUNCTION reproq_order_key(due_at timestamptz, priority integer, aging_s double precision) RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN aging_s > 0 THEN extract(epoch FROM due_at)::double precision - priority * aging_s
                ELSE -priority::double precision END
$$;

-- Where a new or changed run belongs.
DROP FUNCTION IF EXISTS reproq_lane_state(text, timestamptz, boolean, timestamptz);
CREATE OR REPLACE FUNCTION reproq_lane_state(status text, run_after timestamptz, clock timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status = 'RUNNING' THEN 'running'
                WHEN status = 'WAITING' THEN 'waiting'
                WHEN run_after > clock THEN 'parked'
                ELSE 'ready' END
$$;

CREATE OR REPLACE FUNCTION reproq_wants_key(lock_key text, concurrency_key text, concurrency_limit integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(lock_key, '') <> '' OR (coalesce(concurrency_key, '') <> '' AND concurrency_limit > 0)
$$;

-- The rate that applies to this task, NULL for none. The first row that exists decides: task, queue, global; rate 0 there means free.
CREATE OR REPLACE FUNCTION reproq_rate_of(task_path text, queue_name text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN first.tokens_per_second > 0 AND first.burst_size > 0 THEN first.key END
    FROM (SELECT r.key, r.tokens_per_second, r.burst_size
          FROM rate_limits r
          WHERE r.key IN ('task:' || task_path, 'queue:' || queue_name, 'global')
          ORDER BY CASE left(r.key, 5) WHEN 'task:' THEN 1 WHEN 'queue' THEN 2 ELSE 3 END
          LIMIT 1) first
$$;

-- Of runs of one queue: their ids, NULL in place of each that no rate can concern; NULL alone if that is so of all. It is for a claim, which asks
-- it wherever anything is limited, so it reads what it must: no record where tasks have no say, and where they have, a task's row once for all
-- its runs.
CREATE OR REPLACE FUNCTION reproq_limited(p_queue text, p_ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    -- What applies to runs whose task has no row of its own, as in reproq_rate_of.
    is_wide CONSTANT boolean := coalesce((SELECT r.tokens_per_second > 0 AND r.burst_size > 0 FROM rate_limits r
                                          WHERE r.key = ANY (ARRAY['queue:' || p_queue, 'global']) ORDER BY r.key = 'global' LIMIT 1), false);
    -- Tasks that have it otherwise.
    others text[];
    limited bigint[];
BEGIN
    IF EXISTS (SELECT FROM rate_limits r WHERE r.key LIKE 'task:%' AND (r.tokens_per_second > 0 AND r.burst_size > 0) <> is_wide) THEN
        others := (SELECT array_agg(d.task_path)
                   FROM (SELECT DISTINCT t.task_path FROM task_runs t WHERE t.result_id = ANY (p_ids)) d
                   JOIN rate_limits r ON r.key = ANY (ARRAY['task:' || d.task_path])
                   WHERE (r.tokens_per_second > 0 AND r.burst_size > 0) <> is_wide);
    END IF;
    IF others IS NULL THEN
        RETURN CASE WHEN is_wide THEN p_ids END;
    END IF;
    limited := ARRAY(SELECT CASE WHEN coalesce(t.task_path = ANY (others), false) <> is_wide THEN u.id END
                     FROM unnest(p_ids) WITH ORDINALITY AS u (id, n)
                     LEFT JOIN LATERAL (SELECT r.task_path FROM task_runs r WHERE r.result_id = u.id OFFSET 0) t ON true
                     ORDER BY u.n);
    RETURN CASE WHEN array_remove(limited, NULL) <> '{}' THEN limited END;
END
$$;

-- Why a run shall not be run at all but be ended where a claim meets it; NULL: it shall. spec_bytes: see reproq_spec_bytes.
CREATE OR REPLACE FUNCTION reproq_unwanted(expires_at timestamptz, is_cancelled boolean, spec_bytes bigint, clock timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN expires_at <= clock THEN 'expired'
                WHEN is_cancelled THEN 'cancelled'
                WHEN spec_bytes > 1048576 THEN 'too_large' END  -- the contract's limit
$$;

-- Seconds before the attempt after attempt number *attempt*: base_s, doubled with each, up to cap_s, spread by a tenth to either side.
DROP FUNCTION IF EXISTS reproq_retry_delay_s(integer);
CREATE OR REPLACE FUNCTION reproq_retry_delay_s(
    attempt integer, base_s double precision DEFAULT 30, cap_s double precision DEFAULT 3600
) RETURNS double precision
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT least(coalesce(base_s, 30) * 2.0::double precision ^ least(greatest(attempt - 1, 0), 64), coalesce(cap_s, 3600)) * (0.9 + 0.2 * random())
$$;

-- *list* with the one-element array *item* at its end, and never more than *cap* entries: the oldest goes. Anything that is no list counts
-- as empty.
CREATE OR REPLACE FUNCTION reproq_append(list jsonb, item jsonb, cap integer) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN list IS NULL OR jsonb_typeof(list) <> 'array' THEN item
                WHEN jsonb_array_length(list) < cap THEN list || item
                ELSE (list - 0) || item END
$$;

-- The longest beginning of *words* that fits in *bytes* bytes without splitting a character.
CREATE OR REPLACE FUNCTION reproq_cut(words text, bytes integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
DECLARE
    head text := left(words, bytes);
BEGIN
    WHILE octet_length(head) > bytes LOOP
        -- A character has at most four bytes, so this drops at least a quarter of what is too much and never too much.
        head := left(head, length(head) - greatest(1, (octet_length(head) - bytes) / 4));
    END LOOP;
    RETURN head;
END
$$;

-- *words* as jsonb, NULL where PostgreSQL refuses them (broken text, NUL, half a surrogate pair, too deep).
CREATE OR REPLACE FUNCTION reproq_jsonb_or_null(words text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN words::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- What may be told, in a log too, of an error that kept a row from being written: its SQLSTATE, and its words where those are of tables, rights
-- and the server. Others may quote what was to be written.
CREATE OR REPLACE FUNCTION reproq_trouble(state text, words text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    SELECT state || CASE WHEN left(state, 2) IN ('08', '25', '28', '3F', '42', '53', '57', '58') AND state <> '42601'
                         THEN ': ' || reproq_cut(split_part(words, E'\n', 1), 300) ELSE '' END
$$;

-- Where a look at words that others left (table reproq_flow_ends, reproq_key_arrivals: *what*) begins: at the start, as long as that is cheap.
--
-- Words are deleted when they are dealt with, and while somebody holds an old snapshot their dead entries stay, in front of what is left: 30,000
-- of them made a cycle of 14 ms one of 105. So after a dear look this session looks only at the words of its own transaction and of the last
-- second, until twenty times the cost of that look have passed (as store/looks.py does for claims). What that hides, words that were committed late
-- or that nobody could deal with for a second, is found by the next look from the start, its own or the keeper's.
CREATE OR REPLACE FUNCTION reproq_look_since(what text) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN coalesce(nullif(current_setting('reproq.rest_' || what, true), '')::double precision, 0) > extract(epoch FROM clock_timestamp())
                THEN least(transaction_timestamp(), clock_timestamp() - interval '1 s')
                ELSE '-infinity' END
$$;

-- Notes that a look from the start took so long, if it read more than it should have.
CREATE OR REPLACE FUNCTION reproq_note_look(what text, since timestamptz, read_too_much bigint, took interval) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    rest_factor CONSTANT integer := 20;
BEGIN
    IF since = '-infinity' AND read_too_much > 2000 THEN
        PERFORM set_config('reproq.rest_' || what, extract(epoch FROM clock_timestamp() + rest_factor * took)::text, false);
    END IF;
END
$$;

-- The notification channel of this schema; a name of its own for each, and never longer than PostgreSQL takes.
DO $$
DECLARE
    channel text := 'reproq_' || current_schema();
BEGIN
    IF octet_length(channel) > 63 THEN
        channel := 'reproq_' || md5(current_schema());
    END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION reproq_channel() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
                   format('SELECT %L::text', channel));
END
$$;

-- Sooner than the keeper looks by itself for what is due (keeper/keeper.py): such runs are told to those who sleep, who look for themselves.
CREATE OR REPLACE FUNCTION reproq_soon() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT interval '600 ms' $$;

-- Tell whoever sleeps on one of these queues. Silent, and nearly free, when nobody does: one notification a row would halve a producer's
-- rate.
CREATE OR REPLACE FUNCTION reproq_notify_ready(queues text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify(reproq_channel(), 'ready:' || left(i.queue_name, 500))
    FROM reproq_queue_idle i WHERE i.queue_name = ANY (queues) GROUP BY i.queue_name;
END
$$;
