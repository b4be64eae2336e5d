-- Schedules that configuration files have.
-- revision: 2
-- locks: none.

-- Brings the schedules of one file: p_schedules is {name: {column: value, ..., "first": next_run_at or null}}. Returns what was done with each
-- that needed anything: added, changed, removed.
--
-- What a file said last is kept in `declared`. A value that somebody has changed since then is his: only what the file itself changes is
-- changed, and only where the row still has what the file said before. A schedule that was disabled because it could not fire gets another
-- chance when the file changes it. One that a file no longer has goes; those of other files, and of no file, stay: also one that somebody had made
-- before a file named it.
CREATE OR REPLACE FUNCTION reproq_declare_schedules(p_by text, p_schedules jsonb) RETURNS TABLE (name text, outcome text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    wanted record;
    spec jsonb;
    schedule periodic_tasks;
    present jsonb;
    changed jsonb;
BEGIN
    FOR wanted IN SELECT w.key, w.value FROM jsonb_each(p_schedules) w ORDER BY w.key LOOP
        spec := wanted.value - 'first';
        INSERT INTO periodic_tasks AS p (name, cron_expr, task_path, next_run_at)
        VALUES (wanted.key, spec ->> 'cron_expr', spec ->> 'task_path', coalesce((wanted.value ->> 'first')::timestamptz, 'infinity'))
        ON CONFLICT (name) DO NOTHING;
        outcome := CASE WHEN FOUND THEN 'added' ELSE 'changed' END;
        SELECT p.* INTO schedule FROM periodic_tasks p WHERE p.name = wanted.key FOR NO KEY UPDATE;
        CONTINUE WHEN NOT FOUND OR schedule.declared = spec;
        present := to_jsonb(schedule);
        IF outcome = 'added' THEN
            changed := spec;
        ELSIF schedule.declared IS NULL THEN
            changed := '{}'; -- somebody made it before any file had it: all of it is his, and no file takes it away
        ELSE
            SELECT coalesce(jsonb_object_agg(s.key, s.value), '{}') INTO changed
            FROM jsonb_each(spec) s
            WHERE s.value IS DISTINCT FROM schedule.declared -> s.key AND present -> s.key IS NOT DISTINCT FROM coalesce(schedule.declared -> s.key, 'null');
        END IF;
        IF schedule.is_faulty AND changed <> '{}' THEN
            changed := changed || jsonb_build_object('enabled', spec -> 'enabled', 'is_faulty', false, 'disabled_reason', NULL);
        END IF;
        IF changed ?| ARRAY['cron_expr', 'timezone'] OR (changed -> 'enabled' = 'true' AND NOT schedule.enabled) THEN
            changed := changed || jsonb_build_object('next_run_at', coalesce(nullif(wanted.value -> 'first', 'null'), '"infinity"'));
        END IF;
        schedule := jsonb_populate_record(schedule, changed);
        UPDATE periodic_tasks p
        SET cron_expr = schedule.cron_expr, timezone = schedule.timezone, task_path = schedule.task_path, payload_json = schedule.payload_json,
            queue_name = schedule.queue_name, priority = schedule.priority, max_attempts = schedule.max_attempts,
            timeout_seconds = schedule.timeout_seconds, concurrency_key = schedule.concurrency_key,
            concurrency_limit = schedule.concurrency_limit, jitter_s = schedule.jitter_s, overlap = schedule.overlap, missed = schedule.missed,
            enabled = schedule.enabled, next_run_at = schedule.next_run_at, is_faulty = schedule.is_faulty,
            disabled_reason = schedule.disabled_reason, declared = spec,
            declared_by = CASE WHEN outcome = 'added' OR schedule.declared_by IS NOT NULL THEN p_by END, updated_at = now()
        WHERE p.name = wanted.key;
        name := wanted.key;
        RETURN NEXT;
    END LOOP;
    outcome := 'removed';
    FOR name IN
        DELETE FROM periodic_tasks p WHERE p.declared_by = p_by AND NOT p_schedules ? p.name RETURNING p.name
    LOOP
        RETURN NEXT;
    END LOOP;
END
$$;
