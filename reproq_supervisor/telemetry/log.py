"""The log: lines go to standard error, and a reader that has stopped reading never stops us.

Standard error is shared with every child, so it is not made non-blocking; it is asked whether it takes a line, and lines are kept
small enough that a pipe which says yes takes them whole (PIPE_BUF). What does not fit waits, then is dropped and counted.
"""

import os
import select
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproq_supervisor.core.events import Level
from reproq_supervisor.telemetry.lines import LogFormat, Record, render

MAX_LINE_BYTES = 4096  # PIPE_BUF on Linux
MAX_WAITING = 1000
_SHORT_CHARS = 100  # of each value of a record whose line would be too long
_RANK = {level.value: rank for rank, level in enumerate(Level)}


def choose_format(wanted: str, *, is_terminal: bool) -> LogFormat:
    """Return the format to use; *wanted* is `auto`, `human`, `logfmt` or `json`."""
    if wanted == "auto":
        return LogFormat.HUMAN if is_terminal else LogFormat.LOGFMT
    return LogFormat(wanted)


class Log:
    """Writes records to a descriptor that others may share."""

    def __init__(self, fd: int, log_format: LogFormat, level: str = "info") -> None:
        self._fd = fd
        self._format = log_format
        self._least = _RANK[level]
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._last_at = ""
        self._path = _file_of(fd)

    def configure(self, settings: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        """Take the `logs` settings; REPROQ_LOG_FORMAT wins over them."""
        wanted = environ.get("REPROQ_LOG_FORMAT") or str(settings.get("format", "auto"))
        try:
            self._format = choose_format(wanted, is_terminal=os.isatty(self._fd))
        except ValueError:
            self._format = LogFormat.LOGFMT
        self._least = _RANK.get(str(settings.get("level", "info")), _RANK[Level.INFO])

    def write(self, record: Record) -> None:
        """Write one line, or keep it until the reader reads."""
        if _RANK.get(record["level"], 0) < self._least:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
        else:
            self._waiting.append(_line(record, self._format))
        self._last_at = record["at"]
        self.flush()

    def write_lines(self, lines: Sequence[str]) -> None:
        """Write lines as they are, for a person who debugs; those that do not fit are dropped like any other."""
        for line in lines:
            if len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
            else:
                self._waiting.append(line.encode("utf-8", "replace")[: MAX_LINE_BYTES - 1] + b"\n")
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it."""
        while self._waiting and self._takes():
            try:
                os.write(self._fd, self._waiting.popleft())
            except OSError:
                # A reader that is gone (EPIPE) or a full disk: the line is lost, the daemon goes on.
                self._dropped += 1
        if self._dropped and not self._waiting and self._takes():
            dropped, self._dropped = self._dropped, 0
            record = {"at": self._last_at, "level": Level.WARNING.value, "name": "log.dropped", "dropped": dropped}
            try:
                os.write(self._fd, _line(record, self._format))
            except OSError:
                self._dropped = dropped  # told later

    def _takes(self) -> bool:
        poll = select.poll()
        try:
            poll.register(self._fd, select.POLLOUT)
        except OSError:
            return False
        return any(events & (select.POLLOUT | select.POLLERR) for _, events in poll.poll(0))

    def reopen(self) -> None:
        """Follow a log file that was moved away: open its first path again in the place of the descriptor.

        Children that run keep the file that they were started with. What is no file stays as it is.
        """
        if self._path is None:
            return
        try:
            fresh = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return  # its folder is gone: better the old file than none
        try:
            os.dup2(fresh, self._fd, inheritable=True)
        finally:
            os.close(fresh)


def _file_of(fd: int) -> str | None:
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return None
    return None


def _line(record: Record, log_format: LogFormat) -> bytes:
    raw = render(record, log_format).encode("utf-8", "replace")
    if len(raw) >= MAX_LINE_BYTES:
        short = {key: each if isinstance(each, int | float) else str(each)[:_SHORT_CHARS] for key, each in record.items()}
        raw = render(short, log_format).encode("utf-8", "replace")[: MAX_LINE_BYTES - 1]
    return raw + b"\n"
