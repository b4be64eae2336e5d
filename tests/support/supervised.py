"""A real supervisor process with small real children, for tests that kill, freeze, reload and stop them."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproq_supervisor.supervisor.client import ControlClient, DaemonUnavailable
from tests.sim.settings import pool as pool_settings
from tests.sim.settings import settings as resolved_settings
from tests.support.eventually import eventually

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
ROOT = Path(__file__).resolve().parents[2]


def fake(script: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a pool whose shards do as *script* says (see `fake_child`), with deadlines short enough for a test."""
    defaults = {"heartbeat": 0.3, "grace": 0.5, "boot_timeout": 20.0, "timeout": 5.0, "env": {"FAKE": json.dumps(script or {})}}
    return pool_settings(**{**defaults, **changes})


class Supervised:
    """One supervisor in a folder of its own."""

    def __init__(self, pools: Mapping[str, Any] | None = None, *, env: Mapping[str, str] | None = None, **changes: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reproq-sup-", dir="/tmp"))
        self.config = self.folder / "config.json"
        self.log_path = self.folder / "log"
        self.settings = self._settings(pools or {"mail": fake()}, **changes)
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self.client = ControlClient(self.settings["runtime"]["control_socket"])
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[int] = set()

    def _settings(self, pools: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        settings = resolved_settings(pools, **changes)
        runtime = {"config_path": str(self.config), "runtime_dir": str(self.folder), "control_socket": str(self.folder / "control")}
        settings["runtime"] |= runtime
        return settings

    def start(self, *, until: str | None = "running") -> "Supervised":
        """Start it, and wait until its state is *until*."""
        memfd = os.memfd_create("settings", 0)
        os.write(memfd, json.dumps(self.settings).encode())
        os.lseek(memfd, 0, os.SEEK_SET)
        argv = [sys.executable, "-P", "-m", "tests.support.fake_supervisor", "--settings-fd", str(memfd)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(argv, env=self.env, pass_fds=[memfd], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        os.close(memfd)
        if until is not None:
            eventually(lambda: self.status()["state"] == until, what=f"state {until}", timeout=20)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """Ask the supervisor something; an error of the connection is one that `eventually` waits out."""
        try:
            return self.client.request({"command": command, **fields}, timeout_s=30)
        except DaemonUnavailable as error:
            raise ConnectionError(str(error)) from error

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.ask("status")["status"]
        self.seen |= {child["pid"] for child in status["children"] if child["pid"]}
        return status

    def children(self, role: str | None = None, state: str | None = None) -> list[dict[str, Any]]:
        """Return the children as `status` has them."""
        found = self.status()["children"]
        return [c for c in found if (role is None or c["role"] == role) and (state is None or c["state"] == state)]

    def pids(self) -> dict[str, int]:
        """Return the pids of the children that are ready, by name."""
        return {child["child"]: child["pid"] for child in self.children(state="ready")}

    def heard(self, name: str, pid: int) -> list[dict[str, Any]]:
        """Return what the supervisor has told a child."""
        path = self.folder / f"heard-{name.replace('/', '-')}-{pid}"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def write_config(self, pools: Mapping[str, Any], **changes: Any) -> None:
        """Let the next reload find these settings."""
        self.config.write_text(json.dumps({"type": "settings", "settings": self._settings(pools, **changes)}))

    def write_problems(self, *messages: str) -> None:
        """Let the next reload find these problems."""
        problems = [{"path": "pools.mail", "line": 3, "column": 1, "message": message, "hint": None} for message in messages]
        self.config.write_text(json.dumps({"type": "problems", "problems": problems}))

    def signal(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait_exit(self, timeout: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def close(self) -> None:
        """End it by force if it lives, and prove that nothing of it is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        try:
            eventually(lambda: not [pid for pid in self.seen if _is_alive(pid)], what="no child outlives the supervisor")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class NotifySocket:
    """Listens as a service manager would; *abstract* without a path in the file system.

    Attributes:
      notes: every datagram so far, as its fields.
      senders: who sent each, as the kernel says.
    """

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"reproq-test-{os.getpid()}-{id(self)}"
        self.address = f"@{name}" if abstract else str(folder / "notify")
        self.sock.bind("\0" + name if abstract else self.address)
        self.notes: list[dict[str, str]] = []
        self.senders: list[int] = []

    def read(self) -> list[dict[str, str]]:
        """Return every datagram so far, as its fields."""
        while True:
            try:
                text, ((_, _, credentials), *_), _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return self.notes
            self.notes.append(dict(line.split("=", 1) for line in text.decode().splitlines()))
            self.senders.append(_CREDENTIALS.unpack(credentials)[0])

    def close(self) -> None:
        self.sock.close()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
