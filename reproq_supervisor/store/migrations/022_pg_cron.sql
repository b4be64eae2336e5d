-- Schedules that pg_cron fires: what a cron line means, when it fired last, and the jobs. What a job calls is in 024_pg_cron_firings.sql.
-- revision: 3
-- locks: none.

-- The numbers that one field of a line names; NULL where it has words of which only the program knows the meaning. p_last: where * ends;
-- p_names: what may stand for the numbers from p_low on.
CREATE OR REPLACE FUNCTION reproq_cron_field(p_field text, p_low integer, p_high integer, p_last integer, p_names text[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    found integer[] := '{}';
    part text;
    words text[];
    low integer;
    high integer;
BEGIN
    FOREACH part IN ARRAY string_to_array(lower(p_field), ',') LOOP
        words := regexp_match(part, '^(?:(\*)|(\d{1,2}|[a-z]{3})(?:-(\d{1,2}|[a-z]{3}))?)(?:/0*([1-9]\d?))?$');
        IF words IS NULL OR (words[2] IS NOT NULL AND words[3] IS NULL AND words[4] IS NOT NULL) THEN
            RETURN NULL;
        END IF;
        low := CASE WHEN words[1] IS NOT NULL THEN p_low
                    WHEN words[2] ~ '^\d' THEN words[2]::integer
                    ELSE array_position(p_names, words[2]) - 1 + p_low END;
        high := CASE WHEN words[1] IS NOT NULL THEN p_last
                     WHEN words[3] IS NULL THEN low
                     WHEN words[3] ~ '^\d' THEN words[3]::integer
                     ELSE array_position(p_names, words[3]) - 1 + p_low END;
        -- A span from a number to itself means all to the program's reader of lines: an oddity that is not repeated here.
        IF low BETWEEN p_low AND p_high AND high BETWEEN low AND p_high AND (words[3] IS NULL OR low < high) THEN
            found := found || ARRAY(SELECT generate_series(low, high, coalesce(words[4]::integer, 1)));
        ELSE
            RETURN NULL;
        END IF;
    END LOOP;
    RETURN found;
END
$$;

-- What a line of five fields means, or @daily and the like; all NULL where it has words of which only the program knows the meaning (H, L, #,
-- seconds). Days and weekdays of which the line says * are NULL, too: they ask for nothing.
CREATE OR REPLACE FUNCTION reproq_cron_parts(
    p_line text, OUT minutes integer[], OUT hours integer[], OUT days integer[], OUT months integer[], OUT weekdays integer[])
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    anything CONSTANT text := '(^|,)\*(,|$)';
    line text := trim(p_line);
    words text[];
BEGIN
    line := CASE lower(line) WHEN '@hourly' THEN '0 * * * *' WHEN '@daily' THEN '0 0 * * *' WHEN '@midnight' THEN '0 0 * * *'
                             WHEN '@weekly' THEN '0 0 * * 0' WHEN '@monthly' THEN '0 0 1 * *'
                             WHEN '@yearly' THEN '0 0 1 1 *' WHEN '@annually' THEN '0 0 1 1 *' ELSE line END;
    words := regexp_split_to_array(line, '\s+');
    IF cardinality(words) IS DISTINCT FROM 5 THEN
        RETURN;
    END IF;
    hours := reproq_cron_field(words[2], 0, 23, 23, '{}');
    days := reproq_cron_field(words[3], 1, 31, 31, '{}');
    months := reproq_cron_field(words[4], 1, 12, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
    weekdays := reproq_cron_field(words[5], 0, 7, 6, '{sun,mon,tue,wed,thu,fri,sat}');
    IF hours IS NOT NULL AND days IS NOT NULL AND months IS NOT NULL AND weekdays IS NOT NULL THEN
        minutes := reproq_cron_field(words[1], 0, 59, 59, '{}');
    END IF;
    weekdays := CASE WHEN words[5] !~ anything THEN ARRAY(SELECT DISTINCT w % 7 FROM unnest(weekdays) AS u (w)) END;
    days := CASE WHEN words[3] !~ anything THEN ARRAY(SELECT DISTINCT d FROM unnest(days) AS u (d)) END;
    -- Whether 1-31 or */1 asks for something beside the other field is an oddity of the program's reader, too.
    IF (cardinality(days) = 31 AND weekdays IS NOT NULL) OR (cardinality(weekdays) = 7 AND days IS NOT NULL) THEN
        minutes := NULL;
    END IF;
END
$$;

-- The latest time up to p_until, in UTC, that a line names; NULL if there is none in fifty years, or if the line is not understood here.
CREATE OR REPLACE FUNCTION reproq_cron_latest(p_line text, p_until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    means record;
    until CONSTANT timestamp := p_until AT TIME ZONE 'UTC';
    day date := until;
    at interval;
BEGIN
    SELECT * INTO means FROM reproq_cron_parts(p_line);
    IF means.minutes IS NULL THEN
        RETURN NULL;
    END IF;
    WHILE day > until::date - 366 * 50 LOOP
        IF extract(month FROM day) <> ALL (means.months) THEN
            day := date_trunc('month', day) - interval '1 day';
            CONTINUE;
        END IF;
        -- Where both days are named, one of them is enough.
        IF (means.days IS NULL AND means.weekdays IS NULL)
           OR extract(day FROM day) = ANY (means.days) OR extract(dow FROM day) = ANY (means.weekdays) THEN
            SELECT max(make_interval(hours => h, mins => m)) INTO at
            FROM unnest(means.hours) AS uh (h) CROSS JOIN unnest(means.minutes) AS um (m)
            WHERE day + make_interval(hours => h, mins => m) <= until;
            IF at IS NOT NULL THEN
                RETURN (day + at) AT TIME ZONE 'UTC';
            END IF;
        END IF;
        day := day - 1;
    END LOOP;
    RETURN NULL;
END
$$;

-- Makes the extension where the server has it.
CREATE OR REPLACE FUNCTION reproq_pg_cron_create() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_cron;
END
$$;

-- What a command of ours begins with. Another schema of this database has another one: its jobs are not ours.
CREATE OR REPLACE FUNCTION reproq_pg_cron_call() RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT format('SELECT %sreproq_enqueue_periodic_task(', CASE WHEN current_schema() <> 'public' THEN quote_ident(current_schema()) || '.' END)
$$;

-- The jobs of pg_cron with this prefix; ours are those of this database that call the function above.
CREATE OR REPLACE FUNCTION reproq_pg_cron_jobs(p_prefix text) RETURNS TABLE (id bigint, name text, is_ours boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY
    SELECT j.jobid, j.jobname::text, j.database = current_database() AND starts_with(j.command, reproq_pg_cron_call())
    FROM cron.job j WHERE starts_with(j.jobname, p_prefix || '_') ORDER BY j.jobid;
END
$$;

-- Removes those that are ours. Returns how many.
CREATE OR REPLACE FUNCTION reproq_pg_cron_remove(p_prefix text) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    job record;
    n integer := 0;
BEGIN
    FOR job IN SELECT j.id FROM reproq_pg_cron_jobs(p_prefix) j WHERE j.is_ours LOOP
        PERFORM cron.unschedule(job.id);
        n := n + 1;
    END LOOP;
    RETURN n;
END
$$;

-- Has pg_cron fire a schedule. Its command is the contract's, but for lines that have words of which only the program knows the meaning. No job
-- that is not ours may have this name: pg_cron would change that one.
CREATE OR REPLACE FUNCTION reproq_pg_cron_schedule(p_job text, p_line text, p_name text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    more CONSTANT text := (SELECT format(', %L, %L', p_line, p.cron_expr) FROM periodic_tasks p
                           WHERE p.name = p_name AND (reproq_cron_parts(p.cron_expr)).minutes IS NULL);
BEGIN
    PERFORM cron.schedule(p_job, p_line, format('%s%L%s);', reproq_pg_cron_call(), p_name, more));
END
$$;
