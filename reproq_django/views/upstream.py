"""One request to a worker's own server, answered piece by piece as the pieces come."""

import http.client
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async

_PIECE = 65536


@dataclass(slots=True)
class Upstream:
    """An answer that has begun."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse

    @classmethod
    def ask(cls, url: str, headers: dict[str, str], timeout_s: float) -> "Upstream":
        """Ask for *url*.

        Args:
          timeout_s: for the connection, and for each piece.

        Raises:
          OSError, http.client.HTTPException: nobody answers, or not in HTTP; TimeoutError: not in time.
        """
        parts = urlsplit(url)
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.netloc, timeout=timeout_s, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
        try:
            connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=headers)
            return cls(connection, connection.getresponse())
        except BaseException:  # boundary: whatever ends the question, the connection may not stay open
            connection.close()
            raise

    def read(self) -> bytes:
        """Return the whole answer."""
        try:
            return self.response.read()
        finally:
            self.connection.close()

    def pieces(self) -> Iterator[bytes]:
        """Yield what comes as soon as it comes: a reader that waits for a full block holds small events back."""
        try:
            while piece := self._next():
                yield piece
        finally:
            self.connection.close()

    async def apieces(self) -> AsyncIterator[bytes]:
        """As `pieces`, without keeping an event loop waiting."""
        try:
            while piece := await sync_to_async(self._next, thread_sensitive=False)():
                yield piece
        finally:
            self.connection.close()

    def _next(self) -> bytes:
        try:
            return self.response.read1(_PIECE)
        except (OSError, http.client.HTTPException):
            return b""  # the stream has ended; whoever follows it comes back
