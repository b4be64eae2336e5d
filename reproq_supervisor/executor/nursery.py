"""The nursery: imports the application once, freezes it, and forks executors from it.

    shard ──fork──► nursery ──fork()──► executor     descriptors go back to the shard
    shard ◄─exited─ nursery             (dead, unreaped: its process group still exists)
    shard   kills the group
    shard ──reap──► nursery             waits for the pid; only now may it be used again

It has one thread and no connection. It is a subreaper: what escaped from an executor lands here, is killed and reaped. When
the shard is gone (end of the channel, or SIGTERM as the parent's death signal) it kills all it owns, and leaves only when
nothing of it is left.

When it fails: killed, its executors die with it (PDEATHSIG) and strangers fall to the shard, a subreaper too. Frozen, the shard's pings go
unanswered and the shard kills it. When the shard is frozen, the nursery reads the deadline table and kills what is overdue.

After every fork the nursery copies each page that it writes to, and code that runs writes to the objects it goes through. So the way from
one fork to the next has few of them: `epoll` itself instead of `selectors`, a list of descriptors instead of an `ExitStack`.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from reproq_supervisor.core.frames import FrameReader, encode_message, encode_numbers
from reproq_supervisor.executor.capture import new_capture_file
from reproq_supervisor.executor.elders import Elders
from reproq_supervisor.executor.executor import ExecutorPlan, ExecutorStart, executor_main
from reproq_supervisor.executor.strangers import Strangers
from reproq_supervisor.process import clock
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import send_frame
from reproq_supervisor.process.masks import signals_blocked
from reproq_supervisor.process.own_log import follow_log_of


@dataclass(slots=True)
class _Executor:
    pid: int
    row: int
    pidfd: int
    exited: bool = False


class Nursery:
    """Owns the executors of one shard."""

    def __init__(self, channel: socket.socket, table: DeadlineTable, settings: Mapping[str, Any]) -> None:
        self._channel = channel
        self._table = table
        self._plan: ExecutorPlan = settings["plan"]
        self._tick_s: float = settings["tick_s"]
        self._elders: Elders = settings["elders"]
        self._log_fd: int = settings["log_fd"]  # our log once more, for the stacks of executors
        self._executors: dict[int, _Executor] = {}
        self._reader = FrameReader()
        self._watched: dict[int, _Executor] = {}  # by pidfd
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._leaving = False
        self._unheard = False  # the shard does not read, so nothing is said to it any more
        self._strangers = Strangers(lambda pid, command: self._say({"type": "stranger", "pid": pid, "command": command}))
        self._next_kill: float | None = None  # boot time of the nearest deadline

    def run(self) -> None:
        """Serve the shard until it is gone or says `leave`, and everything owned is dead."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whatever the imports held back
        for fd in (self._channel.fileno(), self._wake_read, self._elders.supervisor):
            self._epoll.register(fd, select.EPOLLIN)
        self._say({"type": "ready"})
        while not self._leaving:
            for fd, _ in self._epoll.poll(self._wait_s()):
                self._handle(fd)
            self._look_after_executors()
            self._elders.look(time.monotonic())
        self._end_everything()

    def _wait_s(self) -> float | None:
        to_kill_s = None if self._next_kill is None else max(0.0, self._next_kill - clock.boot_time_s())
        waits = [self._tick_s if self._executors else None, to_kill_s, self._elders.wait_s(time.monotonic())]
        return min((wait for wait in waits if wait is not None), default=None)

    def _on_term(self, *_: object) -> None:
        self._leaving = True

    def _handle(self, fd: int) -> None:
        if (executor := self._watched.get(fd)) is not None:
            self._report_exit(executor)
        elif fd == self._channel.fileno():
            self._read_channel()
        elif fd == self._wake_read:
            os.read(self._wake_read, 4096)
        elif fd == self._elders.supervisor:
            self._epoll.unregister(fd)
            self._elders.supervisor_died(time.monotonic())

    def _read_channel(self) -> None:
        try:
            data = self._channel.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._leaving = True
            return
        for message in self._reader.feed_messages(data):
            match message["type"]:
                case "fork":
                    self._fork(message["slot"])
                case "reap":
                    self._reap(message["pid"])
                case "ping":
                    self._say({"type": "pong"})
                case "reopen":
                    if follow_log_of(os.getppid()):
                        os.dup2(2, self._log_fd, inheritable=False)
                case "leave":
                    self._leaving = True
                case unknown:
                    print(f"nursery: unknown message {unknown!r} ignored", file=sys.stderr)  # noqa: T201

    def _say(self, message: dict[str, object]) -> None:
        self._send(encode_message(message))

    def _send(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        if self._unheard:
            return
        try:
            send_frame(self._channel, frame, descriptors)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            # Gone, or it has not read for so long that it must be frozen: what overdue executors need is a nursery that does not wait.
            self._leaving = self._unheard = True

    # -- fork ---------------------------------------------------------------------------------------------------------

    def _fork(self, row: int) -> None:
        """Fork an executor and send the shard its ends; what cannot be forked now harms nobody, and the shard will ask again."""
        ends: list[int] = []
        try:
            pid, descriptors = self._fork_with_ends(row, ends)
        except OSError as error:
            self._say({"type": "not_forked", "slot": row, "error": f"{type(error).__name__}: {error}"})
        else:
            self._send(encode_numbers("forked", {"slot": row, "pid": pid, "descriptors": len(descriptors)}), descriptors)
        finally:
            for fd in ends:
                os.close(fd)

    def _fork_with_ends(self, row: int, ends: list[int]) -> tuple[int, tuple[int, ...]]:
        """Fork, and return the child with the shard's ends; the caller closes whatever is in *ends*, also after a failure."""
        shard, executor_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs, ours = shard.detach(), executor_end.detach()
        ends += (theirs, ours)
        tokens_read, tokens_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        ends += (tokens_read, tokens_write)
        files: tuple[int, ...] = ()
        for name in ("reproq-stdout", "reproq-stderr") if self._plan.keep_output else ():
            files += (new_capture_file(name),)
            ends.append(files[-1])
        nursery_pid = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        with signals_blocked():
            pid = os.fork()
            if pid == 0:
                self._close_in_child(theirs, tokens_write)
                if not files:
                    files = (os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR))
                self._become_executor(
                    ExecutorStart(
                        plan=self._plan,
                        row=row,
                        table=self._table,
                        work=socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, ours),
                        tokens_fd=tokens_read,
                        stdout_fd=files[0],
                        stderr_fd=files[1],
                        nursery_pid=nursery_pid,
                    )
                )
            pidfd = _pidfd_of(pid)
        executor = _Executor(pid, row, pidfd)
        self._executors[pid] = executor
        self._watched[pidfd] = executor
        self._epoll.register(pidfd, select.EPOLLIN)
        return pid, (theirs, pidfd, tokens_write, tokens_read, *files)

    def _close_in_child(self, *more: int) -> None:
        # A copy of the channel or of a sibling's ends would hide the death of their owners.
        self._epoll.close()
        self._channel.close()
        self._elders.close()
        for executor in self._executors.values():
            os.close(executor.pidfd)
        for fd in (self._wake_read, self._wake_write, *more):
            os.close(fd)

    def _become_executor(self, start: ExecutorStart) -> NoReturn:
        status = 70
        try:
            status = executor_main(start)
        except BaseException as error:  # boundary: nothing of the nursery's stack may run in the child
            os.write(2, f"executor: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)

    # -- watch --------------------------------------------------------------------------------------------------------

    def _report_exit(self, executor: _Executor) -> None:
        """Tell the shard, and leave the zombie: its pid must stay taken until the whole group was killed."""
        ended = os.waitid(os.P_PID, executor.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return  # the event was for the one before, which had the same descriptor and was reaped in this very batch of events
        self._unwatch(executor)
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self._send(encode_numbers("exited", {"pid": executor.pid, "status": status}))
        self._strangers.look_soon()

    def _reap(self, pid: int) -> None:
        executor = self._executors.pop(pid, None)
        if executor is None:
            return
        if not executor.exited:
            # The shard killed it and says so before we saw it dead; the event may be in the batch that is being handled.
            self._unwatch(executor)
        os.waitpid(pid, 0)
        os.close(executor.pidfd)
        self._send(encode_numbers("reaped", {"pid": pid}))
        self._strangers.kill(self._executors)

    def _unwatch(self, executor: _Executor) -> None:
        executor.exited = True
        del self._watched[executor.pidfd]
        self._epoll.unregister(executor.pidfd)

    def _look_after_executors(self) -> None:
        self._kill_overdue()
        self._report_stops()
        self._strangers.look(self._executors)

    def _kill_overdue(self) -> None:
        """Kill whose lease is about to end, and note when the next one is due."""
        now = clock.boot_time_s()
        killed: list[tuple[int, float]] = []
        self._next_kill = None
        for executor in self._executors.values():
            kill_at = 0.0 if executor.exited else self._table.kill_at(executor.row)
            if not kill_at:
                continue
            if now < kill_at:
                self._next_kill = kill_at if self._next_kill is None else min(kill_at, self._next_kill)
                continue
            self._table.set_kill_at(executor.row, 0.0)
            _kill_group(executor.pid)
            killed.append((executor.pid, clock.boot_time_s() - kill_at))
        # Told when all are dead: a frozen shard does not read, and its socket may be full.
        for pid, late_s in killed:
            self._say({"type": "overdue", "pid": pid, "late_s": round(late_s, 6)})

    def _report_stops(self) -> None:
        try:
            # One call for all children, most often without an answer; a dead one has no such states, and its pidfd will tell.
            while state := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG):
                if state.si_pid in self._executors:
                    self._say({"type": "stopped" if state.si_code == os.CLD_STOPPED else "continued", "pid": state.si_pid})
        except ChildProcessError:
            return

    def _end_everything(self) -> None:
        for executor in self._executors.values():
            _kill_group(executor.pid)
        for executor in self._executors.values():
            os.waitpid(executor.pid, 0)
        self._executors.clear()
        self._strangers.end()


def _pidfd_of(pid: int) -> int:
    """Open the pidfd of a new child; a child that cannot be watched may not live."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _kill_group(leader: int) -> None:
    """Kill the group led by *leader*, an unreaped child; it may not have become a leader yet."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
