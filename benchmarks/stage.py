"""What every measurement needs: a durable server, a real daemon, and figures that say how they were spread."""

import argparse
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from reproq_supervisor.store.migrate import migrate
from tests.support.daemon import Daemon, demo_config
from tests.support.postgres import Cluster, Database, running_cluster

SETTINGS = ("-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "checkpoint_timeout=30min")
"""The same for every contender: no checkpoint in the middle of a measurement, everything else as shipped, every commit flushed."""


@contextmanager
def durable_server() -> Iterator[Cluster]:
    """Run a PostgreSQL that flushes every commit."""
    with running_cluster(*SETTINGS, durable=True) as cluster:
        yield cluster


@contextmanager
def fresh_database(cluster: Cluster) -> Iterator[Database]:
    """Make a migrated database."""
    with cluster.new_database() as database:
        with database.connect(autocommit=True) as connection:
            migrate(connection)
        yield database


@contextmanager
def running_daemon(database: Database, **pool: Any) -> Iterator[Daemon]:
    """Run the real daemon on *database*, ready; *pool* changes keys of its only pool."""
    daemon = Daemon(demo_config(database.dsn, pool=pool))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def describe_machine(cluster: Cluster) -> str:
    """Say what was measured on, and how its server was set, without names."""
    with cluster.admin() as admin:
        row = admin.execute("SELECT current_setting('server_version')").fetchone()
    version = row[0] if row else "?"
    settings = " ".join(SETTINGS[1::2])
    return f"Python {platform.python_version()}, PostgreSQL {version}, {os.cpu_count()} cores, commits flushed, {settings}"


def at_least_one(text: str) -> int:
    """Return the number of a command line's option, as `argparse` takes it: of rounds, where none would be no answer."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which *share* of *values* lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, p99 and bounds of *values*."""
    return {
        "median": statistics.median(values),
        "p99": percentile(values, 0.99),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
    }
