"""What work costs beside its time: processor seconds, commits, WAL, dead rows, memory."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil
import psycopg

from benchmarks.contenders.contender import Workers
from tests.support.postgres import Cluster, Database


def processor_s(workers: Workers, cluster: Cluster) -> tuple[float, float]:
    """Return the processor seconds that the workers, and all of the server, have used so far, those of reaped children included."""
    return _used_s(workers.processes()), _used_s(cluster.processes())


def _used_s(processes: Sequence[psutil.Process]) -> float:
    used = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


class Writes(NamedTuple):
    """What a database has written so far."""

    commits: float
    wal_bytes: float
    dead_rows: float


def writes(database: Database) -> Writes:
    """Return what was written; exact only while nobody works in the database, since sessions tell their counts late."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            """SELECT xact_commit::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8,
                      (SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 FROM pg_stat_user_tables)
               FROM pg_stat_database WHERE datname = current_database()"""
        ).fetchone()
    assert row is not None, "the database has a row of statistics"
    return Writes(*row)


def memory_mib(workers: Workers) -> dict[str, float]:
    """Return the MiB of all processes together: proportional (shared pages once), and private (what ending them would free)."""
    pss = uss = 0.0
    for process in workers.processes():
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            pss += memory.pss / 2**20
            uss += memory.uss / 2**20
    return {"pss_mib": pss, "private_mib": uss}
