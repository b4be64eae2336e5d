"""`run`: everything that has to be right before the supervisor starts, and the step that becomes it.

    load and validate ─► folders ─► embedded: initdb if need be │ external: is its schema ours? ─► memfd with the settings ─► exec

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
from reproq_supervisor.cli.daemon import DaemonRecord, absolute, find_record, is_answering
from reproq_supervisor.cli.database import EMBEDDED, DatabaseAwayError, SchemaOutdatedError, worded
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.places import Places, find_places, make_places
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.process.places import remove_temporary_dirs

if TYPE_CHECKING:
    from reproq_supervisor.process.embedded import Embedded
    from reproq_supervisor.settings.load import Loaded

_SCHEMA_TIMEOUT_S = 5.0


class DaemonRunsError(ReproqError):
    """A daemon of this configuration runs already."""


class EmbeddedDatabaseError(ReproqError):
    """The embedded database cannot be used."""

    exit_code = 69


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


@click.command(epilog=example("reproq-supervisor run -c supervisor.yaml", "reproq-supervisor run --dsn postgresql://app@db/app"))
@common_options
def run(options: Options) -> None:
    """Start the supervisor and its pools.

    Runs in the foreground until Ctrl-C or `reproq-supervisor stop`; a second Ctrl-C does not wait for running tasks.
    """
    loaded = options.load()
    _refuse_unprivileged(loaded)
    places = find_places(options.config_path, loaded.settings.control.socket, os.environ)
    _refuse_second(options, places)
    make_places(places, passable=loaded.settings.database == EMBEDDED and os.geteuid() == 0)
    with _only_start(places), ExitStack() as undo:  # undone only where there was no exec
        if places.short_dir:
            undo.callback(_remove_empty, places.short_dir)
        prepared = _prepare(options, loaded, places)
        if prepared.embedded:
            undo.callback(remove_temporary_dirs, prepared.embedded.temporary_dirs)
        _record(options, places, prepared).write(places.record)
        _introduce(options, loaded, places, prepared)
        _become_supervisor(_resolved(options, loaded, places, prepared))


def _record(options: Options, places: Places, prepared: Prepared) -> DaemonRecord:
    return DaemonRecord(
        os.getpid(), absolute(options.config_path), str(places.control_socket), prepared.dsn, embedded=prepared.embedded is not None
    )


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


def _refuse_second(options: Options, places: Places) -> None:
    record = find_record(options.config_path, os.environ)
    if record is not None and record.answers:
        who = f"pid {record.pid} at {record.control_socket}"
    elif is_answering(str(places.control_socket)):
        who = f"one at {places.control_socket}"
    else:
        return
    raise DaemonRunsError(f"daemon: expected none of this configuration, found {who}; stop it with: reproq-supervisor stop")


def _refuse_unprivileged(loaded: "Loaded") -> None:
    """Refuse what the daemon may not do, with its line, before anything of it is started.

    Raises:
      ConfigError: with every such setting.
    """
    from reproq_supervisor.process.privileges import find_lacking
    from reproq_supervisor.settings.complaints import place_problem
    from reproq_supervisor.settings.problems import ConfigError

    layers = loaded.layers
    problems = tuple(place_problem(lack.path, lack.message, lack.hint, layers) for lack in find_lacking(loaded.settings))
    if problems:
        raise ConfigError(layers.source, problems)


def _prepare(options: Options, loaded: "Loaded", places: Places) -> Prepared:
    dsn = loaded.settings.database
    return _prepare_embedded(options, places) if dsn == EMBEDDED else Prepared(dsn, notice=_check_schema(dsn))


def _prepare_embedded(options: Options, places: Places) -> Prepared:
    from reproq_supervisor.process.embedded import EmbeddedError, prepare

    if not (places.data_dir / "PG_VERSION").exists() and _is_told(options):
        options.output.line(f"Making a private PostgreSQL in {places.data_dir} …")
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


def _introduce(options: Options, loaded: "Loaded", places: Places, prepared: Prepared) -> None:
    """Tell a person what starts and how to look at it; programs are told in JSON, logs nothing."""
    settings, output = loaded.settings, options.output
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
    elif _is_told(options):
        config = f" -c {options.config}" if options.config else ""
        database = f"embedded, in {prepared.embedded.data_dir}" if prepared.embedded else "external"
        output.line(f"reproq-supervisor {reproq_supervisor.__version__}, pid {os.getpid()}", style="bold")
        output.line(f"  pools     {', '.join(settings.pools)} (queues {', '.join(queues)})")
        output.line(f"  database  {database}")
        output.line(f"  control   {places.control_socket}")
        output.line(f"  look      reproq-supervisor status{config}")
        output.line(f"  stop      Ctrl-C, or: reproq-supervisor stop{config}")
    if prepared.notice:
        from reproq_supervisor.settings.masking import mask_text

        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {mask_text(prepared.notice)}", err=True)


def _is_told(options: Options) -> bool:
    return not options.output.as_json and sys.stdout.isatty()


def _resolved(options: Options, loaded: "Loaded", places: Places, prepared: Prepared) -> dict[str, Any]:
    """Return the resolved settings of docs/architecture.md; what the flags said goes along, so that a reload keeps it."""
    from reproq_supervisor.settings.release import release_of
    from reproq_supervisor.settings.resolve import resolve

    runtime = {
        "config_path": absolute(options.config_path),
        "runtime_dir": str(places.runtime_dir),
        "state_dir": str(places.state_dir),
        "control_socket": str(places.control_socket),
        "dsn": prepared.dsn,
        "embedded": prepared.embedded.as_settings() if prepared.embedded else None,
        "temporary_dirs": [str(places.short_dir)] if places.short_dir else [],
        "overrides": options.overrides,
    }
    resolved = resolve(loaded.settings, runtime)
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
