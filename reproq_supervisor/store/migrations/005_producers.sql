-- Every producer is equal: an insert of any form (plain, bulk, COPY, ON CONFLICT, an older product's) makes the lane rows in the same
-- statement.
-- revision: 2
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

-- SECURITY DEFINER: a producer needs rights on task_runs only.
CREATE OR REPLACE FUNCTION reproq_runs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    any_rate boolean := EXISTS (SELECT FROM rate_limits WHERE tokens_per_second > 0 AND burst_size > 0);
    queues text[];
BEGIN
    WITH placed AS (
        INSERT INTO task_lane (result_id, queue_name, state, park_reason, priority, order_key, due_at, attempts, max_attempts,
                               timeout_seconds, leased_by, leased_until, claimed_at, keys)
        SELECT n.result_id, n.queue_name,
               reproq_lane_state(n.status, n.run_after, n.limited, clock),
               reproq_park_reason(n.status, n.run_after, n.limited, clock),
               n.priority,
               reproq_order_key(n.due_at, n.priority, coalesce(s.priority_aging_s, 60)),
               n.due_at, n.attempts, n.max_attempts, n.timeout_seconds,
               CASE WHEN n.status = 'RUNNING' THEN coalesce(n.leased_by, '') END,
               CASE WHEN n.status = 'RUNNING' THEN coalesce(n.leased_until, clock) END,
               CASE WHEN n.status = 'RUNNING' THEN n.last_attempted_at END,
               CASE WHEN n.limited THEN array_remove(ARRAY[n.lock_key, n.concurrency_key], NULL) END
        FROM (SELECT new_runs.*,
                     reproq_due_at(enqueued_at, run_after) AS due_at,
                     reproq_wants_key(lock_key, concurrency_key, concurrency_limit) OR workflow_id IS NOT NULL
                     OR CASE WHEN any_rate THEN reproq_wants_rate(task_path, queue_name) ELSE false END AS limited
              FROM new_runs
              WHERE status IN ('READY', 'RUNNING', 'WAITING')) n
        LEFT JOIN reproq_queue_settings s ON s.queue_name = n.queue_name
        RETURNING queue_name, state)
    SELECT array_agg(DISTINCT queue_name) INTO queues FROM placed WHERE state = 'ready';
    -- Read after the insert, in a snapshot of its own (the function is volatile): see the wake-up rule in store/shard.py.
    IF queues IS NOT NULL THEN
        PERFORM reproq_notify_ready(queues);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_after_insert AFTER INSERT ON task_runs
REFERENCING NEW TABLE AS new_runs FOR EACH STATEMENT EXECUTE FUNCTION reproq_runs_after_insert();
