-- Updates and deletes by others: admin pages, scripts, workers of an older product. They are known by a `rev` that does not grow by one,
-- which needs no session state and cannot be forged by accident: a page that saves every column saves the `rev` that it once read.
-- revision: 13
-- locks: SHARE ROW EXCLUSIVE on task_runs while the triggers are made (milliseconds; waits for open writers).
--
-- Whoever updates a record holds its lock, and our own order is lane, then record. So these triggers never wait for a lane row: SKIP
-- LOCKED, then refuse (RETURN NULL, zero rows) or note the wish. Waiting here would deadlock, and the victim would be a shard's whole
-- cycle.
--
-- enable_seqscan is off because their plans are kept in sessions of others: one made while the lane was empty would read all of it for each
-- row of a bulk update.

-- Makes the lane row of one record; nothing if it has one.
CREATE OR REPLACE FUNCTION reproq_lane_insert(run task_runs) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
    clock timestamptz := clock_timestamp();
    due timestamptz := reproq_due_at(run.enqueued_at, run.run_after);
    state text := reproq_lane_state(run.status, run.run_after, clock);
    aging_s double precision := coalesce(
        (SELECT s.priority_aging_s FROM reproq_queue_settings s WHERE s.queue_name = run.queue_name), 60);
BEGIN
    INSERT INTO task_lane (result_id, queue_name, state, park_reason, priority, order_key, due_at, attempts, max_attempts, timeout_seconds,
                           leased_by, leased_until, claimed_at, workflow_id, lock_name, limit_name, limit_size)
    VALUES (run.result_id, run.queue_name, state, CASE WHEN state = 'parked' THEN 'due' END, run.priority,
            reproq_order_key(due, run.priority, aging_s), due, reproq_attempts(run.attempts), reproq_attempts(run.max_attempts),
            run.timeout_seconds,
            CASE WHEN state = 'running' THEN coalesce(run.leased_by, '') END,
            CASE WHEN state = 'running' THEN coalesce(run.leased_until, clock) END,
            CASE WHEN state = 'running' THEN run.last_attempted_at END,
            run.workflow_id, reproq_lock_name(run.lock_key), reproq_limit_name(run.concurrency_key, run.concurrency_limit), run.concurrency_limit)
    ON CONFLICT (result_id) DO NOTHING;
    IF state = 'ready' OR (state = 'parked' AND due < clock + reproq_soon()) THEN
        PERFORM reproq_notify_ready(ARRAY[run.queue_name]);
    END IF;
END
$$;

-- Notes that somebody wants a held run cancelled, and tells the shards.
CREATE OR REPLACE FUNCTION reproq_wish_cancel(ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO reproq_cancel_requests (result_id) SELECT unnest(ids);
    PERFORM pg_notify(reproq_channel(), 'cancel');
END
$$;

-- May somebody else start this run, whose lane row we have locked? Asks its keys for room, and holds their locks then.
CREATE OR REPLACE FUNCTION reproq_may_be_started(lane task_lane, p_state text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF p_state IS DISTINCT FROM 'ready'
       AND NOT (p_state = 'parked' AND coalesce(lane.park_reason IN ('key', 'rate') OR lane.due_at <= clock_timestamp(), false)
                AND EXISTS (SELECT FROM reproq_coexistence))
    THEN
        RETURN false;
    END IF;
    RETURN (lane.lock_name IS NULL AND lane.limit_name IS NULL)
           OR (SELECT cardinality(a.admitted) FROM reproq_admit(ARRAY[lane.result_id]) a) > 0;
END
$$;

-- May somebody else release this run, which waits? Not the callback of a chord before its last member has ended.
CREATE OR REPLACE FUNCTION reproq_may_be_released(run task_runs) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    RETURN run.workflow_id IS NULL
        OR NOT EXISTS (SELECT FROM reproq_coexistence)
        OR NOT EXISTS (SELECT FROM workflow_runs w WHERE w.workflow_id = run.workflow_id AND w.callback_result_id = run.result_id)
        OR NOT EXISTS (SELECT FROM task_lane l WHERE l.workflow_id = run.workflow_id AND l.result_id <> run.result_id);
END
$$;

-- Gives back the token that a statement of somebody else has spent for a run which it then may not start. Only from a bucket that this very
-- transaction has written to: others spend none.
CREATE OR REPLACE FUNCTION reproq_refund_others(run task_runs) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE rate_limits b SET current_tokens = least(b.burst_size, b.current_tokens + 1)
    WHERE b.key = reproq_rate_of(run.task_path, run.queue_name) AND b.xmin = pg_current_xact_id()::xid;
END
$$;

CREATE OR REPLACE FUNCTION reproq_run_foreign_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
    active CONSTANT text[] := '{READY,RUNNING,WAITING}';
    wants_cancel boolean := (NEW.status = 'CANCELLED' AND OLD.status <> 'CANCELLED')
                            OR (NEW.cancel_requested AND NOT OLD.cancel_requested);
    lane task_lane;
    state text;
BEGIN
    SELECT * INTO lane FROM task_lane l WHERE l.result_id = OLD.result_id FOR UPDATE SKIP LOCKED;

    -- A shard holds the run, or is about to: its lane row is locked. The record is written by the holder only.
    IF (lane.state = 'running' AND lane.lease_no > 0)
       OR (lane IS NULL AND EXISTS (SELECT FROM task_lane l WHERE l.result_id = OLD.result_id))
    THEN
        IF wants_cancel THEN
            PERFORM reproq_wish_cancel(ARRAY[OLD.result_id]);
            NEW := OLD;
            NEW.cancel_requested := true;
            RETURN NEW;
        ELSIF NEW.status <> OLD.status THEN
            IF NEW.status = 'RUNNING' THEN
                PERFORM reproq_refund_others(OLD);
            END IF;
            RETURN NULL;
        END IF;
        -- A page that saves every column, stale ones included, must not undo what the holder wrote; and what the lane decides by does not
        -- change under a run that is held.
        NEW.queue_name := OLD.queue_name;
        NEW.priority := OLD.priority;
        NEW.run_after := OLD.run_after;
        NEW.attempts := OLD.attempts;
        NEW.max_attempts := OLD.max_attempts;
        NEW.timeout_seconds := OLD.timeout_seconds;
        NEW.leased_by := OLD.leased_by;
        NEW.leased_until := OLD.leased_until;
        NEW.cancel_requested := OLD.cancel_requested;
        NEW.dedupe_key := OLD.dedupe_key;
        NEW.lock_key := OLD.lock_key;
        NEW.concurrency_key := OLD.concurrency_key;
        NEW.concurrency_limit := OLD.concurrency_limit;
        NEW.workflow_id := OLD.workflow_id;
        NEW.rev := OLD.rev;
        RETURN NEW;
    END IF;

    state := lane.state;
    IF state IS NULL AND OLD.status = ANY (active) THEN
        -- It was there before our triggers, and nobody has brought it into the lane yet: while a database is migrated older workers go on.
        state := CASE WHEN reproq_wants_key(OLD.lock_key, OLD.concurrency_key, OLD.concurrency_limit) AND OLD.status = 'READY' THEN 'parked'
                      ELSE reproq_lane_state(OLD.status, OLD.run_after, clock_timestamp()) END;
    END IF;
    IF wants_cancel AND state <> 'running' THEN
        NEW.status := 'CANCELLED';
        NEW.finished_at := coalesce(NEW.finished_at, clock_timestamp());
    END IF;
    IF NEW.status = 'RUNNING' AND OLD.status <> 'RUNNING' AND NOT reproq_may_be_started(lane, state) THEN
        -- Only what may run now can be started, also by others.
        PERFORM reproq_refund_others(OLD);
        RETURN NULL;
    END IF;
    IF NEW.status = 'READY' AND OLD.status = 'WAITING' AND NOT reproq_may_be_released(OLD) THEN
        RETURN NULL;
    END IF;
    NEW.rev := OLD.rev + 1;
    IF NEW.status <> ALL (active) AND OLD.status = ANY (active) THEN
        NEW.was_deduped := OLD.dedupe_key IS NOT NULL;
    END IF;
    IF NEW.status = 'FAILED' THEN
        -- Failures are listed by it.
        NEW.failed_at := coalesce(NEW.failed_at, clock_timestamp());
    END IF;
    IF NEW.status = 'WAITING' OR NEW.status <> ALL (active) THEN
        NEW.dedupe_key := NULL;
    ELSIF OLD.status = 'WAITING' OR OLD.status <> ALL (active) THEN
        -- Back to life, among the active runs again. Where another one is there already, the wish of whoever did this counts more.
        NEW.dedupe_key := CASE WHEN OLD.was_deduped IS NOT FALSE OR OLD.status = 'WAITING' THEN nullif(rtrim(NEW.spec_hash), '') END;
        IF EXISTS (SELECT FROM task_runs r WHERE r.dedupe_key = NEW.dedupe_key) THEN
            NEW.dedupe_key := NULL;
        END IF;
    END IF;
    DELETE FROM task_lane l WHERE l.result_id = OLD.result_id;
    PERFORM reproq_note_keys(ARRAY[lane.lock_name, lane.limit_name]);
    IF NEW.workflow_id IS NOT NULL AND NEW.status <> ALL (active) AND OLD.status = ANY (active) THEN
        INSERT INTO reproq_flow_ends (flow, result_id, status) VALUES ('flow:' || NEW.workflow_id, NEW.result_id, NEW.status);
    END IF;
    IF NEW.status = ANY (active) THEN
        PERFORM reproq_lane_insert(NEW);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_foreign_update BEFORE UPDATE ON task_runs FOR EACH ROW
WHEN (NEW.rev <> OLD.rev + 1 AND
      (OLD.status, OLD.cancel_requested, OLD.queue_name, OLD.priority, OLD.run_after, OLD.attempts, OLD.max_attempts, OLD.timeout_seconds,
       OLD.leased_by, OLD.leased_until, OLD.lock_key, OLD.concurrency_key, OLD.concurrency_limit, OLD.dedupe_key,
       OLD.workflow_id)
      IS DISTINCT FROM
      (NEW.status, NEW.cancel_requested, NEW.queue_name, NEW.priority, NEW.run_after, NEW.attempts, NEW.max_attempts, NEW.timeout_seconds,
       NEW.leased_by, NEW.leased_until, NEW.lock_key, NEW.concurrency_key, NEW.concurrency_limit, NEW.dedupe_key,
       NEW.workflow_id))
EXECUTE FUNCTION reproq_run_foreign_update();

-- A run that somebody holds is not deleted, whatever its record says; a bulk delete goes on with the others.
CREATE OR REPLACE FUNCTION reproq_run_before_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
    lane task_lane;
BEGIN
    SELECT * INTO lane FROM task_lane l WHERE l.result_id = OLD.result_id FOR UPDATE SKIP LOCKED;
    IF lane.state = 'running' OR (lane IS NULL AND EXISTS (SELECT FROM task_lane l WHERE l.result_id = OLD.result_id)) THEN
        RETURN NULL;
    END IF;
    DELETE FROM task_lane l WHERE l.result_id = OLD.result_id;
    PERFORM reproq_note_keys(ARRAY[lane.lock_name, lane.limit_name]);
    -- Its workflow will never be whole. The children are named one by one: the foreign key makes them forget their parent.
    INSERT INTO reproq_flow_ends (flow, result_id, status)
    SELECT coalesce('flow:' || c.workflow_id, 'run:' || c.result_id), c.result_id, 'ORPHANED'
    FROM task_runs c WHERE c.parent_id = OLD.result_id AND c.status = 'WAITING';
    IF OLD.workflow_id IS NOT NULL THEN
        INSERT INTO reproq_flow_ends (flow, result_id, status) VALUES ('flow:' || OLD.workflow_id, OLD.result_id, 'CANCELLED');
    END IF;
    RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_before_delete BEFORE DELETE ON task_runs FOR EACH ROW
WHEN (OLD.status NOT IN ('SUCCESSFUL', 'FAILED', 'CANCELLED'))
EXECUTE FUNCTION reproq_run_before_delete();

-- One that has ended may go, but whoever waits because of it must not wait for ever: a child whose parent's end nobody has settled yet, and
-- a callback that counts those who succeeded. See 011_flows for the words.
CREATE OR REPLACE FUNCTION reproq_ended_before_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO reproq_flow_ends (flow, result_id, status)
    SELECT coalesce('flow:' || c.workflow_id, 'run:' || c.result_id), c.result_id,
           CASE WHEN OLD.status = 'SUCCESSFUL' THEN 'FREED' ELSE 'ORPHANED' END
    FROM task_runs c WHERE c.parent_id = OLD.result_id AND c.status = 'WAITING'
    UNION ALL
    SELECT 'flow:' || w.workflow_id, OLD.result_id, 'DROPPED'
    FROM workflow_runs w
    WHERE OLD.status = 'SUCCESSFUL' AND w.workflow_id = OLD.workflow_id AND w.callback_result_id <> OLD.result_id AND w.status <> 'SUCCESSFUL';
    RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_ended_before_delete BEFORE DELETE ON task_runs FOR EACH ROW
WHEN (OLD.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED'))
EXECUTE FUNCTION reproq_ended_before_delete();

CREATE OR REPLACE FUNCTION reproq_runs_before_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM task_lane WHERE state = 'running') THEN
        RAISE EXCEPTION 'task_runs: expected no running task, got % of them', (SELECT count(*) FROM task_lane WHERE state = 'running')
            USING HINT = 'Drain the pools first.';
    END IF;
    -- Not TRUNCATE: that fails where the caller's own statement names one of them too.
    DELETE FROM task_lane;
    DELETE FROM reproq_cancel_requests;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER trg_task_runs_before_truncate BEFORE TRUNCATE ON task_runs
FOR EACH STATEMENT EXECUTE FUNCTION reproq_runs_before_truncate();
