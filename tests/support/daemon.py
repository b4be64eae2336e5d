"""The real daemon as a subprocess, with everything that a test asks of it, and the proof that nothing of it is left.

Fixture (tests/conftest.py): ``start_daemon(config)`` starts one, waits until it is ready, and at the end of the test stops it and
fails the test if any process of it is alive. Its log is shown with a failed test.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually

CHECKOUT = Path(__file__).parents[2]
MARK = "REPROQ_TEST_MARK"
READY_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 60.0

# What a process is by its command line, until it has set a title.
_MODULES = {
    "supervisor": "supervisor",
    "pool": "shard",
    "keeper": "keeper",
    "executor": "nursery",
    "process": "guard",
    "store": "prepare",
    "settings": "loader",
}
_TITLE = re.compile(r"^reproq: (\w+)")
_MODULE = re.compile(r"-m reproq_supervisor\.(\w+)")
# What the environment of the test run must not decide.
_FOREIGN = (
    *("REPROQ_CONFIG", "DATABASE_URL", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
)


def demo_config(dsn: str, *, pool: Mapping[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a configuration that runs `workers.demo` on *dsn* with short times; *pool* and *keys* change single keys of it."""
    default = {
        "queues": ["default"],
        "executors": 2,
        "grace": "1s",
        "lease": "15s",
        "heartbeat": "1s",
        "poll": {"min": "250ms", "max": "1s"},
    }
    return {
        "database": dsn,
        "app": {"path": [str(CHECKOUT)], "preload": ["workers.demo.tasks"], "allowed_task_modules": ["workers.demo."]},
        "shutdown_timeout": "10s",
        "pools": {"default": {**default, **(pool or {})}},
        **keys,
    }


class Daemon:
    """One `reproq-supervisor run`, with a configuration file, a folder and a mark of its own."""

    def __init__(self, config: Mapping[str, Any], *, env: Mapping[str, str] | None = None, view: Sequence[str] = ()) -> None:
        self._view = view
        self.folder = Path(tempfile.mkdtemp(prefix="reproq-test-", dir="/tmp"))
        self.folder.chmod(0o755)  # the embedded database may run as another user
        self.config_path = self.folder / "supervisor.yaml"
        self.log_path = self.folder / "daemon.log"
        self.configure(config)
        self._mark = uuid.uuid4().hex
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.bind(str(self.folder / "notify.sock"))
        (self.folder / "notify.sock").chmod(0o777)  # the daemon may be somebody else
        self._notes.setblocking(False)
        self._env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        self._env |= {MARK: self._mark, "NOTIFY_SOCKET": str(self.folder / "notify.sock"), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._last_log = ""
        self.notes: list[str] = []

    @property
    def pid(self) -> int:
        """Pid of the supervisor."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the daemon wrote so far, all of its runs."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else self._last_log

    def configure(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration file; a running daemon learns of it by `reload`."""
        self.config_path.write_text(json.dumps(config, indent=2))  # JSON is YAML
        # A reload waits until a file has rested for a moment: let this one look as if it had.
        rested_at = time.time() - 60.0
        os.utime(self.config_path, (rested_at, rested_at))

    def start(self, *arguments: str, until_ready: bool = True) -> None:
        """Start the daemon, with more *arguments* for `run`."""
        assert self._process is None or self._process.poll() is not None, "the daemon runs already"
        argv = [*self._view, *self._program("run"), *arguments]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                argv, env=self._env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if until_ready:
            self.wait_noted("READY=1")

    def wait_noted(self, note: str, timeout: float = READY_TIMEOUT_S) -> None:
        """Wait until the daemon told its service manager *note*, and forget what it told before."""

        def told() -> bool:
            self._read_notes()
            if note in self.notes:
                return True
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"the daemon ended with exit code {self._process.returncode} before {note}:\n{self.log[-4000:]}")
            return False

        eventually(told, timeout=timeout, what=f"the daemon tells {note}")
        del self.notes[: self.notes.index(note) + 1]

    def command(self, *arguments: str, timeout: float = EXIT_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run another command of the program against this daemon's configuration."""
        env = {name: value for name, value in self._env.items() if name not in (MARK, "NOTIFY_SOCKET")}
        argv = self._program(*arguments)
        return subprocess.run(argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False)

    def answer(self, *arguments: str, timeout: float = EXIT_TIMEOUT_S) -> Any:
        """Run a command with `--json` and return what it answers; it must succeed."""
        done = self.command(*arguments, "--json", timeout=timeout)
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}: {done.stderr or done.stdout}"
        return json.loads(done.stdout)

    def signal(self, signum: signal.Signals) -> None:
        """Send *signum* to the supervisor."""
        os.kill(self.pid, signum)

    def wait_exit(self, timeout: float = EXIT_TIMEOUT_S) -> int:
        """Return the supervisor's exit code, negative for a signal, when it has ended."""
        assert self._process is not None, "the daemon was not started"
        return self._process.wait(timeout)

    def stop(self) -> int:
        """Ask the daemon to drain and end, as a service manager would; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit()

    def processes(self) -> dict[int, str]:
        """Return every living process of this daemon, by pid with its kind; what tasks left behind is `other`."""
        found = {pid: kind for pid in _marked(self._mark) if (kind := _kind_of(pid))}
        # A fork has its nursery's title.
        return {pid: "executor" if kind == "nursery" and found.get(_parent_of(pid)) == "nursery" else kind for pid, kind in found.items()}

    def pids(self, kind: str) -> list[int]:
        """Return the pids of one kind: supervisor, postgres, keeper, shard, nursery, executor, prepare, loader, other."""
        return sorted(pid for pid, found in self.processes().items() if found == kind)

    def wait_gone(self, timeout: float = 10.0) -> None:
        """Wait until no process of this daemon is alive, escaped grandchildren included."""
        eventually(lambda: not self.processes() or _raise_left(self.processes()), timeout=timeout, what="no process of the daemon is left")

    def close(self) -> None:
        """End the daemon if it runs, and remove its folder.

        Raises:
          AssertionError: a process of it outlived it.
        """
        try:
            if self._process is not None and self._process.poll() is None:
                self._end()
            self.wait_gone()
        finally:
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._notes.close()
            self._last_log = self.log
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        self.signal(signal.SIGCONT)  # a test may have frozen it
        self.signal(signal.SIGQUIT)
        try:
            self.wait_exit(20)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait_exit()
            raise AssertionError("the daemon: expected to end within 20 s of SIGQUIT") from None

    def _program(self, command: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "reproq_supervisor", command, "-c", str(self.config_path), *arguments]

    def _read_notes(self) -> None:
        while True:
            try:
                self.notes += self._notes.recv(65536).decode().splitlines()
            except BlockingIOError:
                return


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):  # empty for zombies
                    found.append(int(name))
            except OSError:
                continue  # gone, or of somebody else
    return found


def _kind_of(pid: int) -> str | None:
    """Return what *pid* is, None when it is gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
    if title := _TITLE.match(command):
        return title[1]
    if module := _MODULE.search(command):
        return _MODULES.get(module[1], "other")
    return "postgres" if name == "postgres" else "other"


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _raise_left(left: dict[int, str]) -> bool:
    raise AssertionError(f"left: {left}")
