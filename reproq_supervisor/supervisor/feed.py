"""Events on their way out: to the log, to the memory that `events` begins with, and to those who follow."""

import time
from collections import deque

from reproq_supervisor.core.events import Event
from reproq_supervisor.core.supervision.facts import ClientId
from reproq_supervisor.supervisor.control import Control
from reproq_supervisor.telemetry.lines import Record
from reproq_supervisor.telemetry.log import Log
from reproq_supervisor.telemetry.records import record_of

KEPT = 500


class Feed:
    """Stamps events with the wall time and passes them on."""

    def __init__(self, log: Log, control: Control) -> None:
        self._log = log
        self._control = control
        self._recent: deque[Record] = deque(maxlen=KEPT)

    def take(self, event: Event, now: float) -> None:
        """Pass an event on to everybody who wants it."""
        record = record_of(event, _wall_clock())
        self._recent.append(record)
        self._log.write(record)
        for client in self._control:
            if client.follows:
                self._control.reply(client.number, record, now, last=False)

    def watch(self, number: ClientId, now: float, *, follow: bool) -> None:
        """Send a client what is remembered, and what comes if it follows."""
        recent = tuple(self._recent)
        for index, record in enumerate(recent):
            self._control.reply(number, record, now, last=not follow and index == len(recent) - 1)
        if follow:
            self._control.follow(number)


def _wall_clock() -> str:
    """Return the wall time in UTC, RFC 3339 with milliseconds; `datetime` would be 0.3 MiB, and nothing else here needs it."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 10**6:03d}Z"
