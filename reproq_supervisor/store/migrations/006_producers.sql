-- Every producer is equal: an insert of any form (plain, bulk, COPY, ON CONFLICT, an older product's) makes the lane rows in the same
-- statement.
-- revision: 15
-- locks: ACCESS EXCLUSIVE on task_runs while a default and the triggers are set (milliseconds; waits for all who use it).
--
-- The lane rows are made per statement, with a transition table: 15 to 19 us a row in bulk against 38 to 46 with a row trigger (11 to 12
-- without any).

-- Fills in what older producers do not name. Our own enqueue names all of it, and the WHEN clause spares it the call.
CREATE OR REPLACE FUNCTION reproq_run_before_insert() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.task_path IS NULL OR NEW.task_path = '' THEN
        NEW.task_path := NEW.spec_json ->> 'task_path';
    END IF;
    IF NEW.status NOT IN ('READY', 'RUNNING') THEN
        NEW.dedupe_key := NULL;
    ELSIF NEW.dedupe_key = '' THEN
        NEW.dedupe_key := nullif(rtrim(NEW.spec_hash), '');
    END IF;
    RETURN NEW;
END
$$;

ALTER TABLE task_runs ALTER COLUMN dedupe_key SET DEFAULT '';

CREATE OR REPLACE TRIGGER trg_task_runs_before_insert BEFORE INSERT ON task_runs FOR EACH ROW
WHEN (NEW.task_path IS NULL OR NEW.task_path = '' OR NEW.dedupe_key = ''
      OR (NEW.dedupe_key IS NOT NULL AND NEW.status NOT IN ('READY', 'RUNNING')))
EXECUTE FUNCTION reproq_run_before_insert();

-- Not under the names of the older products' trigger: their own migrations would take it for theirs and replace it.
CREATE OR REPLACE FUNCTION reproq_run_path_update() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.task_path IS NULL OR NEW.task_path = '' THEN
        NEW.task_path := NEW.spec_json ->> 'task_path';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_path_update BEFORE UPDATE OF spec_json, task_path ON task_runs FOR EACH ROW
EXECUTE FUNCTION reproq_run_path_update();

-- SECURITY DEFINER: a producer needs rights on task_runs only. One plan for all statements: PostgreSQL would make one for each, since whether
-- there are keys and rates is worth much to it, and a single insert took 1,200 us of its processor time, where it takes 200 now.
-- Most such plans are made while nothing waits: by their estimate it cost nothing to read all of the lane, to see who waits for a key, and behind
-- a backlog each run of a bulk did (21 million rows for 300 runs with keys behind 30,000). No scan, then, and = ANY (ARRAY[...]), which cannot be
-- looked up in a hash of the whole lane; and what has no index must not seem so dear for it that it is compiled.
CREATE OR REPLACE FUNCTION reproq_runs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_nestloop = off SET enable_mergejoin = off
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    any_rate boolean;
    any_key boolean;
    all_ready boolean;
    queues text[];
BEGIN
    -- Each statement of a function costs a single insert some 10 us to begin.
    SELECT count(*) FILTER (WHERE lock_key <> '' OR concurrency_key <> '') > 0, count(*) FILTER (WHERE status <> 'READY') = 0,
           EXISTS (SELECT FROM rate_limits WHERE tokens_per_second > 0 AND burst_size > 0)
    INTO any_key, all_ready, any_rate FROM new_runs;
    -- Nearly every statement: no key, no rate. It gets the rows that the statement below would make. That one is large, and to begin it costs
    -- a single insert a quarter of its processor time (300 us against 220); in bulk, where lane and indexes cost most, it is a tenth.
    IF all_ready AND NOT any_key AND NOT any_rate THEN
        INSERT INTO task_lane (result_id, queue_name, state, park_reason, priority, order_key, due_at, attempts, max_attempts, timeout_seconds,
                               workflow_id, limit_size)
        SELECT n.result_id, n.queue_name, reproq_lane_state('READY', n.run_after, clock), CASE WHEN n.run_after > clock THEN 'due' END,
               n.priority, reproq_order_key(n.due_at, n.priority, coalesce(s.priority_aging_s, 60)), n.due_at, reproq_attempts(n.attempts),
               reproq_attempts(n.max_attempts), n.timeout_seconds, n.workflow_id, n.concurrency_limit
        FROM (SELECT new_runs.*, reproq_due_at(enqueued_at, run_after) AS due_at FROM new_runs) n
        LEFT JOIN reproq_queue_settings s ON s.queue_name = n.queue_name;
        -- Read after the insert, in a snapshot of its own, as at the end. Where nobody sleeps, the runs are not looked at again.
        SELECT array_agg(DISTINCT i.queue_name) INTO queues FROM reproq_queue_idle i
        WHERE i.queue_name IN (SELECT n.queue_name FROM new_runs n WHERE n.run_after IS NULL OR n.run_after < clock + reproq_soon());
        IF queues IS NOT NULL THEN
            PERFORM reproq_notify_ready(queues);
        END IF;
        RETURN NULL;
    END IF;
    -- Runs whose key or rate is filled by others of this statement. A bulk of blocked runs must not stand in everybody's way.
    -- Which rate a run is under is asked once for each task and queue, and joined by hash: asked for each run, and there once for each limit that
    -- is set, a thousand limits cost 5 ms a run.
    WITH named AS MATERIALIZED (
        SELECT d.task_path, d.queue_name, reproq_rate_of(d.task_path, d.queue_name) AS key
        FROM (SELECT DISTINCT coalesce(n.task_path, '') AS task_path, n.queue_name FROM new_runs n
              WHERE any_rate AND n.status IN ('READY', 'RUNNING', 'WAITING')) d),
    rates AS MATERIALIZED (
        SELECT n.task_path, n.queue_name, 'rate:' || b.key AS rate_name, b.burst_size,
               EXISTS (SELECT FROM task_lane w WHERE w.on_key = ANY (ARRAY['rate:' || b.key])) AS has_line
        FROM named n JOIN rate_limits b ON b.key = n.key),
    crowd AS MATERIALIZED (
        SELECT r.result_id, CASE WHEN r.lock_name IS NOT NULL AND r.lock_rank > 1 THEN r.lock_name
                                 WHEN r.limit_name IS NOT NULL AND r.limit_rank > r.concurrency_limit THEN r.limit_name
                                 ELSE r.rate_name END AS on_key
        FROM (SELECT k.*, row_number() OVER (PARTITION BY k.lock_name ORDER BY k.due_at, k.result_id) AS lock_rank,
                     row_number() OVER (PARTITION BY k.limit_name ORDER BY k.due_at, k.result_id) AS limit_rank,
                     row_number() OVER (PARTITION BY k.rate_name ORDER BY k.due_at, k.result_id) AS rate_rank
              FROM (SELECT c.result_id, c.concurrency_limit, reproq_due_at(c.enqueued_at, c.run_after) AS due_at,
                           reproq_lock_name(c.lock_key) AS lock_name, reproq_limit_name(c.concurrency_key, c.concurrency_limit) AS limit_name,
                           f.rate_name, f.burst_size
                    FROM new_runs c LEFT JOIN rates f ON f.task_path = coalesce(c.task_path, '') AND f.queue_name = c.queue_name
                    WHERE (any_key OR any_rate) AND c.status = 'READY') k) r
        WHERE (r.lock_name IS NOT NULL AND r.lock_rank > 1) OR (r.limit_name IS NOT NULL AND r.limit_rank > r.concurrency_limit)
           OR (r.rate_name IS NOT NULL AND r.rate_rank > r.burst_size)),
    placed AS (
        INSERT INTO task_lane (result_id, queue_name, state, park_reason, priority, order_key, due_at, attempts, max_attempts,
                               timeout_seconds, leased_by, leased_until, claimed_at, workflow_id, lock_name, limit_name, limit_size, on_key)
        SELECT n.result_id, n.queue_name,
               CASE WHEN n.on_key IS NULL THEN reproq_lane_state(n.status, n.run_after, clock) ELSE 'parked' END,
               CASE WHEN n.on_key IS NULL THEN CASE WHEN n.status = 'READY' AND n.run_after > clock THEN 'due' END
                    WHEN n.on_key LIKE 'rate:%' THEN 'rate' ELSE 'key' END,
               n.priority,
               reproq_order_key(n.due_at, n.priority, coalesce(s.priority_aging_s, 60)),
               n.due_at, reproq_attempts(n.attempts), reproq_attempts(n.max_attempts), n.timeout_seconds,
               CASE WHEN n.status = 'RUNNING' THEN coalesce(n.leased_by, '') END,
               CASE WHEN n.status = 'RUNNING' THEN coalesce(n.leased_until, clock) END,
               CASE WHEN n.status = 'RUNNING' THEN n.last_attempted_at END,
               n.workflow_id, n.lock_name, n.limit_name, n.concurrency_limit, n.on_key
        FROM (SELECT m.*,
                     -- Where others wait, there is no use in standing in line. Nobody's lock is asked: the word left below has it judged again.
                     -- A line that has a floor (004_keys) would be walked from its dead start, so there it is not asked whether anybody waits.
                     CASE WHEN m.status <> 'READY' OR m.run_after > clock THEN NULL
                          WHEN c.on_key IS NOT NULL THEN c.on_key
                          WHEN m.lock_name IS NOT NULL AND (EXISTS (SELECT FROM reproq_line_floors f WHERE f.key = ANY (ARRAY[m.lock_name]))
                                                            OR EXISTS (SELECT FROM task_lane w WHERE w.on_key = ANY (ARRAY[m.lock_name])))
                              THEN m.lock_name
                          WHEN m.limit_name IS NOT NULL AND (EXISTS (SELECT FROM reproq_line_floors f WHERE f.key = ANY (ARRAY[m.limit_name]))
                                                             OR EXISTS (SELECT FROM task_lane w WHERE w.on_key = ANY (ARRAY[m.limit_name])))
                              THEN m.limit_name
                          WHEN f.has_line THEN f.rate_name
                     END AS on_key
              FROM (SELECT new_runs.*,
                           reproq_due_at(enqueued_at, run_after) AS due_at,
                           reproq_lock_name(lock_key) AS lock_name,
                           reproq_limit_name(concurrency_key, concurrency_limit) AS limit_name
                    FROM new_runs
                    WHERE status IN ('READY', 'RUNNING', 'WAITING')) m
              LEFT JOIN rates f ON f.task_path = coalesce(m.task_path, '') AND f.queue_name = m.queue_name
              LEFT JOIN crowd c ON c.result_id = m.result_id) n
        LEFT JOIN reproq_queue_settings s ON s.queue_name = n.queue_name
        RETURNING task_lane.queue_name, task_lane.state, task_lane.on_key, task_lane.order_key, task_lane.due_at, task_lane.result_id),
    words AS (
        INSERT INTO reproq_key_arrivals (key, queue_name, order_key, due_at, result_id)
        SELECT DISTINCT ON (p.on_key, p.queue_name) p.on_key, p.queue_name, p.order_key, p.due_at, p.result_id
        FROM placed p WHERE p.on_key NOT LIKE 'rate:%'
        ORDER BY p.on_key, p.queue_name, p.order_key, p.due_at, p.result_id)
    SELECT array_agg(DISTINCT p.queue_name) FILTER (WHERE p.state = 'ready' OR p.on_key IS NOT NULL
                                                    OR (p.state = 'parked' AND p.due_at < clock + reproq_soon()))
    INTO queues FROM placed p;
    -- Read after the insert, in a snapshot of its own (the function is volatile): see the wake-up rule in store/shard.py.
    IF queues IS NOT NULL THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_after_insert AFTER INSERT ON task_runs
REFERENCING NEW TABLE AS new_runs FOR EACH STATEMENT EXECUTE FUNCTION reproq_runs_after_insert();
