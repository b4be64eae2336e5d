"""A database whose clock the test sets, and everybody who works with it.

The clock stands still but for the step that moves it: functions of our schema that stand before those of PostgreSQL. So every due time,
lease, token and expiry is exact, and nothing waits. What is drawn by chance is drawn in the same way in each history, or one that is told
again would not be the same.
"""

from typing import Any

from tests.store.actors import Keeper, Shard, ended, every_look_is_dear
from tests.support.postgres import Database

CLOCK = """
CREATE SEQUENCE clock_s MINVALUE 0 START 0;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT timestamptz '2030-01-01 00:00+00' + (SELECT last_value FROM public.clock_s) * interval '1 s' $$;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT public.clock_timestamp() $$;
CREATE FUNCTION public.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT public.clock_timestamp() $$;
CREATE FUNCTION public.transaction_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT public.clock_timestamp() $$;
CREATE SEQUENCE draws MINVALUE 0;
CREATE FUNCTION public.random() RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT d - floor(d) FROM (SELECT nextval('public.draws') * 0.618034::double precision AS d) draw $$;
"""
# Functions look names up when they are called; defaults of columns did so when they were made.
FOLLOW_CLOCK = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'reproq%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = public, pg_catalog', name);
    END LOOP;
    FOR name IN
        SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', d.adrelid::regclass, a.attname,
                      replace(pg_get_expr(d.adbin, d.adrelid), 'pg_catalog.', 'public.'))
        FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE pg_get_expr(d.adbin, d.adrelid) ~ 'now|clock_timestamp' AND d.adrelid IN (
            SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace)
    LOOP
        EXECUTE name;
    END LOOP;
END $$
"""


class World:
    """A database whose clock we set, and everybody who works with it."""

    def __init__(self, database: Database) -> None:
        with database.connect() as connection:
            connection.execute(f"ALTER DATABASE {database.name} SET search_path = public, pg_catalog")
        with database.connect() as connection:
            connection.execute(CLOCK.encode())
            connection.execute(FOLLOW_CLOCK.encode())
        every_look_is_dear(database)
        self.database = database
        self.shards = [Shard(database.dsn, f"worker-{n}") for n in range(2)]
        self.keeper = Keeper(database.dsn)
        self.somebody = database.connect()
        self.producer = database.connect(autocommit=False)
        self.claimer = database.connect(autocommit=False)

    def close(self) -> None:
        with ended(*self.shards, self.keeper):
            for connection in (self.somebody, self.producer, self.claimer):
                connection.close()

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = self.somebody.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []
