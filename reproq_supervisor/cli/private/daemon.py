"""A private daemon: started like a service, told to stop by a signal, and looked after until nothing of it is left."""

import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from reproq_supervisor.cli.daemon.record import DaemonRecord, read_record
from reproq_supervisor.cli.private.ground import PrivateGround
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.process.launch import launch_argv
from reproq_supervisor.process.places import remove_left_behind, remove_temporary_dirs
from reproq_supervisor.process.prctl import become_subreaper
from reproq_supervisor.process.proctable import children_of_self, command_name
from reproq_supervisor.process.spawn import python_argv

# initdb takes two seconds on a machine that is idle.
_READY_TIMEOUT_S = 120.0
# Twice what private configurations allow for running tasks, and something for the database.
_STOP_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
_PAUSE_S = 0.05
_LOG_TAIL_LINES = 20
# What would lead the daemon to another database, folder or service manager.
_FOREIGN = {"REPROQ_CONFIG", "DATABASE_URL", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


class DaemonFailedError(ReproqError):
    """The daemon did not start, or ended by itself; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Departure:
    """How the daemon went.

    Attributes:
      exit_code: negative for a signal.
      processes: names of the processes that outlived it; they have been killed.
      folders: what it left outside the private folder; they have been removed.
    """

    exit_code: int = 0
    processes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def complaints(self) -> list[str]:
        """Say what it should not have done: empty when it drained in order and left nothing."""
        found = []
        if self.exit_code:
            found.append(f"daemon: expected exit code 0 after TERM, got {self.exit_code}")
        if self.processes:
            found.append(f"daemon: expected to leave no process, found {', '.join(self.processes)}; they have been killed")
        if self.folders:
            found.append(f"daemon: expected to leave no folder, found {', '.join(self.folders)}; they have been removed")
        return found


class PrivateDaemon:
    """One `reproq-supervisor run`. This process adopts whatever the daemon would leave behind, so it sees all of it."""

    def __init__(self, ground: PrivateGround, interruption: Interruption) -> None:
        self._ground = ground
        self._interruption = interruption
        self._process: subprocess.Popen[bytes] | None = None
        self._record: DaemonRecord | None = None
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def start(self) -> None:
        """Start the daemon; it gets a TERM should this process die."""
        become_subreaper()
        # An abstract name: paths of sockets are limited to 107 bytes, and a private folder may be deep.
        name = f"reproq-private-{uuid.uuid4().hex}"
        self._notes.bind(f"\0{name}")
        env = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
        env |= {"NOTIFY_SOCKET": f"@{name}", **self._ground.variables}
        argv = launch_argv(python_argv("reproq_supervisor", "run", "-c", str(self._ground.config)), user=None, pdeathsig=signal.SIGTERM)
        # In a session of its own, so that a Ctrl-C reaches the command alone, which then stops the daemon in order.
        with self._interruption.held(), self._ground.daemon_log.open("ab") as log:
            self._process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self) -> str:
        """Wait until the daemon says that it is ready; return the URL of its database.

        Raises:
          DaemonFailedError: it ended before, or took too long.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        self._notes.settimeout(_PAUSE_S)
        while True:
            self.check()
            with suppress(TimeoutError):
                if b"READY=1" in self._notes.recv(65536).splitlines():
                    break
            if time.monotonic() > deadline:
                raise self._failed(f"to be ready within {_READY_TIMEOUT_S:g} s, found that it is not")
        self._record = read_record(self._ground.places.record)
        if self._record is None or self._record.dsn is None:
            raise self._failed(f"a record of its database in {self._ground.places.record}, found none")
        return self._record.dsn

    def check(self) -> None:
        """Raise `DaemonFailedError` if the daemon has ended."""
        assert self._process is not None, "the daemon was not started"
        if (code := self._process.poll()) is not None:
            raise self._failed(f"to run, found that it ended with exit code {code}")

    def stop(self) -> Departure:
        """Let the daemon drain and end, with TERM; a second interruption makes it quick. Clears up what it leaves."""
        self._notes.close()
        if self._process is None:
            return Departure()
        with self._interruption.held():
            departure = Departure(self._end(self._process), _kill_children(), self._remove_outside())
        # Who is stopped while starting need not go in order.
        return departure if self._record else Departure()

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        quick = False
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        process.terminate()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_PAUSE_S)
            if self._interruption.count > 1 and not quick:
                quick = True
                process.send_signal(signal.SIGQUIT)
            if time.monotonic() > deadline:
                process.kill()
                deadline = float("inf")

    def _remove_outside(self) -> tuple[str, ...]:
        """Remove the short private folders that sockets in a deep checkout need; the daemon should have done so."""
        record, data_dir = read_record(self._ground.places.record), self._ground.places.data_dir
        places = [self._ground.places.control_socket.parent]
        if record is not None and record.dsn is not None:
            places += [Path(host) for host in parse_qs(urlsplit(record.dsn).query)["host"]]
        found = sorted({str(place) for place in places if place.exists() and not place.is_relative_to(self._ground.folder)})
        remove_temporary_dirs(found)
        remove_left_behind(data_dir)  # when it was interrupted before it had a record
        return tuple(found)

    def log_tail(self) -> list[str]:
        """Return the end of its log, indented, under a heading."""
        lines = self._ground.daemon_log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return ["the end of the daemon's log:", *(f"  {line}" for line in lines)]

    def _failed(self, expected: str) -> DaemonFailedError:
        return DaemonFailedError("\n".join([f"daemon: expected {expected}", *self.log_tail()]))


def _kill_children() -> tuple[str, ...]:
    """Kill every process that was left to us, and those that are left to us thereby; return their names."""
    names: list[str] = []
    killed: set[int] = set()
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while living := _children():
        for pid in living:
            if pid not in killed:
                killed.add(pid)
                names.append(command_name(pid))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_S)
    return tuple(names)


def _children() -> list[int]:
    """Return our living children; the dead are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return children_of_self()
