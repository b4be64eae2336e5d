-- What a job of pg_cron calls: one look of the beat at one schedule, decided in the database.
-- revision: 2
-- locks: none.
--
-- A job starts when its server comes to it: a moment after its minute, or minutes later, or after its schedule's line was changed. So the time
-- at which it runs says nothing of which firing it is. next_run_at does, as for the beat: whoever makes or changes a schedule sets it, and
-- whoever fires it moves it on. `reproq_cron_firings` is `core.policy.schedule.decide_firings` for lines in UTC; tests hold the two together.

-- The first time after p_after, in UTC, that a line names; NULL if there is none in fifty years, or if the line is not understood here.
CREATE OR REPLACE FUNCTION reproq_cron_next(p_line text, p_after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    means record;
    after CONSTANT timestamp := p_after AT TIME ZONE 'UTC';
    day date := after;
    at interval;
BEGIN
    SELECT * INTO means FROM reproq_cron_parts(p_line);
    IF means.minutes IS NULL THEN
        RETURN NULL;
    END IF;
    WHILE extract(year FROM day) <= extract(year FROM after) + 50 LOOP
        IF extract(month FROM day) <> ALL (means.months) THEN
            day := date_trunc('month', day) + interval '1 month';
            CONTINUE;
        END IF;
        IF (means.days IS NULL AND means.weekdays IS NULL)
           OR extract(day FROM day) = ANY (means.days) OR extract(dow FROM day) = ANY (means.weekdays) THEN
            SELECT min(make_interval(hours => h, mins => m)) INTO at
            FROM unnest(means.hours) AS uh (h) CROSS JOIN unnest(means.minutes) AS um (m)
            WHERE day + make_interval(hours => h, mins => m) > after;
            IF at IS NOT NULL THEN
                RETURN (day + at) AT TIME ZONE 'UTC';
            END IF;
        END IF;
        day := day + 1;
    END LOOP;
    RETURN NULL;
END
$$;

-- What a schedule that is due at p_due fires now, and when it is due next. p_last: the latest firing that somebody entered, if any.
CREATE OR REPLACE FUNCTION reproq_cron_firings(
    p_line text, p_due timestamptz, p_last timestamptz, p_now timestamptz, p_rule text, OUT times timestamptz[], OUT next_run_at timestamptz)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    instant CONSTANT interval := '1 microsecond';
    on_time CONSTANT timestamptz := p_now - interval '60 s';
    start CONSTANT timestamptz := CASE WHEN p_rule = 'all' THEN p_now - interval '24 h' ELSE on_time END;
    latest timestamptz;
BEGIN
    times := '{}';
    next_run_at := CASE WHEN p_due >= start THEN p_due ELSE reproq_cron_next(p_line, start - instant) END;
    IF next_run_at <= p_last THEN
        next_run_at := reproq_cron_next(p_line, p_last);
    END IF;
    WHILE next_run_at <= p_now AND (p_rule <> 'all' OR cardinality(times) < 100) LOOP
        times := times || next_run_at;
        next_run_at := reproq_cron_next(p_line, next_run_at);
    END LOOP;
    IF p_rule = 'one' AND times = '{}' AND p_due < on_time THEN
        latest := greatest(p_due, reproq_cron_latest(p_line, on_time - instant));
        IF (latest > p_last) IS NOT FALSE THEN
            times := ARRAY[latest];
        END IF;
    END IF;
END
$$;

-- A time in UTC as Python writes it.
CREATE OR REPLACE FUNCTION reproq_iso(p_at timestamptz, p_zone text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS' || CASE WHEN p_at <> date_trunc('second', p_at) THEN '.US' ELSE '' END)
           || p_zone
$$;

-- How much later than a firing its run starts: `keeper.beat.jitter_of`, so that it is the same whoever fires.
CREATE OR REPLACE FUNCTION reproq_jitter(p_name text, p_at timestamptz, p_jitter_s double precision) RETURNS interval
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN p_jitter_s > 0 AND p_jitter_s < 'infinity' THEN
        ('x' || left(encode(sha256(convert_to(p_name || ' ' || reproq_iso(p_at, '+00:00'), 'UTF8')), 'hex'), 12))::bit(48)::bigint / 2.0::float8 ^ 48
        * p_jitter_s * interval '1 s' ELSE interval '0' END
$$;

-- Fires a schedule if it is due; one that is disabled or gone is not. p_line is what the schedule's line means in plain words, for one that has
-- others, and p_of the line of which that is said.
DROP FUNCTION IF EXISTS reproq_enqueue_periodic_task(text, text);
CREATE OR REPLACE FUNCTION reproq_enqueue_periodic_task(task_name text, p_line text, p_of text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    schedule record;
    line text;
    at timestamptz;
    arguments record;
    firings record;
    spec jsonb;
    wrong text;
BEGIN
    SELECT p.*, p.xmin::text AS version INTO schedule FROM periodic_tasks p WHERE p.name = task_name AND p.enabled FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at := clock_timestamp();
    line := CASE WHEN (reproq_cron_parts(schedule.cron_expr)).minutes IS NOT NULL THEN schedule.cron_expr
                 WHEN coalesce(p_of, schedule.cron_expr) = schedule.cron_expr THEN p_line END;
    IF (reproq_cron_parts(line)).minutes IS NULL
       OR (upper(schedule.timezone) <> 'UTC' AND schedule.cron_expr !~* '^(CRON_)?TZ=UTC\s') THEN -- the line's own zone wins
        RAISE EXCEPTION 'schedule %: expected a line in UTC, of whole minutes, got % in %', task_name, schedule.cron_expr, schedule.timezone
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Run `reproq-supervisor pg-cron`, which makes jobs for what pg_cron can fire.';
    END IF;
    IF schedule.next_run_at > at AND greatest(schedule.last_run_at, schedule.updated_at, schedule.created_at) > at + interval '24 h' THEN
        -- The clock was set back. The job comes at a firing and not before it, so this one counts.
        PERFORM reproq_follow_clock(ARRAY[task_name], ARRAY[schedule.version], ARRAY[reproq_cron_next(line, at - interval '60 s')]);
        SELECT p.*, p.xmin::text AS version INTO schedule FROM periodic_tasks p WHERE p.name = task_name;
    END IF;
    IF schedule.next_run_at > at THEN
        RETURN;
    END IF;
    SELECT * INTO arguments FROM reproq_schedule_arguments(schedule.payload_json);
    IF arguments.args IS NULL THEN
        wrong := 'payload_json: expected a list, or an object with a list args and an object kwargs';
    ELSIF schedule.missed NOT IN ('one', 'all', 'none') THEN
        wrong := format('missed: expected one, all or none, got %s', schedule.missed);
    ELSIF schedule.jitter_s > extract(epoch FROM timestamptz '9999-12-31 00:00:00+00' - at) AND schedule.jitter_s < 'infinity' THEN
        wrong := format('jitter_s: expected seconds within the years that there are, got %s', schedule.jitter_s);
    END IF;
    IF wrong IS NOT NULL THEN
        PERFORM reproq_disable_schedule(task_name, schedule.version, wrong);
        RETURN;
    END IF;
    firings := reproq_cron_firings(
        line, greatest(schedule.next_run_at, at - interval '10 years'),
        CASE WHEN schedule.last_run_at BETWEEN at - interval '10 years' AND at + interval '24 h' THEN schedule.last_run_at END,
        at, schedule.missed);
    spec := jsonb_build_object(
        'v', 1, 'task_path', schedule.task_path, 'args', arguments.args, 'kwargs', arguments.kwargs, 'takes_context', false,
        'queue_name', coalesce(nullif(schedule.queue_name, ''), 'default'), 'priority', schedule.priority, 'lock_key', NULL,
        'concurrency_key', schedule.concurrency_key, 'concurrency_limit', schedule.concurrency_limit, 'run_after', NULL,
        'exec', jsonb_build_object('timeout_seconds', schedule.timeout_seconds,
                                   'max_attempts', CASE WHEN schedule.max_attempts > 0 THEN schedule.max_attempts ELSE 3 END),
        'provenance', jsonb_build_object('code_ref', NULL, 'pip_lock_hash', NULL), 'periodic_name', task_name);
    BEGIN
        PERFORM reproq_fire(
            ARRAY[task_name], ARRAY[schedule.version], ARRAY[firings.next_run_at], array_agg(1), array_agg(made.fire_at),
            array_agg(made.fire_at + reproq_jitter(task_name, made.fire_at, schedule.jitter_s)),
            array_agg(made.spec), array_agg(encode(sha256(convert_to(made.spec, 'UTF8')), 'hex')))
        FROM (SELECT u.fire_at, (spec || jsonb_build_object('scheduled_at', reproq_iso(u.fire_at, 'Z')))::text AS spec
              FROM unnest(firings.times) AS u (fire_at)) made;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE; -- somebody who does not lock the schedule entered it meanwhile
        WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
            PERFORM reproq_disable_schedule(task_name, schedule.version, format('the database refuses its task: %s', SQLERRM));
    END;
END
$$;

-- The same, under the name and with the argument that the contract has.
CREATE OR REPLACE FUNCTION reproq_enqueue_periodic_task(task_name text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT reproq_enqueue_periodic_task(task_name, NULL)
$$;
