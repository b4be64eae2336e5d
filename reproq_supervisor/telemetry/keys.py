"""The closed list of log keys, and which values never reach a log.

A key that is not listed is dropped, so that no part of a task's arguments or results can come through by a new name.
"""

import re
from typing import Any

from reproq_supervisor.settings.masking import mask_text

REDACTED = "[REDACTED]"
MAX_VALUE_CHARS = 2000

KEYS = frozenset(
    {
        *("at", "level", "name", "child", "pool", "pid", "generation", "version", "path", "why", "quick", "phase", "code"),
        *("reason", "permanent", "timeout_s", "cause", "kind", "boot_s", "slept_s", "running", "stalled_s", "count", "total"),
        *("group", "window_s", "command", "workers", "executors", "for_s", "pools", "changes", "changed", "dropped"),
        *("rss_bytes", "pss_bytes", "kinds"),
        *("result_id", "task_path", "attempt", "status", "error", "duty", "message", "queue", "seconds", "uid", "problems"),
        *("slots", "tasks", "age_s", "private_bytes", "late_s", "schedule"),
    }
)

_SECRET_KEYS = frozenset(
    {
        *("args", "authorization", "body", "errors_json", "headers", "kwargs", "payload", "payload_json", "return_json"),
        *("spec_json", "stderr", "stdout", "traceback"),
    }
)
_SECRET_NAME = re.compile(r"secret|token|password|api_?key|authorization", re.IGNORECASE)


def is_secret_key(key: str) -> bool:
    """Answer whether values under *key* are never shown."""
    return key.lower() in _SECRET_KEYS or _SECRET_NAME.search(key) is not None


def presentable(key: str, value: Any) -> Any:
    """Return *value* as it may be shown under *key*: secrets replaced at any depth, connection strings masked, long texts cut."""
    if is_secret_key(key):
        return REDACTED
    match value:
        case dict():
            return {str(inner): presentable(str(inner), each) for inner, each in value.items()}
        case list() | tuple():
            return [presentable(key, each) for each in value]
        case str():
            text = mask_text(value)
            return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
        case _:
            return value
