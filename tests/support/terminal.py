"""The reader of a page: types its commands in a shell, writes its files, and keeps the daemon that it starts running beside.

Variables and the folder carry over from one command to the next, as in a terminal. `reproq-supervisor run` stays in the background: the
next step comes when it is ready. The daemon has to end well, and nothing of it may be left.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.support.eventually import eventually
from tests.support.marked import MARK, marked_pids
from tests.support.pages import Command, NewFile, looks_like

CHECKOUT = Path(__file__).parents[2]
HANG_S = 120.0  # far more than anything takes on a busy machine
_SHIM = '#!/bin/sh\nexec {python} -P {module} "$@"\n'
# What the environment of the test run must not decide.
_FOREIGN = (
    *("REPROQ_CONFIG", "DATABASE_URL", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "PYTEST_CURRENT_TEST"),
)
_SCRIPT = """\
. {state}
{more}
cd "$READER_FOLDER" || exit 99
{command}
code=$?
READER_FOLDER=$PWD
export READER_FOLDER
export -p > {state}
exit $code
"""


class Terminal:
    """A shell in a folder of its own.

    Args:
      stands_for: what a page calls something (the URL of a database), and what it is here.
    """

    def __init__(self, stands_for: Mapping[str, str]) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="reproq-test-", dir="/tmp"))
        self.base.chmod(0o755)  # the embedded database may run as another user
        self.folder = self.base / "app"
        self.folder.mkdir()
        self._stands_for = dict(stands_for)
        self._log_path = self.base / "daemon.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._mark = uuid.uuid4().hex
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.bind(str(self.base / "notify.sock"))
        self._notes.setblocking(False)
        self._lay_out()

    @property
    def log(self) -> str:
        """What the daemons of this page wrote."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def _lay_out(self) -> None:
        """Make `reproq-supervisor` and `python` those of this test run."""
        bin_dir = self.base / "bin"
        bin_dir.mkdir()
        modules = {"reproq-supervisor": "-m reproq_supervisor", "reproq": "-m reproq_supervisor", "python": "", "python3": ""}
        for name, module in modules.items():
            script = bin_dir / name
            script.write_text(_SHIM.format(python=shlex.quote(sys.executable), module=module))
            script.chmod(0o755)
        environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        environ |= {"PATH": f"{bin_dir}:{environ.get('PATH', '')}", "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"}
        self._environ = environ
        self._state = self.base / "state.sh"
        self._state.write_text(f"export READER_FOLDER={shlex.quote(str(self.folder))}\n")

    def write(self, file: NewFile) -> None:
        """Write a file of the page, or add to it."""
        path = self.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if file.adds else "w") as opened:
            opened.write(self._as_here(file.text))

    def execute(self, statement: str) -> None:
        """Run SQL on the database of the page's daemon, or on the one that stands for a URL of the page."""
        records = list(self.folder.rglob("daemon.json"))
        told = json.loads(records[0].read_text())["dsn"] if records else None
        with psycopg.connect(told or next(iter(self._stands_for.values())), autocommit=True) as connection:
            connection.execute(statement.encode())

    def type(self, command: Command) -> None:
        """Run a command of the page, and compare what came of it with what the page says.

        Raises:
          AssertionError: it differs.
        """
        if command.text.split()[:2] in (["reproq-supervisor", "run"], ["reproq", "worker"]):
            self._start_daemon(command)
            return
        done = subprocess.run(
            ["bash", "-c", self._script(command.text)],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        printed = self._as_on_the_page(done.stdout)
        assert done.returncode == command.exit_code, f"exit code {command.exit_code} expected, got {done.returncode}:\n{printed}"
        if command.output is not None:
            assert looks_like(command.output, printed), f"the page shows:\n{command.output}\n\nit printed:\n{printed}"

    def _start_daemon(self, command: Command) -> None:
        if self._daemon is not None:
            assert self._daemon.wait(HANG_S) == 0, "the daemon before this one did not end well"
        more = f"export {MARK}={self._mark} NOTIFY_SOCKET={shlex.quote(str(self.base / 'notify.sock'))}"
        script = self._script(f"exec {command.text}", more)
        with self._log_path.open("ab") as log:
            self._daemon = subprocess.Popen(
                ["bash", "-c", script], env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        daemon = self._daemon

        def is_ready() -> bool:
            if daemon.poll() is not None:
                raise RuntimeError(f"the daemon ended with exit code {daemon.returncode} before it was ready")
            with suppress(BlockingIOError):
                return b"READY=1" in self._notes.recv(65536)
            return False

        eventually(is_ready, timeout=HANG_S, what="the daemon is ready")

    def _script(self, command: str, more: str = "") -> str:
        return _SCRIPT.format(state=shlex.quote(str(self._state)), more=more, command=self._as_here(command))

    def _as_here(self, text: str) -> str:
        for name, real in self._stands_for.items():
            text = text.replace(name, real)
        return text

    def _as_on_the_page(self, text: str) -> str:
        for name, real in self._stands_for.items():
            text = text.replace(real, name)
        return text.replace(str(self.folder), "/srv/app").replace(str(self.base), "/srv")

    def close(self) -> None:
        """End what runs and remove the folder.

        Raises:
          AssertionError: the daemon did not end well, or left a process.
        """
        try:
            if self._daemon is not None:
                if self._daemon.poll() is None:
                    self._daemon.send_signal(signal.SIGTERM)
                assert self._daemon.wait(HANG_S) == 0
                eventually(lambda: not marked_pids(self._mark), timeout=HANG_S, what="no process of the daemon is left")
        finally:
            for pid in marked_pids(self._mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._notes.close()
            shutil.rmtree(self.base, ignore_errors=True)
