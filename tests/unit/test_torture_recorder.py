"""What the tasks of torture say arrives, and so does what they cannot say any more."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from reproq_supervisor.cli.torture.recorder import How, Recorder
from reproq_supervisor.executor.api import Fail, Retry
from reproq_supervisor.executor.torture import run
from tests.support.eventually import eventually

HOST, TOKEN = "127.0.0.1", "token"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder(HOST, 0, TOKEN, ["fails"])
    recorder.start()
    yield recorder
    recorder.close()


def hello(recorder: Recorder, line: str) -> socket.socket:
    peer = socket.create_connection((HOST, recorder.port), timeout=60)
    peer.sendall(line.encode())
    return peer


def test_an_execution_is_recorded_from_its_start_to_its_end(recorder: Recorder) -> None:
    told = run(HOST, recorder.port, TOKEN, "t1", 0.01)
    (found,) = recorder.executions
    assert (found.name, found.id, found.how) == ("t1", told, How.DONE)
    assert found.ended - found.began >= 0.01
    assert recorder.done_count == 1


def test_the_first_execution_of_some_is_told_to_fail(recorder: Recorder) -> None:
    with pytest.raises(Retry):
        run(HOST, recorder.port, TOKEN, "fails", 0.0)
    run(HOST, recorder.port, TOKEN, "fails", 0.0)
    assert [each.how for each in recorder.executions] == [How.FAILED, How.DONE]


def test_an_execution_that_is_cut_off_ends_when_its_connection_does(recorder: Recorder) -> None:
    with hello(recorder, f"hello {TOKEN} t1 e1\n") as peer:
        assert peer.recv(64) == b"go\n"
        assert recorder.executions[0].how is How.RUNS
    eventually(lambda: recorder.executions[0].how is How.BROKEN, what="the end is noted")
    assert recorder.executions[0].ended < float("inf")


def test_one_that_is_cut_off_before_it_hears_an_answer_has_begun_all_the_same(recorder: Recorder) -> None:
    hello(recorder, f"hello {TOKEN} t1 e1\n").close()
    eventually(lambda: [each.how for each in recorder.executions] == [How.BROKEN], what="start and end are noted")


@pytest.mark.parametrize("line", ["hello other t1 e1\n", "GET / HTTP/1.1\n", "hello\n", "\n", "x" * 10_000])
def test_strangers_are_sent_away(recorder: Recorder, line: str) -> None:
    with hello(recorder, line) as peer, suppress(ConnectionResetError):  # it did not read all of it
        assert peer.recv(64) == b""
    assert recorder.executions == []


def test_many_at_once_are_all_heard(recorder: Recorder) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda n: run(HOST, recorder.port, TOKEN, f"t{n}", 0.0), range(200)))
    assert {each.id for each in recorder.executions if each.how is How.DONE} == set(ids)
    assert len(recorder.executions) == 200


def test_a_task_that_reaches_nobody_fails_for_good() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Fail, match=f"somebody to listen at {HOST}:{port}"):
        run(HOST, port, TOKEN, "t1", 0.0)
