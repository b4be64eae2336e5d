"""Everything that has to be right before the supervisor starts, and the step that becomes it.

    folders ─► embedded: initdb if need be │ external: is its schema ours? ─► memfd with the settings ─► exec

The process keeps its pid and turns into a lean interpreter, so whoever started it (a shell, systemd) watches the supervisor itself.
Settings travel in memory: no secret of theirs is in an argument, a file or the environment.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import reproq_supervisor
from reproq_supervisor.cli.daemon.record import DaemonRecord
from reproq_supervisor.cli.database import EMBEDDED, DatabaseAwayError, SchemaOutdatedError, worded
from reproq_supervisor.cli.output import Output
from reproq_supervisor.cli.places import Places, make_places
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.process.places import remove_temporary_dirs

if TYPE_CHECKING:
    from reproq_supervisor.process.embedded import Embedded
    from reproq_supervisor.settings.model import Settings

_SCHEMA_TIMEOUT_S = 5.0


class DaemonRunsError(ReproqError):
    """A daemon of this configuration runs already."""


class EmbeddedDatabaseError(ReproqError):
    """The embedded database cannot be used."""

    exit_code = 69


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started, and where.

    Attributes:
      config_path: absolute; None when there is no file.
      origin: what a reload needs to come to settings again, as entries of `runtime` (docs/architecture.md).
      temporary_dirs: folders that go with the daemon.
      hint: what a command needs to find the daemon, such as ` -c FILE`.
    """

    settings: "Settings"
    places: Places
    config_path: str | None
    output: Output
    origin: dict[str, Any]
    temporary_dirs: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The database as it was found or made.

    Attributes:
      embedded: how to run the private server, None for an external one.
      notice: what the operator should know, None when there is nothing.
    """

    dsn: str
    embedded: "Embedded | None" = None
    notice: str | None = None


def start(launch: Launch) -> NoReturn:
    """Become the supervisor of *launch*.

    Raises:
      ReproqError: something is not as it must be; nothing of ours is left behind.
    """
    places = launch.places
    make_places(places, passable=launch.settings.database == EMBEDDED and os.geteuid() == 0)
    with _only_start(places), ExitStack() as undo:  # undone only where there was no exec
        if places.short_dir:
            undo.callback(_remove_empty, places.short_dir)
        prepared = _prepare(launch)
        if prepared.embedded:
            undo.callback(remove_temporary_dirs, prepared.embedded.temporary_dirs)
        _record(launch, prepared).write(places.record)
        _introduce(launch, prepared)
        _become_supervisor(_resolved(launch, prepared))
    raise AssertionError("exec returned")


def _record(launch: Launch, prepared: Prepared) -> DaemonRecord:
    socket = str(launch.places.control_socket)
    return DaemonRecord(os.getpid(), launch.config_path, socket, prepared.dsn, embedded=prepared.embedded is not None)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()  # not what somebody else put into it


@contextmanager
def _only_start(places: Places) -> Iterator[None]:
    """Hold the lock of who starts a daemon here. The exec lets go of it; by then the supervisor has its own, on the socket.

    Raises:
      DaemonRunsError: somebody else holds it.
    """
    lock = os.open(places.runtime_dir / "run.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DaemonRunsError(f"{places.runtime_dir}: expected no other start of a daemon here, found one under way; wait") from None
        yield
    finally:
        os.close(lock)


def _prepare(launch: Launch) -> Prepared:
    dsn = launch.settings.database
    return _prepare_embedded(launch.output, launch.places) if dsn == EMBEDDED else Prepared(dsn, notice=_check_schema(dsn))


def _prepare_embedded(output: Output, places: Places) -> Prepared:
    from reproq_supervisor.process.embedded import EmbeddedError, prepare

    if not (places.data_dir / "PG_VERSION").exists() and _is_told(output):
        output.line(f"Making a private PostgreSQL in {places.data_dir} …")
    try:
        embedded = prepare(places.data_dir, runtime_dir=places.runtime_dir)
    except EmbeddedError as error:
        raise EmbeddedDatabaseError(f"embedded database: {error}") from error
    return Prepared(embedded.dsn, embedded, embedded.notice)


def _check_schema(dsn: str) -> str | None:
    """Return what to tell when the database is out of reach: shards and keeper retry by themselves, so the daemon starts all the same.

    Raises:
      SchemaOutdatedError: it has an older schema than ours, or none.
      SchemaNewerError: it has a newer one.
      DatabaseRefusedError: its tables belong to another product.
    """
    from reproq_supervisor.store.connect import connected
    from reproq_supervisor.store.migrate import plan

    try:
        with worded(dsn), connected(dsn, timeout_s=_SCHEMA_TIMEOUT_S) as connection:
            missing = [step for step in plan(connection) if step.is_required]
    except DatabaseAwayError as error:
        return f"{error}; the daemon starts and keeps trying"
    if missing:
        raise SchemaOutdatedError(
            f"database {dsn}: expected the schema of this version, found {len(missing)} steps missing (next: {missing[0].name}); "
            f"bring it up to date with: reproq-supervisor migrate"
        )
    return None


def _introduce(launch: Launch, prepared: Prepared) -> None:
    """Tell a person what starts and how to look at it; programs are told in JSON, logs nothing."""
    settings, places, output = launch.settings, launch.places, launch.output
    queues = sorted({queue for pool in settings.pools.values() for queue in pool.queues})
    if output.as_json:
        output.show_json(
            {
                "pid": os.getpid(),
                "pools": list(settings.pools),
                "queues": queues,
                "control_socket": str(places.control_socket),
                "notice": prepared.notice,
            }
        )
    elif _is_told(output):
        database = f"embedded, in {prepared.embedded.data_dir}" if prepared.embedded else "external"
        output.line(f"reproq-supervisor {reproq_supervisor.__version__}, pid {os.getpid()}", style="bold")
        output.line(f"  pools     {', '.join(settings.pools)} (queues {', '.join(queues)})")
        output.line(f"  database  {database}")
        output.line(f"  control   {places.control_socket}")
        output.line(f"  look      reproq-supervisor status{launch.hint}")
        output.line(f"  stop      Ctrl-C, or: reproq-supervisor stop{launch.hint}")
    if prepared.notice:
        from reproq_supervisor.settings.masking import mask_text

        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {mask_text(prepared.notice)}", err=True)


def _is_told(output: Output) -> bool:
    return not output.as_json and sys.stdout.isatty()


def _resolved(launch: Launch, prepared: Prepared) -> dict[str, Any]:
    """Return the resolved settings of docs/architecture.md; what the flags said goes along, so that a reload keeps it."""
    from reproq_supervisor.settings.release import release_of
    from reproq_supervisor.settings.resolve import resolve

    places = launch.places
    runtime = {
        "config_path": launch.config_path,
        "runtime_dir": str(places.runtime_dir),
        "state_dir": str(places.state_dir),
        "control_socket": str(places.control_socket),
        "dsn": prepared.dsn,
        "embedded": prepared.embedded.as_settings() if prepared.embedded else None,
        "temporary_dirs": [*launch.temporary_dirs, *([str(places.short_dir)] if places.short_dir else [])],
        "overrides": {},
        **launch.origin,
    }
    resolved = resolve(launch.settings, runtime)
    resolved["runtime"]["release"] = release_of(resolved["app"])
    return resolved


def _become_supervisor(resolved: dict[str, Any]) -> NoReturn:
    from reproq_supervisor.process.spawn import python_argv

    descriptor = os.memfd_create("reproq-settings", 0)  # without MFD_CLOEXEC: it is for who we become
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        json.dump(resolved, file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    argv = python_argv("reproq_supervisor.supervisor", "--settings-fd", str(descriptor))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point
