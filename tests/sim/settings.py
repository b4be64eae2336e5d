"""Resolved settings for tests of the supervisor's core, as `docs/architecture.md` has them."""

from collections.abc import Mapping
from typing import Any


def pool(**changes: Any) -> dict[str, Any]:
    """Return one pool's settings with *changes*."""
    return {
        "queues": {"default": 1},
        "shards": 1,
        "executors": {"min": 1, "max": 2},
        "mode": "process",
        "timeout": 60.0,
        "grace": 2.0,
        "lease": 60.0,
        "boot_timeout": 20.0,
        "heartbeat": 2.0,
        "quarantine": {"exits": 5, "window": 60.0},
        **changes,
    }


def settings(pools: Mapping[str, Mapping[str, Any]] | None = None, *, embedded: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a whole configuration with *changes* of top-level keys."""
    return {
        "database": "embedded" if embedded else "postgresql://localhost/x",
        "store": {"listen": True, "prepare": True},
        "app": {"path": ["."], "preload": ["app.tasks"]},
        "logs_dir": None,
        "logs": {"format": "auto", "level": "info"},
        "shutdown_timeout": 10.0,
        "pools": {name: dict(each) for name, each in (pools or {"mail": pool()}).items()},
        "queues": {},
        "keeper": {"beat": True},
        "control": {"socket": None},
        "runtime": {
            "config_path": "/etc/app.yaml",
            "runtime_dir": "/run/app",
            "state_dir": "/var/lib/app",
            "control_socket": "/run/app/control.sock",
            "dsn": "postgresql://localhost/x",
            "overrides": {},
            "temporary_dirs": [],
            "embedded": {"argv": ["/bin/postgres"], "user": None, "socket_dir": "/run/app", "temporary_dirs": []} if embedded else None,
        },
        **changes,
    }
