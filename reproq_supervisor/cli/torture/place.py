"""Where torture happens: a daemon that is there, or a private one."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from reproq_supervisor.cli.daemon.record import NoDaemonError, find_record
from reproq_supervisor.cli.database import find_dsn, worded
from reproq_supervisor.cli.options import Options
from reproq_supervisor.cli.places import FOLDER
from reproq_supervisor.cli.private.daemon import PrivateDaemon
from reproq_supervisor.cli.private.ground import PrivateGround, private_folder
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.store.connect import connected
from reproq_supervisor.store.doctor import served_queues
from reproq_supervisor.supervisor.client import ControlClient, DaemonUnavailable

# A worker says every half minute which queues it serves.
_SERVED_WITHIN_S = 75.0
_OFFER = "or add --private for a daemon and a database of its own"


@dataclass(frozen=True, slots=True)
class Place:
    """What is tortured.

    Attributes:
      status: asks the daemon of this host; None when it does not answer now.
      check: raises when the daemon is gone for good.
      is_local: its processes are on this host and of this daemon, so that they can be killed.
      log_tail: the end of its log, for a report of failure.
    """

    dsn: str
    status: Callable[[], dict[str, Any] | None]
    check: Callable[[], None]
    is_local: bool
    log_tail: Callable[[], list[str]]


def find_place(options: Options, queues: Sequence[str]) -> Place:
    """Return the daemon that works on the database of *options*, here or elsewhere.

    Raises:
      NoDaemonError: nobody serves all *queues*.
    """
    try:
        dsn = find_dsn(options)
    except NoDaemonError as error:
        raise NoDaemonError(f"{error}; {_OFFER}") from error
    record = find_record(options.config_path, os.environ)
    local = record if record is not None and record.dsn == dsn and record.answers else None
    ask = _asking(local.control_socket) if local is not None else _nobody
    status = ask()
    if status is not None:
        served = {queue for pool in status["pools"].values() for queue in pool["queues"]}
        who = f"the daemon with pid {status['pid']}"
    else:
        with worded(dsn), connected(dsn) as connection:
            served = set(served_queues(connection, _SERVED_WITHIN_S))
        who = "whoever works on this database"
    if missing := sorted(set(queues) - served):
        found = f"{who} serves {', '.join(sorted(served))}" if served else "nobody serves any"
        raise NoDaemonError(f"queue {', '.join(missing)}: expected a daemon that serves it, found that {found}; name others, {_OFFER}")
    return Place(dsn, ask, lambda: None, status is not None, list)


@contextmanager
def private_place(queues: Sequence[str], interruption: Interruption, *, keep: bool) -> Iterator[Place]:
    """Start a daemon with a database of its own; end and remove both at the end."""
    with private_folder(Path.cwd() / FOLDER, "torture", interruption, keep=keep) as folder:
        ground = PrivateGround(folder, folder / "supervisor.yaml")
        ground.config.write_text(json.dumps(_configuration(queues, ground.logs_dir), indent=2))  # JSON is YAML
        daemon = PrivateDaemon(ground, interruption)
        try:
            daemon.start()
            dsn = daemon.wait_ready()
            yield Place(dsn, _asking(str(ground.places.control_socket)), daemon.check, is_local=True, log_tail=daemon.log_tail)
        finally:
            departure = daemon.stop()
            for complaint in departure.complaints:
                click.echo(complaint, err=True)


def _configuration(queues: Sequence[str], logs_dir: Path) -> dict[str, Any]:
    """Return the configuration of a private daemon: as many executors as make sense, and short times."""
    executors = max(2, min(8, 2 * (os.cpu_count() or 1)))
    pool = {"queues": list(queues), "executors": executors, "shards": 2, "grace": "1s", "lease": "15s", "heartbeat": "1s"}
    pool |= {"poll": {"min": "250ms", "max": "1s"}, "quarantine": {"exits": 1000, "window": "60s"}}
    return {
        "database": "embedded",
        "app": {"preload": ["reproq_supervisor.executor.torture"], "allowed_task_modules": ["reproq_supervisor.executor.torture."]},
        "logs_dir": str(logs_dir),
        "shutdown_timeout": "10s",
        "pools": {"torture": pool},
    }


def _asking(control_socket: str) -> Callable[[], dict[str, Any] | None]:
    client = ControlClient(control_socket)

    def ask() -> dict[str, Any] | None:
        try:
            answer = client.request({"command": "status"})
        except DaemonUnavailable:
            return None
        return dict(answer["status"]) if answer.get("ok") else None

    return ask


def _nobody() -> None:
    return None
