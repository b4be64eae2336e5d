"""The file of what an attempt printed: private, whole up to its limit, and never worth a result."""

import os
import stat
from pathlib import Path

import pytest

from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.executor.capture import new_capture_file
from reproq_supervisor.pool.output import OutputFiles
from reproq_supervisor.pool.worker import CAPTURE_BYTES, Output

CLAIMED = Claimed(RunId(12), LeaseNo(1), 3, "default", 0, "app.task", 60.0, 3, b"{}")


def output(stdout: bytes = b"", stderr: bytes = b"") -> Output:
    """Return capture files with these contents."""
    fds = []
    for name, text in (("out", stdout), ("err", stderr)):
        fd = new_capture_file(name)
        os.pwrite(fd, text, 0)
        fds.append(fd)
    return Output(*fds)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def saved(folder: Path, stdout: bytes = b"", stderr: bytes = b"") -> bytes:
    path = OutputFiles(str(folder)).save(CLAIMED, output(stdout, stderr))
    assert path is not None
    return Path(path).read_bytes()


def test_both_streams_are_kept_in_the_form_of_the_contract(tmp_path: Path) -> None:
    assert saved(tmp_path, b"out\n", b"err") == b"STDOUT:\nout\nSTDERR:\nerr\n"
    assert saved(tmp_path, b"", b"err\n") == b"STDOUT:\nSTDERR:\nerr\n"


def test_the_file_is_named_by_run_and_attempt_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "logs"
    path = OutputFiles(str(folder)).save(CLAIMED, output(b"x"))
    assert path == str(folder / "task-12-attempt-3.log")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(("beyond", "note"), [(0, b""), (1, b"[1 bytes more were dropped]\n"), (5000, b"[5000 bytes more were dropped]\n")])
def test_what_is_too_much_is_counted(tmp_path: Path, beyond: int, note: bytes) -> None:
    text = b"x" * (CAPTURE_BYTES - 1) + b"\n" + b"y" * beyond
    assert saved(tmp_path, text) == b"STDOUT:\n" + text[:CAPTURE_BYTES] + note + b"STDERR:\n"


def test_a_file_that_is_there_already_is_neither_followed_nor_reused(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "task-12-attempt-3.log").symlink_to(precious)
    assert saved(tmp_path, b"x") == b"STDOUT:\nx\nSTDERR:\n"
    assert precious.read_text() == "precious"
    assert saved(tmp_path, b"again") == b"STDOUT:\nagain\nSTDERR:\n"


def test_silence_leaves_no_file(tmp_path: Path) -> None:
    assert OutputFiles(str(tmp_path)).save(CLAIMED, output()) is None
    assert OutputFiles(str(tmp_path)).save(CLAIMED, None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [None, "", "/dev/null/logs"])
def test_a_log_that_cannot_be_kept_costs_nothing(folder: str | None) -> None:
    files, captured = OutputFiles(folder), output(b"x")
    assert files.save(CLAIMED, captured) is None
    assert files.enabled == bool(folder)
    assert not is_open(captured.stdout_fd)
    assert not is_open(captured.stderr_fd)


def test_the_capture_files_are_closed_after_they_were_saved(tmp_path: Path) -> None:
    captured = output(b"x")
    OutputFiles(str(tmp_path)).save(CLAIMED, captured)
    assert not is_open(captured.stdout_fd)
    assert not is_open(captured.stderr_fd)
