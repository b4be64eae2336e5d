"""Everything of a schema that its users can notice, as text that can be compared."""

from typing import Any

import psycopg

# Of other products, and left alone.
_FOREIGN = ("django_migrations",)

_QUERIES = {
    "columns": """
        SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
               || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END || ' identity=' || a.attidentity::text
               || ' default=' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
          AND c.relname <> ALL (%(foreign)s)""",
    "tables": """
        SELECT c.relname || ' ' || c.relkind::text || c.relpersistence::text || ' '
               || coalesce((SELECT string_agg(o, ',' ORDER BY o) FROM unnest(c.reloptions) o), '')
        FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v', 'S')
          AND c.relname NOT LIKE 'django%%'""",
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid) || ' valid=' || i.indisvalid
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relname <> ALL (%(foreign)s)""",
    "constraints": """
        SELECT c.relname || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid) || ' validated=' || k.convalidated
               || ' deferrable=' || k.condeferrable
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND k.contype <> 'n' AND c.relname <> ALL (%(foreign)s)""",
    "triggers": """
        SELECT pg_get_triggerdef(t.oid) || ' enabled=' || t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal""",
    "functions": """
        SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace""",
    "views": """
        SELECT c.relname || ' ' || pg_get_viewdef(c.oid) FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'v'""",
    "files": "SELECT version || ' ' || name || ' ' || revision FROM reproq_schema_migrations",
}


def catalog(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return what there is by kind, sorted; the order of columns, which nobody may rely on, does not count."""
    return {
        kind: sorted(row[0] for row in connection.execute(query.encode(), {"foreign": list(_FOREIGN)})) for kind, query in _QUERIES.items()
    }
