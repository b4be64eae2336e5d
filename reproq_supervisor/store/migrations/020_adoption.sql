-- Brings runs that were there before our triggers into the lane; called for every batch of records, while producers and older workers go on.
-- locks: the records of a batch, for a tenth of a second; those that others have locked are passed over and come later.

-- Takes over the runs with an id above p_after and up to p_upto that have not ended and have no lane row. Of several active runs with one
-- hash (a layout without the unique index lets them in) the oldest owns the key, and all of them run.
--   placed: taken over; doubled: those of them whose key another run owns; passed: still without a lane row, since somebody holds them.
CREATE OR REPLACE FUNCTION reproq_adopt(p_after bigint, p_upto bigint, OUT placed integer, OUT doubled integer, OUT passed integer)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    active CONSTANT text[] := '{READY,RUNNING,WAITING}';
    ids bigint[];
    run task_runs;
BEGIN
    placed := 0;
    doubled := 0;
    ids := ARRAY(SELECT r.result_id FROM task_runs r
                 WHERE r.result_id > p_after AND r.result_id <= p_upto AND r.status = ANY (active)
                   AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = r.result_id)
                 ORDER BY r.result_id FOR UPDATE OF r SKIP LOCKED);

    UPDATE task_runs r SET dedupe_key = k.dedupe_key, rev = r.rev + 1
    FROM (SELECT DISTINCT ON (rtrim(n.spec_hash)) n.result_id, rtrim(n.spec_hash) AS dedupe_key
          FROM task_runs n
          WHERE n.result_id = ANY (ids) AND n.status IN ('READY', 'RUNNING') AND n.dedupe_key IS NULL AND n.spec_hash <> ''
          ORDER BY rtrim(n.spec_hash), n.result_id) k
    WHERE r.result_id = k.result_id AND NOT EXISTS (SELECT FROM task_runs o WHERE o.dedupe_key = k.dedupe_key);

    FOR run IN SELECT r.* FROM task_runs r WHERE r.result_id = ANY (ids) ORDER BY r.result_id LOOP
        IF NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = run.result_id) THEN
            PERFORM reproq_lane_insert(run);
            placed := placed + 1;
            IF run.dedupe_key IS NULL AND run.status <> 'WAITING' THEN
                doubled := doubled + 1;
            END IF;
        END IF;
    END LOOP;

    SELECT count(*) INTO passed FROM task_runs r
    WHERE r.result_id > p_after AND r.result_id <= p_upto AND r.status = ANY (active)
      AND NOT EXISTS (SELECT FROM task_lane l WHERE l.result_id = r.result_id);
END
$$;
