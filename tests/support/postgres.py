"""Real PostgreSQL for tests: clusters that can be stopped, killed and frozen, and a fresh database for every test.

Fixtures (all in tests/conftest.py):

* ``cluster``: one server for the whole run. Tests share it, so they leave it alone.
* ``database``: a new, migrated database of its own, as ``Database``. ``empty_database``: the same without our schema.
* ``own_cluster``: a server for one test, to be hurt.

``REPROQ_TEST_PG_BIN`` chooses another server: a folder with ``postgres`` and ``initdb``, or ``oldest`` for the oldest one that
is installed on this machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from reproq_supervisor.process.embedded import Embedded, dsn_of, prepare
from reproq_supervisor.process.launch import launch_argv
from reproq_supervisor.process.places import remove_temporary_dirs
from tests.support.eventually import eventually

OLDEST_SUPPORTED = 15
INSTALLED = Path("/usr/lib/postgresql")
TEMPLATE = "reproq_template"
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
# Copying files takes 12 ms on a file system in memory and 300 ms on a disk; copying through the log 110 ms and 370 ms.
_CREATE = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
_MEMORY = Path("/dev/shm")
_PREFIX = "reproq-test-"
_MEMORY_NEEDED_BYTES = 2 << 30
_numbers = count(1)


def chosen_bin_dir() -> Path | None:
    """Return the folder of the server to test on, None for the wheel's."""
    chosen = os.environ.get("REPROQ_TEST_PG_BIN", "")
    if chosen == "oldest":
        installed = installed_bin_dirs()
        assert installed, f"REPROQ_TEST_PG_BIN=oldest: expected a PostgreSQL of {OLDEST_SUPPORTED} or later in {INSTALLED}, found none"
        return installed[0]
    return Path(chosen) if chosen else None


def installed_bin_dirs() -> list[Path]:
    """Return the folders of the servers that this machine has and that we support, the oldest first."""
    majors = sorted(int(path.name) for path in INSTALLED.glob("*") if path.name.isdigit() and int(path.name) >= OLDEST_SUPPORTED)
    return [INSTALLED / str(major) / "bin" for major in majors if (INSTALLED / str(major) / "bin" / "initdb").exists()]


@dataclass(frozen=True)
class Database:
    """A database for one test."""

    name: str
    dsn: str
    cluster: "Cluster"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open an autocommit connection; the caller closes it (``with database.connect() as connection``)."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own and return its rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters or None)
            return [] if cursor.description is None else cursor.fetchall()  # no columns are not no rows


class Cluster:
    """A PostgreSQL server of ours: a foreground child, which ends with this process however that dies."""

    def __init__(self, embedded: Embedded) -> None:
        self.embedded = embedded
        self.log = Path(embedded.socket_dir).parent / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """Pid of the postmaster."""
        assert self._process is not None, "the cluster is stopped"
        return self._process.pid

    def dsn(self, database: str = "postgres") -> str:
        return dsn_of(self.embedded.socket_dir, database)

    def start(self, *options: str) -> None:
        """Start the server, with more *options* for its command line, and wait until it answers."""
        assert self._process is None, "the cluster runs already"
        argv = launch_argv([*self.embedded.argv, *options], user=self.embedded.user, pdeathsig=signal.SIGQUIT)
        with self.log.open("ab") as log:
            # In a group of its own: Ctrl-C at a terminal is for us, who then end it in order. If we cannot, its death signal does.
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        eventually(self._answers, timeout=30, what=f"PostgreSQL answers (log: {self.log})")

    def stop(self) -> None:
        """Stop the server in order; connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Crash the server: kill -9 of the postmaster and of every backend."""
        self.thaw()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop every process of the server in its tracks, as a machine that hangs."""
        eventually(self._all_are_stopped, what="every process of the server is stopped")

    def _all_are_stopped(self) -> bool:
        """Stop what runs; a backend may have been forked or have ended meanwhile, and a signal takes a moment to arrive."""
        running = [process for process in self.processes() if _status(process) not in (psutil.STATUS_STOPPED, *_ENDED)]
        for process in running:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self._frozen += [process for process in running if process not in self._frozen]
        return not running

    def thaw(self) -> None:
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def processes(self) -> list[psutil.Process]:
        """Return the postmaster and its children; it comes first, so that it cannot start more while they are dealt with."""
        if self._process is None or self._process.poll() is not None:
            return []
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _end(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        self.thaw()
        rest = self.processes()
        self._process.send_signal(signum)
        self._process.wait(timeout=30)
        self._process = None
        eventually(lambda: all(_status(process) in _ENDED for process in rest), what="every process of the server is gone")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start, exit {self._process.returncode}:\n{self.log.read_text()[-4000:]}")
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    @contextmanager
    def new_database(self, template: str = "template1") -> Iterator[Database]:
        """Create a database as a copy of *template*, and drop it at the end, whoever is still connected."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with self.admin() as connection:
            connection.execute(_CREATE.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield Database(name, self.dsn(name), self)
        finally:
            self.thaw()
            if self.processes():
                with self.admin() as connection:
                    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def admin(self) -> psycopg.Connection[Any]:
        """Open an autocommit connection to the maintenance database."""
        return psycopg.connect(self.dsn(), autocommit=True)

    def ensure_template(self, migrate: Callable[[psycopg.Connection[Any]], object]) -> str:
        """Return the name of the database that *migrate* brought to our schema, made on the first call."""
        with self.admin() as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
                return TEMPLATE
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"{TEMPLATE}_new")))
        with psycopg.connect(self.dsn(f"{TEMPLATE}_new")) as connection:
            migrate(connection)
        with self.admin() as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (f"{TEMPLATE}_new", TEMPLATE))))
        return TEMPLATE


@contextmanager
def running_cluster(*options: str, durable: bool = False) -> Iterator[Cluster]:
    """Make and start a cluster in a temporary folder that its account can reach; everything is gone afterwards.

    Args:
      durable: on a disk, with every commit flushed: for benchmarks.
    """
    _remove_left_behind()
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/var/tmp" if durable else _fast_folder()))
    base.chmod(0o755)
    embedded = None
    try:
        embedded = prepare(base / "data", runtime_dir=base, bin_dir=chosen_bin_dir(), durable=durable)
        cluster = Cluster(embedded)
        try:
            cluster.start("-c", "max_connections=200", "-c", "max_wal_size=256MB", *options)
            yield cluster
        finally:
            cluster.stop()
    finally:
        if embedded is not None:
            remove_temporary_dirs(embedded.temporary_dirs)
        shutil.rmtree(base, ignore_errors=True)


def _fast_folder() -> str:
    """Return a file system in memory where there is one with room (containers often have 64 MB), else the usual place."""
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_NEEDED_BYTES:
        return str(_MEMORY)
    return "/tmp"


def _remove_left_behind() -> None:
    """Remove the clusters of test runs that were killed: their servers are gone, but the files are memory."""
    for folder in _MEMORY.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status()) if process.is_running() else psutil.STATUS_DEAD
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
