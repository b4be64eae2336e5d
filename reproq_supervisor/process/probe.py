"""Is a PostgreSQL server of ours alive? Asked without a login, so that it costs no library, no connection slot and no line in its log.

The question is whether it would speak TLS (an SSLRequest of the frontend/backend protocol, 55.2.10): the postmaster has to accept the
connection and to fork a backend, and that has to read and to answer with one byte. It does so while the server recovers, too.
"""

import os
import socket
import struct
from pathlib import Path

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Probe:
    """One question to the server that listens at a Unix socket. Never blocks."""

    def __init__(self, path: str) -> None:
        """Ask.

        Raises:
          OSError: nobody listens there, or its queue of connections is full.
        """
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)
        try:
            self._sock.connect(path)
            self._sock.send(_SSL_REQUEST)
        except OSError:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with the answer."""
        return self._sock.fileno()

    def is_answered(self) -> bool:
        """Read; answer whether the server said anything. A connection that was only closed is no answer."""
        try:
            return bool(self._sock.recv(1))
        except OSError:
            return False

    def close(self) -> None:
        """Forget the question."""
        self._sock.close()


def stopped_processes(server_pid: int) -> list[int]:
    """Return which of the server's processes are stopped by a signal: they hold locks or whole duties, and do nothing."""
    return [pid for pid in server_processes(server_pid) if _state(pid) == "T"]


def server_processes(server_pid: int) -> list[int]:
    """Return the pids of the server and of its children; none when it is gone."""
    try:
        children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    except OSError:
        return []
    return [server_pid, *map(int, children)]


def describe_processes(server_pid: int) -> str:
    """Return what each process of the server does, for a log: pid, state of proc(5), its own title, and where in the kernel it waits."""
    return "; ".join(_describe(pid, is_child=pid != server_pid) for pid in server_processes(server_pid))


def _describe(pid: int, *, is_child: bool) -> str:
    try:
        title = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() if is_child else "postmaster"
        )
        where = Path(f"/proc/{pid}/wchan").read_text() if os.access(f"/proc/{pid}/wchan", os.R_OK) else ""
    except OSError:
        return f"{pid} gone"
    return f"{pid} {_state(pid)} {title}" + (f" in {where}" if where.strip("0") else "")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"
