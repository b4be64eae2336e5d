"""One-shot child of the supervisor: waits for the database, creates it if asked to, and migrates. Says nothing on its outputs.

On the channel (descriptor 3) it gets ``{"type": "start", "dsn": ..., "create_database": bool, "timeout_s": seconds}``, and when it fails it
sends ``{"type": "failed", "reason": ..., "permanent": bool}``. Exit code 0 done, 69 the database is out of reach, 70 it refuses the schema.
"""

import random
import select
import socket
import sys
import time
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.store.errors import StoreError, StoreUnavailable, translated
from reproq_supervisor.store.migrate import migrate

CHANNEL_FD = 3
EXIT_UNAVAILABLE = 69
EXIT_BUG = 70
_DEFAULT_TIMEOUT_S = 60.0


def main() -> int:
    """Do what the start message says; return the exit code."""
    with socket.socket(fileno=CHANNEL_FD) as channel:
        start = _receive_start(channel)
        if start is None:
            return EXIT_UNAVAILABLE
        try:
            prepare(
                start["dsn"],
                create_database=start.get("create_database", False),
                timeout_s=start.get("timeout_s") or _DEFAULT_TIMEOUT_S,
                lifeline=channel,
            )
        except StoreUnavailable as error:
            return _fail(channel, f"database: expected an answer, got {error}", EXIT_UNAVAILABLE)
        except StoreError as error:
            return _fail(channel, f"schema: {error}", EXIT_BUG)
    return 0


def prepare(dsn: str, *, create_database: bool, timeout_s: float, lifeline: socket.socket | None = None) -> None:
    """Wait until the server of *dsn* accepts connections, create the database where it is missing, and migrate.

    Args:
      lifeline: its end of file means that nobody waits for us any more.

    Raises:
      StoreUnavailable: it did not accept one within *timeout_s* seconds, or the lifeline ended.
      StoreError: the database refused something.
    """
    deadline = time.monotonic() + timeout_s
    if create_database:
        _create_database(dsn, deadline, lifeline)
    with _connected(dsn, deadline, lifeline) as connection:
        migrate(connection)


def _create_database(dsn: str, deadline: float, lifeline: socket.socket | None) -> None:
    """Create the database of *dsn* through the maintenance database; that it exists already is fine."""
    name = conninfo_to_dict(dsn).get("dbname")
    if not name or name == "postgres":
        return
    with _connected(make_conninfo(dsn, dbname="postgres"), deadline, lifeline) as connection, translated():
        try:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(str(name))))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            # The second is what the loser of two concurrent CREATE DATABASE gets.
            return


def _connected(dsn: str, deadline: float, lifeline: socket.socket | None) -> psycopg.Connection[Any]:
    pause_s = 0.02
    while True:
        left = deadline - time.monotonic()
        try:
            with translated():
                return psycopg.connect(dsn, autocommit=True, connect_timeout=max(2, round(left)), prepare_threshold=None)
        except StoreUnavailable:
            if left <= pause_s:
                raise
        if _has_ended(lifeline, pause_s * random.uniform(0.5, 1.0)):  # noqa: S311 - spread, not a secret
            raise StoreUnavailable("the supervisor is gone")
        pause_s = min(1.0, pause_s * 1.5)


def _has_ended(lifeline: socket.socket | None, wait_s: float) -> bool:
    """Wait, and answer whether the other end was closed meanwhile; it never says anything after its first message."""
    if lifeline is None:
        time.sleep(wait_s)
        return False
    return bool(select.select([lifeline], [], [], wait_s)[0])


def _receive_start(channel: socket.socket) -> dict[str, Any] | None:
    """Return the first message; None when the supervisor is gone."""
    reader = FrameReader()
    while data := channel.recv(65536):
        for message in reader.feed_messages(data):
            return message
    return None


def _fail(channel: socket.socket, reason: str, code: int) -> int:
    try:
        channel.sendall(encode_message({"type": "failed", "reason": reason, "permanent": code == EXIT_BUG}))
    except OSError:
        # The supervisor is gone; the exit code is all that is left to say.
        return code
    return code


if __name__ == "__main__":
    sys.exit(main())
