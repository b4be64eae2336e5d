"""What the demo runs, and how each of its tasks has to end."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reproq_supervisor.cli.demo.ground import Library
from reproq_supervisor.core.runs import ErrorKind, RunStatus
from reproq_supervisor.store.enqueue import NewRun

SMALL, LARGE = "small", "large"
QUEUES = (SMALL, LARGE)
LARGE_FROM_BYTES = 32 * 1024

MEASURE = "workers.demo.library.measure"
_TASKS = "workers.demo.tasks"
# Before every file, so that the time limits of hung tasks pass while files are measured.
_FIRST = 100
_LIMIT_S = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """How a task has to end.

    Attributes:
      kind: of its last error.
      message: text that its last error holds.
      output: text that the log of its last attempt holds.
    """

    status: RunStatus = RunStatus.SUCCESSFUL
    attempts: int = 1
    kind: ErrorKind | None = None
    message: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A task of the demo. *title* is the name of the file it measures, or else what it does wrong."""

    title: str
    run: NewRun
    expected: Expected = Expected()

    @property
    def is_file(self) -> bool:
        """Whether it measures a file."""
        return self.run.task_path == MEASURE


def plan_files(library: Library, names: Iterable[str]) -> list[Planned]:
    """Return one task per file: large ones in a queue of their own, and in each queue a point of priority for every doubling in size."""
    planned = []
    for name in names:
        size = (library.root() / name).stat().st_size
        queue = LARGE if size >= LARGE_FROM_BYTES else SMALL
        planned.append(Planned(name, NewRun(MEASURE, args=[name], queue_name=queue, priority=size.bit_length())))
    return planned


def plan_mischief(scratch: Path) -> list[Planned]:
    """Return the tasks that misbehave, spread over both queues. *scratch* is a folder they may write to."""
    crash = Expected(RunStatus.FAILED, 2, ErrorKind.WORKER_CRASHED, "exited with code 9")
    killed = Expected(RunStatus.FAILED, 1, ErrorKind.WORKER_CRASHED, "killed by SIGKILL")
    timeout = Expected(RunStatus.FAILED, 1, ErrorKind.TIMEOUT, "its time limit")
    return [
        _bad("raises an error, twice", "fail", SMALL, _failed(ErrorKind.APP_ERROR, "on purpose", attempts=2)),
        _bad("fails once, then works", "fail_until", LARGE, Expected(attempts=2), args=[str(scratch / "attempts"), 1]),
        _bad("calls sys.exit", "exit_process", SMALL, _failed(ErrorKind.APP_ERROR, "3")),
        _bad("ends its executor, twice", "crash", LARGE, crash),
        _bad("is killed by the kernel", "kill_itself", SMALL, killed),
        _bad("floods stdout (8 MiB)", "flood", LARGE, Expected(output="bytes more were dropped")),
        _bad("hangs past its limit", "hang", SMALL, timeout),
        _bad("hangs and will not stop", "hang_stubbornly", LARGE, timeout),
        _bad("leaves a process behind", "leave_grandchild", SMALL, Expected()),
        _bad("returns NaN", "return_nan", LARGE, _failed(ErrorKind.BAD_RESULT, "NaN")),
        _bad("is not there", "no_such_task", SMALL, _failed(ErrorKind.APP_ERROR, "no_such_task")),
        _bad("is forbidden", "os.system", LARGE, _failed(ErrorKind.SECURITY_VIOLATION, "os"), args=["true"]),
    ]


def ping() -> NewRun:
    """Return a task that does nothing, for the time from enqueue to start."""
    return NewRun(f"{_TASKS}.noop", queue_name=SMALL)


def _failed(kind: ErrorKind, message: str, attempts: int = 1) -> Expected:
    return Expected(RunStatus.FAILED, attempts, kind, message)


def _bad(title: str, task: str, queue: str, expected: Expected, args: Iterable[object] = ()) -> Planned:
    run = NewRun(
        f"{_TASKS}.{task}",
        args=list(args),
        queue_name=queue,
        priority=_FIRST,
        max_attempts=expected.attempts,
        timeout_seconds=_LIMIT_S,
    )
    return Planned(title, run, expected)
