"""What an executor with slots writes beside its runs: C code, programs, threads left behind. Nobody can say which run it belongs to.

It goes to a file of the executor in the folder of task logs, with the runs of that time: `executor-mail-0-4711.log`. As of a run, the first
MiB of each stream is kept and the rest counted.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.pool.worker import CAPTURE_BYTES, Executor

_NAMES = ("stdout", "stderr")


@dataclass(slots=True)
class _Log:
    path: Path
    written: list[int] = field(default_factory=lambda: [0, 0])


class ExecutorLogs:
    """The logs of one shard's executors."""

    def __init__(self, folder: str | None, child: str) -> None:
        self._folder = Path(folder) if folder else None
        self._child = child.replace("/", "-")
        self._logs: dict[Executor, _Log] = {}

    def look(self, executor: Executor, running: Sequence[RunId]) -> None:
        """Write down what has come since the last look, while these ran; looked at ten times a second."""
        if self._folder is None or executor.capture is None:
            return
        log = self._logs.get(executor)
        for stream, fd in enumerate(executor.capture):
            size = os.fstat(fd).st_size
            if log is None and size:
                log = self._logs[executor] = _Log(self._folder / f"executor-{self._child}-{executor.pid}.log")
            if log is not None and log.written[stream] < min(size, CAPTURE_BYTES):
                self._write(log, stream, os.pread(fd, CAPTURE_BYTES - log.written[stream], log.written[stream]), running)

    def close(self, executor: Executor, running: Sequence[RunId]) -> None:
        """Write down the rest; it is dead."""
        self.look(executor, running)
        log = self._logs.pop(executor, None)
        if log is None or executor.capture is None:
            return
        for stream, fd in enumerate(executor.capture):
            dropped = os.fstat(fd).st_size - CAPTURE_BYTES
            if dropped > 0:
                self._append(log.path, f"[{dropped} bytes more of {_NAMES[stream]} were dropped]\n".encode())

    def _write(self, log: _Log, stream: int, data: bytes, running: Sequence[RunId]) -> None:
        log.written[stream] += len(data)
        ids = ", ".join(map(str, running)) or "nothing"
        end = b"" if data.endswith(b"\n") else b"\n"
        self._append(log.path, f"{_NAMES[stream].upper()} (running: {ids}):\n".encode() + data + end)

    def _append(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "ab", opener=_private) as file:
                file.write(data)
        except OSError:
            return  # a full or read-only disk must not cost the shard


def _private(path: str, flags: int) -> int:
    # The pid in its name may have been another's; nobody else's file or link is followed.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
