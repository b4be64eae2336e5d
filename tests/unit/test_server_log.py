"""What the embedded server writes on its way to our log."""

import errno
import fcntl
import os

import pytest

from reproq_supervisor.process.server_log import ServerLog


def test_a_user_whose_pipes_may_not_be_longer_has_a_database_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, command: int, *_: object) -> int:
        assert command == fcntl.F_SETPIPE_SZ
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    log = ServerLog()
    os.close(log.write_fd)
    assert not log.forward()
    os.close(log.fileno())
