"""The real PgBouncer in transaction mode, where this machine has one."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from reproq_supervisor.process.launch import launch_argv
from tests.support.eventually import eventually
from tests.support.postgres import Database

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
PORT = 6432
_CONFIG = """
[databases]
* = host={server} port=5432 user=reproq
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
logfile = {folder}/log
{more}
"""


def version() -> tuple[int, ...]:
    """Return the version of the PgBouncer of this machine; nothing where there is none."""
    if PROGRAM is None:
        return ()
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", told)
    assert found is not None, told
    return int(found[1]), int(found[2])


@contextmanager
def pooled(database: Database, *, size: int, more: str = "") -> Iterator[Database]:
    """Yield *database* as it is reached through a pooler with *size* connections to the server; *more*: lines for its configuration."""
    assert PROGRAM is not None, "no PgBouncer"
    embedded = database.cluster.embedded
    folder = Path(tempfile.mkdtemp(prefix="reproq-bouncer-", dir="/tmp"))
    try:
        config = folder / "pgbouncer.ini"
        config.write_text(_CONFIG.format(server=embedded.socket_dir, folder=folder, port=PORT, size=size, more=more))
        folder.chmod(0o755)
        if embedded.user is not None:
            # It will not run as root, and the socket of the server belongs to this account.
            shutil.chown(folder, embedded.user)
        argv = launch_argv([PROGRAM, str(config)], user=embedded.user, pdeathsig=signal.SIGKILL)
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            dsn = f"postgresql://reproq@/{database.name}?host={quote(str(folder), safe='')}&port={PORT}"
            eventually(lambda: _answers(process, folder, dsn), timeout=30, what="PgBouncer answers")
            yield Database(database.name, dsn, database.cluster)
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(process: "subprocess.Popen[bytes]", folder: Path, dsn: str) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"PgBouncer ended with exit code {process.returncode}:\n{(folder / 'output').read_text()[-2000:]}")
    try:
        with psycopg.connect(dsn, connect_timeout=2, autocommit=True, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")
            return True
    except psycopg.OperationalError:
        return False
