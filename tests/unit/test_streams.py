"""Standard output of tasks that share a process: whoever writes, it belongs to the run in whose context that happens."""

import concurrent.futures
import contextvars
import gc
import os
import sys
import threading
from collections.abc import Callable

import pytest

from reproq_supervisor.executor.capture import FIRST_OWN_FD
from reproq_supervisor.executor.inherit import inherit_contexts
from reproq_supervisor.executor.streams import OUTPUT, CaptureFiles, RunOutput, TaskStream, TaskStreams


class Run:
    """A run with an output, whose files somebody took."""

    def __init__(self) -> None:
        self.files: list[CaptureFiles] = []
        self.output = RunOutput(self.files.append)

    def do(self, call: Callable[[], object]) -> None:
        """Do something in the context of this run."""

        def in_context() -> None:
            OUTPUT.set(self.output)
            call()

        contextvars.copy_context().run(in_context)

    def text(self, stream: int = 1) -> str:
        (files,) = self.files
        return os.pread(files.fds[stream - 1], 1 << 20, 0).decode()


OUT, ERR = TaskStream(1), TaskStream(2)


def test_each_run_writes_into_files_of_its_own() -> None:
    one, other = Run(), Run()
    one.do(lambda: print("one", file=OUT))
    other.do(lambda: print("other", file=OUT))
    one.do(lambda: print("again", file=ERR))
    assert (one.text(1), one.text(2), other.text(1), other.text(2)) == ("one\n", "again\n", "other\n", "")


def test_what_no_run_writes_goes_to_the_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    print("words", file=OUT)
    OUT.buffer.write(memoryview(b"bytes\n"))
    assert capfd.readouterr().out == "words\nbytes\n"


def test_what_a_run_left_behind_writes_goes_to_the_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    run = Run()
    run.do(lambda: print("early", file=OUT))
    run.output.ended = True
    run.do(lambda: print("late", file=OUT))
    assert (run.text(), capfd.readouterr().out) == ("early\n", "late\n")


def test_a_silent_run_has_no_files() -> None:
    run = Run()
    run.do(OUT.flush)
    assert run.files == []


def test_a_stream_is_what_code_expects_of_one() -> None:
    run = Run()
    run.do(lambda: OUT.buffer.write(b"\xff"))
    run.do(lambda: OUT.write("\udc80"))
    run.do(lambda: OUT.writelines(["a", "b"]))
    assert os.pread(run.files[0].fds[0], 100, 0) == b"\xff\\udc80ab"
    assert (OUT.isatty(), OUT.writable(), OUT.readable(), OUT.fileno(), OUT.encoding) == (False, True, False, 1, "utf-8")
    OUT.close()
    run.do(lambda: print("open", file=OUT))
    with pytest.raises(TypeError, match="must be str, not bytes"):
        OUT.write(b"x")  # type: ignore[arg-type]


def test_threads_of_a_run_that_write_first_at_once_share_its_files() -> None:
    run, gate = Run(), threading.Barrier(8)

    def write() -> None:
        gate.wait(30)
        run.output.write(1, b"x")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.text() == "x" * 8


def test_files_live_as_long_as_somebody_may_write_and_no_longer() -> None:
    run = Run()
    run.do(lambda: print("x", file=OUT))
    fds = run.files[0].fds
    assert min(fds) >= FIRST_OWN_FD
    context = contextvars.copy_context()
    context.run(OUTPUT.set, run.output)
    del run
    gc.collect()
    assert os.fstat(fds[0]).st_size == 2
    del context
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


def test_what_a_task_did_to_the_streams_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # put back after the test
    streams = TaskStreams()
    streams.restore()
    ours = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = None, open(os.devnull, "w")  # type: ignore[assignment]  # noqa: SIM115
    sys.stderr.close()
    streams.restore()
    assert (sys.stdout, sys.stderr) == ours


def test_threads_and_pools_write_for_whoever_asked_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # put back after the test
    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", concurrent.futures.ThreadPoolExecutor.submit)
    inherit_contexts()
    one, other = Run(), Run()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def write(words: str) -> None:
            thread = threading.Thread(target=print, args=(f"{words} by a thread",), kwargs={"file": OUT})
            thread.start()
            thread.join()
            # The only thread of this pool was started for the first run.
            pool.submit(print, f"{words} by a pool", file=OUT).result()

        one.do(lambda: write("one"))
        other.do(lambda: write("other"))
    assert one.text() == "one by a thread\none by a pool\n"
    assert other.text() == "other by a thread\nother by a pool\n"
