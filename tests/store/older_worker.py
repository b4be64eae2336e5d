"""An older worker as the database sees it: the contract's own statements, from a plain connection."""

import json
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

# One run of one queue, with keys and rate, in one statement; the queue's next run in the worker's own order.
CLAIM = """
WITH candidate AS (
    SELECT t.result_id, t.task_path, t.queue_name FROM task_runs t
    WHERE t.status = 'READY' AND t.queue_name = %(queue)s AND coalesce(t.run_after, '-infinity'::timestamptz) <= now()
      AND NOT EXISTS (SELECT FROM reproq_queue_controls c WHERE c.queue_name = t.queue_name AND c.paused)
      AND (t.lock_key IS NULL OR NOT EXISTS (SELECT FROM task_runs r WHERE r.lock_key = t.lock_key AND r.status = 'RUNNING'))
      AND (coalesce(t.concurrency_key, '') = '' OR t.concurrency_limit <= 0
           OR (SELECT count(*) FROM task_runs r WHERE r.concurrency_key = t.concurrency_key AND r.status = 'RUNNING') < t.concurrency_limit)
    ORDER BY t.priority + greatest(extract(epoch FROM now() - t.enqueued_at), 0) / 60 DESC, t.enqueued_at
    LIMIT 1 FOR UPDATE SKIP LOCKED),
rate AS (
    SELECT b.key, b.tokens_per_second > 0 AND b.burst_size > 0 AS is_active
    FROM candidate c JOIN rate_limits b ON b.key IN ('task:' || c.task_path, 'queue:' || c.queue_name, 'global')
    ORDER BY CASE WHEN b.key LIKE 'task:%%' THEN 1 WHEN b.key LIKE 'queue:%%' THEN 2 ELSE 3 END LIMIT 1),
spent AS (
    UPDATE rate_limits b
    SET current_tokens = least(b.burst_size, b.current_tokens + extract(epoch FROM now() - b.last_refilled_at) * b.tokens_per_second) - 1,
        last_refilled_at = now()
    FROM rate
    WHERE b.key = rate.key AND rate.is_active
      AND least(b.burst_size, b.current_tokens + extract(epoch FROM now() - b.last_refilled_at) * b.tokens_per_second) >= 1
    RETURNING b.key)
UPDATE task_runs t
SET status = 'RUNNING', started_at = coalesce(t.started_at, now()), last_attempted_at = now(), attempts = t.attempts + 1,
    leased_until = now() + %(lease_s)s * interval '1 s', leased_by = %(worker)s,
    worker_ids = t.worker_ids || jsonb_build_array(%(worker)s::text), updated_at = now()
FROM candidate c
WHERE t.result_id = c.result_id AND (NOT EXISTS (SELECT FROM rate WHERE is_active) OR EXISTS (SELECT FROM spent))
RETURNING t.result_id, t.attempts, t.max_attempts, t.spec_json
"""
HEARTBEAT = """
UPDATE task_runs SET leased_until = now() + %(lease_s)s * interval '1 s'
WHERE result_id = %(run)s AND leased_by = %(worker)s AND status = 'RUNNING' RETURNING cancel_requested
"""
SUCCEED = """
UPDATE task_runs SET status = 'SUCCESSFUL', finished_at = now(), return_json = %(value)s, last_error = NULL, failed_at = NULL,
       leased_until = NULL, leased_by = NULL, logs_uri = coalesce(NULL, logs_uri), updated_at = now()
WHERE result_id = %(run)s AND leased_by = %(worker)s AND status = 'RUNNING' RETURNING workflow_id
"""
CHILDREN = """
UPDATE task_runs SET wait_count = wait_count - 1, status = CASE WHEN wait_count - 1 <= 0 THEN 'READY' ELSE status END, updated_at = now()
WHERE parent_id = %(run)s AND status = 'WAITING'
"""
CALLBACK_SUCCEEDED = """
UPDATE workflow_runs SET status = 'SUCCESSFUL', updated_at = now() WHERE workflow_id = %(flow)s AND callback_result_id = %(run)s
"""
MEMBER_SUCCEEDED = """
UPDATE workflow_runs
SET success_count = success_count + 1, updated_at = now(),
    status = CASE WHEN success_count + 1 >= expected_count AND failure_count = 0 THEN 'WAITING_CALLBACK' ELSE status END
WHERE workflow_id = %(flow)s RETURNING callback_result_id, status
"""
RELEASE_CALLBACK = (
    "UPDATE task_runs SET status = 'READY', wait_count = 0, updated_at = now() WHERE result_id = %(run)s AND status = 'WAITING'"
)
FAIL = """
UPDATE task_runs
SET status = CASE WHEN %(retries)s THEN 'READY' ELSE 'FAILED' END, errors_json = errors_json || jsonb_build_array(%(error)s::jsonb),
    run_after = CASE WHEN %(retries)s THEN now() + %(delay_s)s * interval '1 s' END,
    finished_at = CASE WHEN %(retries)s THEN NULL ELSE now() END, failed_at = CASE WHEN %(retries)s THEN NULL ELSE now() END,
    last_error = CASE WHEN %(retries)s THEN NULL ELSE %(error)s::jsonb ->> 'message' END, leased_until = NULL, leased_by = NULL,
    updated_at = now()
WHERE result_id = %(run)s AND leased_by = %(worker)s AND status = 'RUNNING' RETURNING workflow_id
"""
MEMBER_FAILED = """
UPDATE workflow_runs SET failure_count = failure_count + 1, status = 'FAILED', updated_at = now()
WHERE workflow_id = %(flow)s RETURNING callback_result_id
"""
FAIL_CALLBACK = """
UPDATE task_runs SET status = 'FAILED', finished_at = now(), failed_at = now(), run_after = NULL, wait_count = 0,
       errors_json = errors_json || '[{"kind": "workflow_failed", "message": "Workflow failed due to task failure"}]',
       last_error = 'workflow_failed: Workflow failed due to task failure', updated_at = now()
WHERE result_id = %(run)s AND status IN ('WAITING', 'READY')
"""
RECLAIM = """
WITH expired AS (
    SELECT result_id FROM task_runs WHERE status = 'RUNNING' AND leased_until < now() FOR UPDATE SKIP LOCKED)
UPDATE task_runs t
SET status = CASE WHEN t.attempts < coalesce(t.max_attempts, 3) THEN 'READY' ELSE 'FAILED' END,
    finished_at = CASE WHEN t.attempts < coalesce(t.max_attempts, 3) THEN NULL ELSE now() END,
    failed_at = CASE WHEN t.attempts < coalesce(t.max_attempts, 3) THEN NULL ELSE now() END,
    errors_json = t.errors_json || '[{"kind": "lease_expiry", "message": "Worker heartbeat lost or process crashed"}]',
    leased_until = NULL, leased_by = NULL, updated_at = now()
FROM expired e WHERE t.result_id = e.result_id RETURNING t.result_id
"""
ANNOUNCE = """
INSERT INTO reproq_workers (worker_id, hostname, concurrency, queues, version) VALUES (%(worker)s, 'old', 1, '["default"]', '0.0.144')
ON CONFLICT (worker_id) DO UPDATE SET last_seen_at = now()
"""


@dataclass(frozen=True)
class OlderClaim:
    """A run in the hands of an older worker."""

    result_id: int
    attempts: int
    max_attempts: int
    spec: dict[str, Any]


class OlderWorker:
    """Sends what the older worker sends."""

    def __init__(self, dsn: str, worker_id: str = "older-1", lease_s: float = 300) -> None:
        self.worker_id = worker_id
        self.lease_s = lease_s
        self.connection: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            dsn, autocommit=True, application_name=worker_id, row_factory=dict_row
        )

    def announce(self) -> None:
        self._send(ANNOUNCE)

    def claim(self, queue: str = "default") -> OlderClaim | None:
        rows = self._send(CLAIM, queue=queue)
        return OlderClaim(rows[0]["result_id"], rows[0]["attempts"], rows[0]["max_attempts"], rows[0]["spec_json"]) if rows else None

    def heartbeat(self, run: int) -> bool | None:
        """Return whether it shall be cancelled; None when the lease is lost."""
        rows = self._send(HEARTBEAT, run=run)
        return rows[0]["cancel_requested"] if rows else None

    def succeed(self, run: int) -> bool:
        with self.connection.transaction():
            rows = self._send(SUCCEED, run=run, value="1")
            if not rows:
                return False
            self._send(CHILDREN, run=run)
            if (flow := rows[0]["workflow_id"]) and not self._changes(CALLBACK_SUCCEEDED, flow=flow, run=run):
                for member in self._send(MEMBER_SUCCEEDED, flow=flow):
                    if member["status"] == "WAITING_CALLBACK":
                        self._send(RELEASE_CALLBACK, run=member["callback_result_id"])
        return True

    def fail(self, run: int, *, retries: bool, delay_s: float = 0.0) -> bool:
        error = json.dumps({"kind": "app_error", "message": "it broke"})
        with self.connection.transaction():
            rows = self._send(FAIL, run=run, retries=retries, error=error, delay_s=delay_s)
            if not rows:
                return False
            if (flow := rows[0]["workflow_id"]) and not retries:
                for member in self._send(MEMBER_FAILED, flow=flow):
                    self._send(FAIL_CALLBACK, run=member["callback_result_id"])
        return True

    def reclaim(self) -> list[int]:
        return [row["result_id"] for row in self._send(RECLAIM)]

    def close(self) -> None:
        self.connection.close()

    def _send(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(statement.encode(), {"worker": self.worker_id, "lease_s": self.lease_s, **parameters})
        return cursor.fetchall() if cursor.description else []

    def _changes(self, statement: str, **parameters: Any) -> int:
        return self.connection.execute(statement.encode(), parameters).rowcount
