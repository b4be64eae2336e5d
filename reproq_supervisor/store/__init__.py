"""The only room that speaks SQL: statements, migrations and typed calls. May import settings and core."""
