"""The log file of an attempt."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.executor.capture import new_capture_file
from reproq_supervisor.pool.output import OutputFiles
from reproq_supervisor.pool.worker import CAPTURE_BYTES, Output
from reproq_supervisor.process.holes import free_beyond

CLAIMED = Claimed(RunId(12), LeaseNo(1), 3, "default", 0, "a.b", 60.0, 3, b"{}")
Written = Callable[[bytes, bytes], Output]


@pytest.fixture
def written() -> Written:
    def write(stdout: bytes, stderr: bytes) -> Output:
        fds = (new_capture_file("out"), new_capture_file("err"))
        for fd, text in zip(fds, (stdout, stderr), strict=True):
            os.write(fd, text)
        return Output(*fds)

    return write


def is_closed(output: Output) -> bool:
    for fd in (output.stdout_fd, output.stderr_fd):
        try:
            os.fstat(fd)
        except OSError:
            continue
        return False
    return True


def test_both_streams_are_written_under_their_names(tmp_path: Path, written: Written) -> None:
    output = written(b"no end of line", b"error\n")
    uri = OutputFiles(str(tmp_path / "logs")).save(CLAIMED, output)
    assert uri == str(tmp_path / "logs" / "task-12-attempt-3.log")
    assert Path(uri).read_bytes() == b"STDOUT:\nno end of line\nSTDERR:\nerror\n"
    assert is_closed(output)


def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path, written: Written) -> None:
    uri = OutputFiles(str(tmp_path)).save(CLAIMED, written(b"\xff\0\x80", b""))
    assert uri is not None
    assert b"\xff\0\x80" in Path(uri).read_bytes()


def test_nothing_written_leaves_no_file(tmp_path: Path, written: Written) -> None:
    output = written(b"", b"")
    assert OutputFiles(str(tmp_path / "logs")).save(CLAIMED, output) is None
    assert not (tmp_path / "logs").exists()
    assert is_closed(output)


def test_without_a_folder_nothing_is_kept(written: Written) -> None:
    output = written(b"words", b"")
    assert not OutputFiles(None).enabled
    assert OutputFiles(None).save(CLAIMED, output) is None
    assert is_closed(output)


def test_no_output_is_no_file(tmp_path: Path) -> None:
    assert OutputFiles(str(tmp_path)).save(CLAIMED, None) is None


def test_the_limit_is_kept_to_the_byte(tmp_path: Path, written: Written) -> None:
    for extra, said in ((0, b""), (1, b"[1 bytes more were dropped]\n")):
        uri = OutputFiles(str(tmp_path)).save(CLAIMED, written(b"x" * (CAPTURE_BYTES + extra), b""))
        assert uri is not None
        assert Path(uri).read_bytes() == b"STDOUT:\n" + b"x" * CAPTURE_BYTES + b"\n" + said + b"STDERR:\n"


def test_what_was_freed_is_still_counted(tmp_path: Path, written: Written) -> None:
    output = written(b"x" * (3 * CAPTURE_BYTES), b"")
    free_beyond(output.stdout_fd, CAPTURE_BYTES)
    assert os.fstat(output.stdout_fd).st_blocks * 512 <= CAPTURE_BYTES + 4096
    os.write(output.stdout_fd, b"more")
    uri = OutputFiles(str(tmp_path)).save(CLAIMED, output)
    assert uri is not None
    assert f"[{2 * CAPTURE_BYTES + 4} bytes more were dropped]".encode() in Path(uri).read_bytes()


def test_the_file_of_an_earlier_shard_is_replaced_and_never_followed(tmp_path: Path, written: Written) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "task-12-attempt-3.log").symlink_to(precious)
    uri = OutputFiles(str(tmp_path)).save(CLAIMED, written(b"words", b""))
    assert uri is not None
    assert precious.read_text() == "precious"
    assert not Path(uri).is_symlink()
    assert Path(uri).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_costs_the_log_only(tmp_path: Path, written: Written) -> None:
    (tmp_path / "file").write_text("")
    output = written(b"words", b"")
    assert OutputFiles(str(tmp_path / "file")).save(CLAIMED, output) is None
    assert is_closed(output)
