-- How much work there is for those who decide how many processes do it.
-- revision: 1
-- locks: none while migrating.

-- How many runs are ready in these queues, counted from the places where claims begin and up to p_most; and how many workers serve any of
-- them, this one included. A paused queue has nothing for anybody.
CREATE OR REPLACE FUNCTION reproq_load(
    p_worker_id text, p_queues text[], p_after_keys double precision[], p_after_dues timestamptz[], p_after_ids bigint[], p_most bigint,
    OUT waiting bigint, OUT workers bigint
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    found bigint;
BEGIN
    waiting := 0;
    FOR i IN 1 .. cardinality(p_queues) LOOP
        CONTINUE WHEN EXISTS (SELECT FROM reproq_queue_controls c WHERE c.queue_name = p_queues[i] AND c.paused);
        SELECT count(*) INTO found
        FROM (SELECT FROM task_lane l
              WHERE l.state = 'ready' AND l.queue_name = p_queues[i]
                AND (l.order_key, l.due_at, l.result_id)
                    > (coalesce(p_after_keys[i], '-Infinity'), coalesce(p_after_dues[i], '-infinity'), coalesce(p_after_ids[i], 0))
              ORDER BY l.order_key, l.due_at, l.result_id
              LIMIT p_most - waiting) l;
        waiting := waiting + found;
        EXIT WHEN waiting >= p_most;
    END LOOP;
    -- A worker announces itself every half minute.
    SELECT count(*) + 1 INTO workers
    FROM reproq_workers w
    WHERE w.worker_id <> p_worker_id AND w.last_seen_at > now() - interval '90 s' AND w.queues ?| p_queues;
END
$$;
