"""Run one attempt in a program that speaks the executor protocol (`isolation: exec`).

    executor ──fork, exec──► program          same session and group: what kills the executor's group kills it, too
       │  soft signal ──TERM to the group──►  it may clean up; how it ends then is its affair
       │ ◄──────────────SIGCHLD────────────   dead, unreaped
       └─ reads the envelope from descriptor 1, reports, leaves

Descriptors 1 and 2 of the executor are its capture files, and the program inherits them: whatever it writes is written at once, nobody
drains, and nobody waits for the end of a pipe that a grandchild holds open. The shard cuts what grows too large, as in every isolation.

When it fails: the executor killed, the program has the same as its death signal, and the shard kills the group. The program killed by a
signal before it said anything, the executor dies of the same one: what follows is what follows the crash of any executor. The program
stopped for longer than a heartbeat, the executor dies as one that was stopped itself: by KILL.
"""

import os
import resource
import signal
import time
from contextlib import ExitStack
from typing import NoReturn

from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import MAX_RESULT_BYTES, PayloadMode, Result, Verdict, Work
from reproq_supervisor.executor.attempt import InvalidSpecError, read_call
from reproq_supervisor.executor.command import Command
from reproq_supervisor.executor.encode import BadResultError, encode_error, encode_failure, encode_result
from reproq_supervisor.executor.envelope import Failure, NoEnvelopeError, Success, read_envelope
from reproq_supervisor.executor.resolve import ForbiddenTaskError, Resolver
from reproq_supervisor.process.bound import start_bound
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable

START_AGAIN_AFTER_S = 10.0
"""The contract's delay after a program that could not be started."""

# Held back and taken one by one. TERM is for the program: the executor must outlive it to tell how it ended.
_TAKEN = frozenset({signal.SIGCHLD, SOFT_SIGNAL})
_HELD = _TAKEN | {signal.SIGTERM}


class CommandAttempt:
    """The one attempt of an executor for single use, in a program of its own.

    Args:
      heartbeat_s: how long the program may be stopped.
    """

    def __init__(self, command: Command, resolver: Resolver, table: DeadlineTable, row: int, *, heartbeat_s: float) -> None:
        self._command = command
        self._resolver = resolver
        self._table = table
        self._row = row
        self._heartbeat_s = heartbeat_s
        signal.pthread_sigmask(signal.SIG_SETMASK, _HELD)

    def run(self, work: Work) -> Result:
        """Run *work* to its end, whatever the program does short of killing us."""
        try:
            call = read_call(work)
            self._resolver.check_path(call.path)
        except InvalidSpecError as error:
            return Result(work.seq, Verdict.FAIL_FINALLY, encode_error(ErrorKind.INVALID_SPEC, str(error)))
        except ForbiddenTaskError as error:
            return Result(work.seq, Verdict.FAIL_FINALLY, encode_error(ErrorKind.SECURITY_VIOLATION, str(error)))
        if self._is_asked(work):
            return Result(work.seq, Verdict.STOPPED, b"")
        try:
            pid = self._start(work, names_its_task=call.is_named_by_spec)
        except OSError as error:
            message = f"exec.command: cannot start {self._command.argv[0]}: {error.strerror}"
            return Result(work.seq, Verdict.FAIL, encode_error(ErrorKind.INFRA_ERROR, message), delay_s=START_AGAIN_AFTER_S)
        asked = self._wait(pid, work)
        return self._judge(work, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), asked)

    def _is_asked(self, work: Work) -> bool:
        return self._table.soft_reason(self._row, work.seq) is not None

    # -- start --------------------------------------------------------------------------------------------------------

    def _start(self, work: Work, *, names_its_task: bool) -> int:
        """Start the program and return its pid; it is past its `exec`.

        Raises:
          OSError: it cannot be started.
        """
        with ExitStack() as ends:
            payload_fd = os.memfd_create(f"reproq-payload-{work.result_id}", os.MFD_CLOEXEC)
            if self._command.payload is not PayloadMode.FILE:
                ends.callback(os.close, payload_fd)
            # Else it stays open as long as we live: the program may read it late, and again.
            os.write(payload_fd, work.spec)
            os.lseek(payload_fd, 0, os.SEEK_SET)
            argv = self._command.argv_for(work, payload_fd, names_its_task=names_its_task)
            return start_bound(argv, payload_fd if self._command.payload is PayloadMode.STDIN else None)

    # -- end ----------------------------------------------------------------------------------------------------------

    def _wait(self, pid: int, work: Work) -> bool:
        """Wait until the program is dead, and pass a soft signal on once; return whether there was one."""
        asked = False
        stopped_mono: float | None = None
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if not asked and self._is_asked(work):
                asked = True
                os.killpg(0, signal.SIGTERM)
            if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
                stopped_mono = None
                signal.sigwait(_TAKEN)
                continue
            now = time.monotonic()
            stopped_mono = now if stopped_mono is None else stopped_mono
            left_s = stopped_mono + self._heartbeat_s - now
            if left_s <= 0:
                os.write(2, f"stopped for longer than {self._heartbeat_s:g} s, a heartbeat: killed\n".encode())
                _die_of(signal.SIGKILL)
            signal.sigtimedwait(_TAKEN, left_s)
        return asked

    def _judge(self, work: Work, status: int, asked: bool) -> Result:
        try:
            said = self._read_stdout()
        except NoEnvelopeError as error:
            _note_exit(status)
            if asked:
                return Result(work.seq, Verdict.STOPPED, b"")
            if status < 0:
                _die_of(-status)
            return Result(work.seq, Verdict.FAIL, encode_failure(ErrorKind.APP_ERROR, str(error), exit_code=status))
        os.ftruncate(1, 0)  # results never reach a log
        _note_exit(status)
        match said:
            case Success(value):
                try:
                    return Result(work.seq, Verdict.SUCCEED, encode_result(value, MAX_RESULT_BYTES))
                except BadResultError as error:
                    return Result(work.seq, Verdict.FAIL_FINALLY, encode_error(ErrorKind.BAD_RESULT, str(error)))
            case Failure() if asked:
                return Result(work.seq, Verdict.STOPPED, b"")
            case Failure(kind, exception_class, message, traceback, is_final, delay_s):
                body = encode_failure(kind, message, exception_class, traceback, exit_code=status)
                return Result(work.seq, Verdict.FAIL_FINALLY if is_final else Verdict.FAIL, body, delay_s=delay_s)

    def _read_stdout(self) -> Success | Failure:
        most = self._command.max_stdout_bytes
        if os.fstat(1).st_size > most:
            raise NoEnvelopeError(f"Invalid JSON on stdout: more than {most} bytes (exec.max_stdout)")
        return read_envelope(os.pread(1, most, 0))


def _note_exit(status: int) -> None:
    """Say in the task's log how the program ended, if not with 0, as the contract does."""
    if status:
        os.write(2, f"exit status {status}\n".encode() if status > 0 else f"signal {-status}\n".encode())


def _die_of(signum: int) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if signum not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
    os.kill(os.getpid(), signum)
    os._exit(70)
