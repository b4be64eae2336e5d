-- Co-existence: an older worker claims, keeps and ends runs by its own statements beside us. On while reproq_coexistence has its row.
-- revision: 3
-- locks: none that anybody waits for.
--
-- Also without it an older worker does no harm: what it may not do is refused (005_others). But it stands still. It chooses by the record
-- alone, always the first run in its own order, and where that is one that we hold while its record still says READY, or one that is parked,
-- it chooses the same one again and again. So, while the mode is on:
--
--   a claim of ours       takes record and lane row together, or neither, and the record says RUNNING in the claim's own commit. What an
--                         older worker has in its hands at that moment is passed over.
--   a claim of theirs     may also start what is parked on a key or a rate, or has become due: what counts is whether there is room now.
--                         It has spent its token by its own statement; if the run is refused it gets that back.
--   the end of a chord    they count members by a counter, we by the rows that remain; so the rows decide whether they may release a callback.
--   a wish to cancel      of a run in their hands is written into the record, where they look for it.
--
-- A record that says RUNNING without leased_until was claimed and has not been seen to run: 007 to 009 know. An older worker's reclaim looks
-- only at leases that have a time.
--
-- What the trigger on older workers' updates asks stands beside it, in 005_others: it may not miss anything while a database is migrated.
--
-- Nobody waits: records and lane rows are taken together without waiting, in whatever order, and older workers never wait for a lane row. They
-- do wait for buckets and for workflow_runs, which we hold only to the end of a cycle that waits for no record longer than 200 ms.

-- The first runs in line after a place that nobody has in his hands, an older worker included; locked, record and lane row.
CREATE OR REPLACE FUNCTION reproq_pick_beside_older(
    p_queue text, p_limit integer, p_after_key double precision, p_after_due timestamptz, p_after_id bigint
) RETURNS TABLE (result_id bigint, order_key double precision, due_at timestamptz, has_keys boolean)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT l.result_id, l.order_key, l.due_at, l.lock_name IS NOT NULL OR l.limit_name IS NOT NULL
    FROM task_lane l
    JOIN task_runs r ON r.result_id = ANY (ARRAY[l.result_id])
    WHERE l.state = 'ready' AND l.queue_name = p_queue AND (l.order_key, l.due_at, l.result_id) > (p_after_key, p_after_due, p_after_id)
    ORDER BY l.order_key, l.due_at, l.result_id
    LIMIT p_limit
    -- The record first: a lane row whose record an older worker has must not be locked, or that one would be refused.
    FOR NO KEY UPDATE OF r SKIP LOCKED FOR UPDATE OF l SKIP LOCKED;
END
$$;

-- Writes into the records of one claim that they run. Those that somebody has locked (the mode has just been switched on) say so later; so do
-- all of them where PostgreSQL refuses one.
CREATE OR REPLACE FUNCTION reproq_show_claimed(p_leased_by text, p_lease_no bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH own AS MATERIALIZED (
        SELECT r.result_id, l.attempts, l.claimed_at
        FROM task_lane l
        JOIN task_runs r ON r.result_id = ANY (ARRAY[l.result_id])
        WHERE l.state = 'running' AND l.lease_no = p_lease_no AND l.leased_by = p_leased_by AND r.status = 'READY'
        ORDER BY l.result_id
        FOR NO KEY UPDATE OF r SKIP LOCKED)
    UPDATE task_runs r
    SET status = 'RUNNING', attempts = o.attempts, last_attempted_at = o.claimed_at, leased_by = p_leased_by, leased_until = NULL,
        updated_at = clock_timestamp(), rev = r.rev + 1
    FROM own o WHERE r.result_id = ANY (ARRAY[o.result_id]);
EXCEPTION WHEN OTHERS OR assert_failure THEN
    RAISE WARNING 'claim %: its records cannot say that they run: %', p_lease_no, SQLERRM;
END
$$;

-- Writes the wishes to cancel runs that an older worker holds into their records. Those that somebody has locked come later.
CREATE OR REPLACE FUNCTION reproq_tell_older(p_limit integer) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    WITH wished AS MATERIALIZED (
        SELECT r.result_id
        FROM (SELECT DISTINCT c.result_id FROM reproq_cancel_requests c) w
        JOIN task_lane l ON l.result_id = ANY (ARRAY[w.result_id])
        JOIN task_runs r ON r.result_id = ANY (ARRAY[w.result_id])
        WHERE l.state = 'running' AND l.lease_no = 0 AND NOT r.cancel_requested
        LIMIT p_limit
        FOR NO KEY UPDATE OF r SKIP LOCKED)
    UPDATE task_runs r SET cancel_requested = true, updated_at = clock_timestamp(), rev = r.rev + 1
    FROM wished w WHERE r.result_id = ANY (ARRAY[w.result_id])
$$;
