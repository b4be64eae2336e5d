"""The one-shot child that makes a database ready for the daemon."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.process.spawn import spawn_child
from reproq_supervisor.store.migrate import schema_is_current
from tests.support.postgres import Database

ROOT = Path(__file__).parents[2]


def run_child(start: dict[str, Any] | None, tmp_path: Path) -> tuple[int, list[dict[str, Any]], bytes]:
    """Run the child as the supervisor does; return exit code, messages and output."""
    argv = [sys.executable, "-P", "-m", "reproq_supervisor.store.prepare"]
    output = tmp_path / "output"
    with output.open("wb") as file:
        child = spawn_child(argv, {**os.environ, "PYTHONPATH": str(ROOT)}, stdout=file.fileno(), stderr=file.fileno())
    with child.channel as channel:
        if start is None:
            channel.shutdown(socket.SHUT_WR)
        else:
            channel.sendall(encode_message({"type": "start", **start}))
        reader, messages = FrameReader(), []
        while data := channel.recv(65536):
            messages += reader.feed_messages(data)
    _, status = os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    return os.waitstatus_to_exitcode(status), messages, output.read_bytes()


def test_it_creates_and_migrates_the_database_and_says_nothing(empty_database: Database, tmp_path: Path) -> None:
    name = f"{empty_database.name}_new"
    dsn = make_conninfo(empty_database.dsn, dbname=name)
    try:
        for _ in range(2):
            assert run_child({"dsn": dsn, "create_database": True}, tmp_path) == (0, [], b"")
        with Database(name, dsn, empty_database.cluster).connect() as connection:
            assert schema_is_current(connection)
    finally:
        empty_database.query(f"DROP DATABASE IF EXISTS {name}")


def test_a_server_that_does_not_come_up_is_unavailable(tmp_path: Path) -> None:
    code, messages, output = run_child({"dsn": "host=127.0.0.1 port=1 dbname=x", "create_database": True, "timeout_s": 0.3}, tmp_path)
    assert (code, output) == (69, b"")
    assert [(message["type"], message["permanent"]) for message in messages] == [("failed", False)]
    assert "expected an answer" in messages[0]["reason"]


def test_a_database_of_another_product_is_refused(empty_database: Database, tmp_path: Path) -> None:
    empty_database.query("CREATE TABLE task_runs (id int)")
    code, messages, output = run_child({"dsn": empty_database.dsn, "create_database": False}, tmp_path)
    assert (code, output) == (70, b"")
    assert "expected no table, or one with the contract's columns" in messages[0]["reason"]
    assert messages[0]["permanent"] is True


def test_without_a_supervisor_it_leaves(tmp_path: Path) -> None:
    assert run_child(None, tmp_path) == (69, [], b"")
