"""The contract's tables as every origin must end: names, types, defaults. `001_contract.sql` makes them so where they are missing.

Types and defaults are written as PostgreSQL prints them.
"""

from dataclasses import dataclass
from typing import LiteralString

# Of a column whose default a file sets, together with what depends on it.
ELSEWHERE: LiteralString = "-- elsewhere"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `default`: an expression, None for none, ELSEWHERE to leave it."""

    name: LiteralString
    type: LiteralString
    default: LiteralString | None = None
    not_null: bool = False
    is_identity: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table; `options` are its storage parameters."""

    name: LiteralString
    columns: tuple[Column, ...]
    options: tuple[LiteralString, ...] = ()


def _text(name: LiteralString, default: LiteralString | None = None, *, not_null: bool = False) -> Column:
    return Column(name, "text", default, not_null or default is not None)


def _integer(name: LiteralString, default: LiteralString | None = None, *, not_null: bool = False) -> Column:
    return Column(name, "integer", default, not_null or default is not None)


def _json(name: LiteralString, default: LiteralString | None = None, *, not_null: bool = False) -> Column:
    return Column(name, "jsonb", default, not_null or default is not None)


def _time(name: LiteralString, default: LiteralString | None = None, *, not_null: bool = False) -> Column:
    return Column(name, "timestamp with time zone", default, not_null or default is not None)


def _boolean(name: LiteralString, default: LiteralString) -> Column:
    return Column(name, "boolean", default, not_null=True)


_STAMPS = (_time("created_at", "now()"), _time("updated_at", "now()"))

TASK_RUNS = Table(
    "task_runs",
    (
        Column("result_id", "bigint", not_null=True, is_identity=True),
        _text("backend_alias", "'default'::text"),
        _text("queue_name", "'default'::text"),
        _integer("priority", "0"),
        _time("run_after"),
        _json("spec_json", not_null=True),
        # Any length: both of the older layouts' types become this one without a rewrite of the table, and trailing blanks mean nothing.
        Column("spec_hash", "bpchar", not_null=True),
        _text("task_path"),
        _text("status", "'READY'::text"),
        _time("enqueued_at", "now()"),
        _time("started_at"),
        _time("last_attempted_at"),
        _time("finished_at"),
        _integer("attempts", "0"),
        _integer("max_attempts", "3"),
        _integer("timeout_seconds", "900"),
        _text("lock_key"),
        _text("concurrency_key"),
        _integer("concurrency_limit", "0"),
        _json("worker_ids", "'[]'::jsonb"),
        _json("return_json"),
        _json("errors_json", "'[]'::jsonb"),
        _json("metadata_json", "'{}'::jsonb"),
        _text("last_error"),
        _time("failed_at"),
        _time("leased_until"),
        _text("leased_by"),
        _text("logs_uri"),
        _text("artifacts_uri"),
        _time("expires_at"),
        Column("parent_id", "bigint"),
        Column("workflow_id", "uuid"),
        _integer("wait_count", "0"),
        *_STAMPS,
        _boolean("cancel_requested", "false"),
        # The rows that are there get NULL: who owns a key is decided run by run.
        Column("dedupe_key", "text", ELSEWHERE),
        _integer("rev", "0"),
        Column("was_deduped", "boolean"),
    ),
    ("fillfactor=46", "autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_cost_delay=0"),
)

TABLES = (
    TASK_RUNS,
    Table(
        "periodic_tasks",
        (
            _text("name", not_null=True),
            _text("cron_expr", not_null=True),
            _text("task_path", not_null=True),
            _json("payload_json", "'{}'::jsonb"),
            _text("queue_name", "'default'::text"),
            _integer("priority", "0"),
            _integer("max_attempts", "3"),
            _text("concurrency_key"),
            _integer("concurrency_limit", "0"),
            _time("last_run_at"),
            _time("next_run_at", not_null=True),
            _boolean("enabled", "true"),
            *_STAMPS,
            _text("timezone", "'UTC'::text"),
            Column("jitter_s", "double precision", "0", not_null=True),
            _text("overlap", "'allow'::text"),
            _text("missed", "'one'::text"),
            _integer("timeout_seconds", "900"),
            _text("disabled_reason"),
            _boolean("is_faulty", "false"),
            Column("last_result_id", "bigint"),
            _json("declared"),
            _text("declared_by"),
        ),
    ),
    Table(
        "reproq_queue_controls",
        (_text("queue_name", not_null=True), _boolean("paused", "false"), _time("paused_at"), _text("reason"), *_STAMPS),
    ),
    Table(
        "reproq_workers",
        (
            _text("worker_id", not_null=True),
            _text("hostname"),
            _integer("concurrency"),
            _json("queues", "'[]'::jsonb"),
            _time("started_at", "now()"),
            _time("last_seen_at", "now()"),
            _text("version"),
        ),
    ),
    Table(
        "rate_limits",
        (
            _text("key", not_null=True),
            Column("tokens_per_second", "real", not_null=True),
            _integer("burst_size", not_null=True),
            Column("current_tokens", "real", not_null=True),
            _time("last_refilled_at", "now()"),
        ),
    ),
    Table(
        "workflow_runs",
        (
            Column("workflow_id", "uuid", not_null=True),
            _integer("expected_count", not_null=True),
            _integer("success_count", "0"),
            _integer("failure_count", "0"),
            Column("callback_result_id", "bigint"),
            _text("status", "'RUNNING'::text"),
            *_STAMPS,
        ),
    ),
)
