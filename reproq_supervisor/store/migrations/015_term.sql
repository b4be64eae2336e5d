-- The keeper's term: of all keepers of a database one acts, until its term ends or it resigns.
-- revision: 3
-- locks: none.
--
-- The row says who keeps and until when. A duty holds the term's lock shared while it runs (an advisory lock of the transaction, so that it
-- costs no write and passes a transaction pooler); an election needs it alone, and tries instead of waiting. So nothing of an older term is
-- still under way when a new one begins.

CREATE TABLE IF NOT EXISTS reproq_keeper_term (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    term_no bigint NOT NULL,
    holder text NOT NULL,
    backend_pid integer,
    since timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);

CREATE OR REPLACE FUNCTION reproq_term_lock() RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT hashtextextended('reproq keeper ' || current_schema(), 0)
$$;

-- Renews the term of p_holder, or begins one if nobody keeps; then says who keeps. left_s: until that term ends; 0 when it has, and a duty of
-- it is still under way. p_backend: the server process of the holder's connection, NULL when it has none of its own: a holder whose
-- server process has ended can do nothing more, so nobody need wait for the end of its term.
--
-- A term that ended while nobody looked goes on when its holder renews it: nobody else was elected, the number is the same.
CREATE OR REPLACE FUNCTION reproq_elect(
    p_holder text, p_length_s double precision, p_backend integer,
    OUT term_no bigint, OUT holder text, OUT since timestamptz, OUT left_s double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    term reproq_keeper_term;
    clock timestamptz := clock_timestamp();
BEGIN
    -- A server that crashes may forget this: then somebody begins a term of the same number, and the fence looks at the holder, too.
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE reproq_keeper_term t SET ends_at = clock + p_length_s * interval '1 s', backend_pid = p_backend
    WHERE t.holder = p_holder RETURNING t.* INTO term;
    IF NOT FOUND THEN
        SELECT t.* INTO term FROM reproq_keeper_term t;
        IF (NOT FOUND OR reproq_term_is_vacant(term)) AND pg_try_advisory_xact_lock(reproq_term_lock()) THEN
            -- It begins when the last one has ended, not when this was asked for.
            clock := clock_timestamp();
            INSERT INTO reproq_keeper_term AS t (term_no, holder, backend_pid, since, ends_at)
            VALUES (1, p_holder, p_backend, clock, clock + p_length_s * interval '1 s')
            ON CONFLICT (is_only) DO UPDATE
            SET term_no = t.term_no + 1, holder = excluded.holder, backend_pid = excluded.backend_pid, since = excluded.since, ends_at = excluded.ends_at
            WHERE reproq_term_is_vacant(t);
            SELECT t.* INTO term FROM reproq_keeper_term t;
        END IF;
    END IF;
    term_no := term.term_no;
    holder := term.holder;
    since := term.since;
    left_s := greatest(extract(epoch FROM term.ends_at - clock_timestamp())::double precision, 0);
END
$$;

-- No term is nearly as long as a minute: one that ends later than that was renewed before the clock was set back, and by a holder that is gone,
-- since it would have renewed it by the clock that there is.
CREATE OR REPLACE FUNCTION reproq_term_is_vacant(p_term reproq_keeper_term) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT p_term.ends_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 min'
        OR (p_term.backend_pid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = p_term.backend_pid))
$$;

-- Ends the term of p_holder, if it still has it.
CREATE OR REPLACE FUNCTION reproq_resign(p_holder text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    UPDATE reproq_keeper_term t SET ends_at = clock_timestamp(), holder = '', backend_pid = NULL WHERE t.holder = p_holder
$$;

-- Returns p_value while this term lasts, and keeps it from being followed by another one before this transaction ends; else RQ001. A duty's
-- statement takes an argument through it, so that nothing of the duty happens before. Without a term (NULL) nothing is asked.
CREATE OR REPLACE FUNCTION reproq_under_term(p_term_no bigint, p_holder text, p_value anyelement) RETURNS anyelement
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF p_term_no IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(reproq_term_lock());
        PERFORM FROM reproq_keeper_term t
        WHERE t.term_no = p_term_no AND t.holder = p_holder AND t.ends_at > clock_timestamp();
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the keeper''s term % is over', p_term_no USING ERRCODE = 'RQ001';
        END IF;
    END IF;
    RETURN p_value;
END
$$;
