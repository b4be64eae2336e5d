"""The parent of the embedded PostgreSQL: starts it, says whether it is alive, and leaves nothing of it behind.

    python -P -m reproq_supervisor.process.guard --socket /run/app/.s.PGSQL.5432 [--user postgres] -- /path/of/postgres -D …

    supervisor ──INT, QUIT──► guard ──INT, QUIT──► server ──► backends
               ◄─ready, beat─       ◄──answer────

A frozen server acts on no signal and on nobody's death, so somebody beside it has to: this process kills it and, being a subreaper, all
that it leaves. It beats (a frame to the supervisor) only while the server answers and none of its processes is stopped; the supervisor's
deadline for signs of life does the rest.

When it fails: killed, the server gets QUIT by the kernel, and what does not go falls to the supervisor, which kills it. The supervisor
killed, the end of the channel tells; were we frozen, the kernel's SIGCONT wakes us for it.

Exit codes: the server's own; 70 when a signal ended it; 78 when it cannot be started.
"""

import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.process.launch import launch_argv
from reproq_supervisor.process.own_log import follow_log_of
from reproq_supervisor.process.prctl import become_subreaper, set_name, set_pdeathsig
from reproq_supervisor.process.probe import Probe, describe_processes, stopped_processes
from reproq_supervisor.process.proctable import children_of_self
from reproq_supervisor.process.server_log import ServerLog
from reproq_supervisor.process.spawn import adopt_channel, python_argv, spawn_child
from reproq_supervisor.process.title import ProcessTitle

MODULE = "reproq_supervisor.process.guard"
EXIT_KILLED = 70
BOOT_PROBE_S = 0.05
PROBE_S = 2.0
ANSWER_S = 5.0
"""A question that is not answered by then is asked again, and the silence told."""
IMMEDIATE_S = 0.5
"""What an immediate shutdown gets before everything is killed."""
DEATH_S = 1.0
"""How long a killed process is waited for: one that sits in the kernel must not keep us."""


def guard_argv(argv: Sequence[str], *, user: str | None, socket_path: str) -> list[str]:
    """Return the command line that runs the server *argv* under a guard."""
    options = ["--socket", socket_path, *(["--user", user] if user is not None else [])]
    return python_argv(MODULE, *options, "--", *argv)


class Guard:
    """One server's life: boot, beats, end."""

    def __init__(self, argv: Sequence[str], user: str | None, socket_path: str) -> None:
        self._channel = adopt_channel()
        self._channel.setblocking(False)
        self._socket_path = socket_path
        self._signals: set[int] = set()
        self._wake_fd = self._take_signals()
        self._frames = FrameReader()
        self._log = ServerLog.if_needed()
        self._server, self._pidfd = self._start(argv, user)
        self._selector = selectors.DefaultSelector()
        for source in (self._channel, self._pidfd, self._wake_fd):
            self._selector.register(source, selectors.EVENT_READ)
        if self._log is not None:
            self._selector.register(self._log, selectors.EVENT_READ)
        self._probe: Probe | None = None
        self._asked_mono = 0.0
        self._next_mono = 0.0
        self._is_ready = False
        self._in_trouble = False
        self._kill_mono: float | None = None

    def _start(self, argv: Sequence[str], user: str | None) -> tuple[int, int]:
        """Start the server; return its pid and pidfd."""
        log_fd = self._log.write_fd if self._log is not None else None
        started = spawn_child(launch_argv(argv, user=user, pdeathsig=signal.SIGQUIT), os.environ, stderr=log_fd)
        started.channel.close()
        if self._log is not None:
            self._log.hand_over()
        return started.pid, started.pidfd

    def _take_signals(self) -> int:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(signum, self._note)
        return read_fd

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signals.add(signum)

    def run(self) -> int:
        """Guard until the server has ended, and with it all that it started; return the exit code."""
        self._say("hello", pid=os.getpid())
        while (ended := os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)) is None:
            now = time.monotonic()
            if self._kill_mono is None:
                self._look_at_server(now)
            elif now >= self._kill_mono:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self._kill_mono = now + DEATH_S
            self._selector.select(max(0.0, min(self._next_mono, self._kill_mono or self._next_mono) - time.monotonic()))
            self._hear()
        kill_children()
        self._forward_log()  # its last words
        if ended.si_code == os.CLD_EXITED:
            return ended.si_status
        if self._kill_mono is None:
            self._say("failed", reason=f"the server was killed by signal {ended.si_status}", permanent=False)
        return EXIT_KILLED

    # -- the supervisor -----------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Take what came: signals, deaths, the end of the channel."""
        try:
            while os.read(self._wake_fd, 512):
                pass
        except BlockingIOError:
            pass
        signals, self._signals = self._signals, set()
        if signal.SIGCHLD in signals:
            self._reap_strangers()
        self._forward_log()
        if signal.SIGQUIT in signals or self._supervisor_is_gone():
            self._end_at_once()
        elif signals & {signal.SIGINT, signal.SIGTERM}:
            signal.pidfd_send_signal(self._pidfd, signal.SIGINT)  # its "fast" shutdown

    def _forward_log(self) -> None:
        if self._log is not None and not self._log.forward() and self._log in self._selector.get_map():
            self._selector.unregister(self._log)  # at its end it would be readable for ever

    def _supervisor_is_gone(self) -> bool:
        """Take what the supervisor says; answer whether it will say nothing more."""
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        for message in self._frames.feed_messages(data):
            if message.get("type") == "reopen" and self._log is not None:
                follow_log_of(os.getppid())
        return not data

    def _end_at_once(self) -> None:
        if self._kill_mono is not None:
            return
        if self._in_trouble:
            self._tell("postgres.processes", describe_processes(self._server))
        signal.pidfd_send_signal(self._pidfd, signal.SIGQUIT)
        self._next_mono = self._kill_mono = time.monotonic() + IMMEDIATE_S

    def _say(self, kind: str, **fields: object) -> None:
        try:
            self._channel.send(encode_message({"type": kind, **fields}))
        except OSError:
            return  # it is gone, which is seen by reading; or it does not read, and then a beat more is worth nothing

    def _tell(self, name: str, error: str) -> None:
        self._say("event", event={"name": name, "child": "postgres", "pid": self._server, "error": error})

    # -- the server ---------------------------------------------------------------------------------------------------

    def _look_at_server(self, now: float) -> None:
        """Ask whether it is alive, and tell when it is."""
        if self._probe is not None:
            if self._answer_is_here():
                self._drop_probe()
                self._judge(stopped_processes(self._server))
            elif now >= self._asked_mono + ANSWER_S:
                self._drop_probe()
                self._note_trouble(f"no answer for {ANSWER_S:g} s")
        if self._probe is None and now >= self._next_mono:
            self._ask(now)
            self._next_mono = now + (PROBE_S if self._is_ready else BOOT_PROBE_S)

    def _ask(self, now: float) -> None:
        try:
            self._probe, self._asked_mono = Probe(self._socket_path), now
        except OSError as error:
            if self._is_ready:
                self._note_trouble(f"no connection: {error}")
        else:
            self._selector.register(self._probe, selectors.EVENT_READ)

    def _answer_is_here(self) -> bool:
        assert self._probe is not None
        return bool(select.select([self._probe], [], [], 0)[0]) and self._probe.is_answered()

    def _drop_probe(self) -> None:
        assert self._probe is not None
        self._selector.unregister(self._probe)
        self._probe.close()
        self._probe = None

    def _judge(self, stopped: list[int]) -> None:
        if stopped:
            self._note_trouble(f"stopped by a signal: {', '.join(map(str, stopped))}")
            return
        if not self._is_ready:
            self._is_ready = True
            self._say("ready")
        self._in_trouble = False
        self._say("beat")

    def _note_trouble(self, error: str) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            self._tell("postgres.not_answering", error)

    def _reap_strangers(self) -> None:
        """Collect what the server's processes left to us; the server itself is looked after by its pidfd."""
        for pid in children_of_self():
            if pid != self._server:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def kill_children() -> None:
    """Kill and reap everything that fell to us, as far as it dies when killed."""
    deadline = time.monotonic() + DEATH_S
    while (children := children_of_self()) and time.monotonic() < deadline:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            pidfd = os.pidfd_open(pid)
            select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
            os.close(pidfd)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def main(arguments: Sequence[str]) -> int:
    """Guard the server that the arguments name; return the exit code."""
    import argparse  # here, because the supervisor imports this module for a command line only

    parser = argparse.ArgumentParser(prog="guard", description="Run a PostgreSQL server and leave nothing of it behind.")
    parser.add_argument("--socket", required=True, help="where it will listen")
    parser.add_argument("--user", default=None)
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args(arguments)
    parent = os.getppid()
    become_subreaper()
    set_name("reproq-guard")
    # Ignored by whoever runs, but it wakes who was stopped: also then somebody must act on the supervisor's death.
    set_pdeathsig(signal.SIGCONT, parent_pid=parent)
    guard = Guard(options.argv, options.user, options.socket)
    ProcessTitle().set("reproq: guard of postgres")
    return guard.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
