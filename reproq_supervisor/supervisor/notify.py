"""Tells the service manager, by the protocol of sd_notify(3): one datagram per message, to a path or an abstract socket."""

import os
import socket
from collections.abc import Iterable, Mapping


class Notifier:
    """Sends; without NOTIFY_SOCKET it does nothing. What is not received is nobody's fault: sending never fails and never blocks."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.watchdog_s = _watchdog_s(environ, pid)

    def tell(self, fields: Iterable[tuple[str, str]]) -> None:
        """Send the fields in one datagram."""
        if self._socket is None:
            return
        message = "\n".join(f"{key}={value}".replace("\n", " ") for key, value in fields)
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often the watchdog is told of us, None when it does not watch this process.

    That is a quarter of its interval: the loop looks twice in that time, so that even a late message comes well before the half of the
    interval that sd_watchdog_enabled(3) asks for.
    """
    try:
        usec = int(environ["WATCHDOG_USEC"])
        watched = int(environ.get("WATCHDOG_PID", pid))
    except (KeyError, ValueError):
        return None
    return usec / 4e6 if usec > 0 and watched == pid else None


def notify_environment() -> Mapping[str, str]:
    """Return the environment that the service manager gave us."""
    return os.environ
