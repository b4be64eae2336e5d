"""A private redis-server on a Unix socket, as shipped, but without snapshots: nothing that it accepts survives its end."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.contenders.contender import require_program
from tests.support.eventually import eventually

REDIS_SERVER = require_program("redis-server")


@contextmanager
def redis_socket() -> Iterator[Path]:
    """Run a server; yield the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="reproq-bench-") as folder:
        socket = Path(folder) / "redis.sock"
        argv = [REDIS_SERVER, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", folder]
        with (Path(folder) / "redis.log").open("wb") as log:
            server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(lambda: _answers(socket), timeout=30, what="redis-server answers")
            yield socket
        finally:
            server.terminate()
            server.wait(30)


def _answers(socket: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
