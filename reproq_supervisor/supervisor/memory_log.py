"""One line about memory from time to time, measured by a one-shot child (process/memory_report.py says why)."""

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from reproq_supervisor.core.frames import FrameError, FrameReader
from reproq_supervisor.core.supervision.events import MemoryMeasured
from reproq_supervisor.process.spawn import SpawnedChild, python_argv, spawn_child
from reproq_supervisor.supervisor.orphans import Orphans
from reproq_supervisor.supervisor.programs import parent_environment

MODULE = "reproq_supervisor.process.memory_report"  # not imported: it brings psutil, which the supervisor does without
_READ_BYTES = 64 * 1024


class MemoryLog:
    """Starts a measurement when it is due; one that has not ended by the next is killed."""

    def __init__(self, environ: Mapping[str, str], orphans: Orphans) -> None:
        self._interval_s = _interval(environ)
        self._orphans = orphans
        self._child: SpawnedChild | None = None
        self._started_mono = float("-inf")

    def start_if_due(self, now: float) -> int | None:
        """Start a measurement; return its pidfd, to be waited for, None when there is nothing to start."""
        if self._interval_s is None or now - self._started_mono < self._interval_s:
            return None
        self._started_mono = now
        if self._child is not None:
            self.kill()
            return None
        try:
            self._child = spawn_child(python_argv(MODULE, "--pid", str(os.getpid())), parent_environment())
        except OSError:
            return None  # no process to be had: memory is the least of our worries, and there is a next time
        self._orphans.know(self._child.pid)
        return self._child.pidfd

    def collect(self) -> MemoryMeasured | None:
        """Reap the measurement that has ended, and give its descriptors back; return what it found, if it did."""
        assert self._child is not None
        child, self._child = self._child, None
        found = _read(child)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        self._orphans.forget(child.pid)
        child.channel.close()
        os.close(child.pidfd)
        return found

    def kill(self) -> None:
        """End a measurement that is under way, if there is one."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)


def _read(child: SpawnedChild) -> MemoryMeasured | None:
    """Return what a dead child has said; all of it is in the socket."""
    child.channel.setblocking(False)
    reader = FrameReader()
    try:
        while data := child.channel.recv(_READ_BYTES):
            for message in reader.feed_messages(data):
                return MemoryMeasured(message["rss_bytes"], message["pss_bytes"], message["kinds"])
    except (OSError, FrameError, json.JSONDecodeError, KeyError):
        return None  # it was killed at it
    return None


def _interval(environ: Mapping[str, str]) -> float | None:
    if "REPROQ_MEMORY_LOG_INTERVAL" not in environ:
        return None
    from reproq_supervisor.settings.contract.memory_log import memory_log_interval  # brings decimal, which only this needs

    try:
        return memory_log_interval(environ)
    except ValueError:
        return None  # `worker` has said so
