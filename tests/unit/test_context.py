"""The context of a task: what it knows, what it notes down, and that there is one exactly while a task runs."""

import asyncio
import contextvars
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reproq_supervisor.core.work import Result, Verdict, Work, decode_note
from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.context import ContextError, TaskContext, current
from reproq_supervisor.executor.host import Host, LoneHost
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason
from reproq_supervisor.process.link import BlockingLink

HOME: Any = None
SEQ = 5


class Listening(Host):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.reason: SoftReason | None = None

    def tell(self, seq: int, metadata: bytes) -> bool:
        assert seq == SEQ
        self.told.append(json.loads(metadata))
        return True

    def asked(self, seq: int) -> SoftReason | None:
        return self.reason


@pytest.fixture
def table() -> Iterator[DeadlineTable]:
    table = DeadlineTable.create(1)
    yield table
    os.close(table.fd)


@pytest.fixture
def host() -> Listening:
    return Listening()


@pytest.fixture
def run(table: DeadlineTable, host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a function that takes a context as if it were a task."""

    def run_it(
        function: Callable[..., Any], *, by: Host = host, soft: SoftSignal | None = None, limit_s: float = 0.0, **spec: Any
    ) -> Result:
        monkeypatch.setattr(f"{__name__}.HOME", type("Module", (), {"task": staticmethod(function)}))
        path = f"{__name__}.HOME.task"
        text = json.dumps({"task_path": path, "takes_context": True, **spec})
        return run_attempt(
            Work(SEQ, 42, 2, 3, 1, "mail", path, text.encode(), 9, limit_s), Resolver(["*"]), soft or SoftSignal(table, 0), 1000, by
        )

    return run_it


def body(result: Result) -> Any:
    assert result.verdict is Verdict.SUCCEED, result.body
    return json.loads(result.body)


def test_a_task_finds_its_run_from_anywhere_below_it(run: Callable[..., Result]) -> None:
    def task(context: TaskContext) -> Any:
        found: list[TaskContext] = []
        thread = threading.Thread(target=lambda: found.append(current()))
        thread.start()
        thread.join()
        assert current() is found[0] is context
        return [context.result_id, context.attempt, context.max_attempts, context.queue_name, context.priority, str(context.deadline)]

    assert body(run(task)) == ["42", 2, 3, "mail", 1, "None"]
    with pytest.raises(ContextError, match="found none"):
        current()


def test_a_coroutine_has_it_too(run: Callable[..., Result]) -> None:
    async def task(context: TaskContext) -> bool:
        await asyncio.sleep(0)
        return await asyncio.create_task(_is_current(context))

    assert body(run(task)) is True


async def _is_current(context: TaskContext) -> bool:
    return current() is context


def test_it_counts_down_to_its_limit(run: Callable[..., Result]) -> None:
    def task(context: TaskContext) -> Any:
        assert context.deadline is not None
        return context.remaining

    assert 0 < body(run(task, limit_s=1000.0)) <= 1000


def test_what_was_noted_before_is_there_and_what_changed_is_told_once(run: Callable[..., Result], host: Listening) -> None:
    def task(context: TaskContext) -> Any:
        before = dict(context.metadata)
        context.save_metadata()
        context.metadata["page"] = 2
        context.save_metadata()
        context.save_metadata()
        del context.metadata["old"]
        return before

    assert body(run(task, metadata={"old": [1], "page": 1})) == {"old": [1], "page": 1}
    assert host.told == [{"old": [1], "page": 2}, {"page": 2}]


def test_nothing_noted_is_nothing_told(run: Callable[..., Result], host: Listening) -> None:
    run(lambda _: None)
    run(lambda _: None, metadata={"old": 1})
    assert host.told == []


def test_a_failing_task_keeps_its_notes(run: Callable[..., Result], host: Listening) -> None:
    def task(context: TaskContext) -> None:
        context.metadata["seen"] = 7
        raise KeyError("no")

    assert run(task).verdict is Verdict.FAIL
    assert host.told == [{"seen": 7}]


def test_progress_in_a_tight_loop_is_told_seldom_and_the_last_of_it_always(run: Callable[..., Result], host: Listening) -> None:
    def task(context: TaskContext) -> None:
        for done in range(10_001):
            context.progress(done, 10_000, f"row {done}")

    body(run(task))
    assert host.told[0] == {"progress": {"done": 0, "total": 10_000, "message": "row 0"}}
    assert host.told[-1] == {"progress": {"done": 10_000, "total": 10_000, "message": "row 10000"}}
    assert len(host.told) < 1000


@pytest.mark.parametrize(("done", "total"), [(float("nan"), None), (True, None), ("3", None), (1, float("inf"))])
def test_progress_is_a_number(run: Callable[..., Result], done: Any, total: Any) -> None:
    result = run(lambda context: context.progress(done, total))
    assert "expected a finite number" in json.loads(result.body)["message"]


@pytest.mark.parametrize(("value", "words"), [({1, 2}, "metadata: expected JSON"), ("a\0", "NUL"), ("x" * 70_000, "at most 65536 bytes")])
def test_metadata_must_be_storable(run: Callable[..., Result], value: Any, words: str) -> None:
    def task(context: TaskContext) -> None:
        context.metadata["value"] = value
        with pytest.raises(ValueError, match=words):
            context.save_metadata()
        context.metadata.clear()

    body(run(task))


def test_unstorable_metadata_at_the_end_fails_no_task(
    run: Callable[..., Result], host: Listening, capsys: pytest.CaptureFixture[str]
) -> None:
    assert body(run(lambda context: context.metadata.update(value=object()))) is None
    assert host.told == []
    assert "reproq: run 42: not saved: metadata: expected JSON" in capsys.readouterr().err


def test_who_outlives_its_run_is_told_so(run: Callable[..., Result]) -> None:
    kept: list[TaskContext] = []
    run(kept.append)
    kept[0].metadata["late"] = True
    with pytest.raises(ContextError, match="has ended"):
        kept[0].save_metadata()


def test_it_knows_that_somebody_asked_to_cancel(run: Callable[..., Result], host: Listening) -> None:
    def task(context: TaskContext) -> Any:
        before = context.cancel_requested
        host.reason = SoftReason.CANCEL
        return [before, context.cancel_requested]

    assert body(run(task)) == [False, True]


def test_a_run_without_anybody_to_tell_still_has_its_notes(run: Callable[..., Result]) -> None:
    def task(context: TaskContext) -> Any:
        context.progress(1)
        return context.metadata

    assert body(run(task, by=Host())) == {"progress": {"done": 1}}


def test_a_soft_signal_waits_until_a_frame_is_sent(run: Callable[..., Result], table: DeadlineTable) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    soft = SoftSignal(table, 0)
    soft.install()
    main = threading.main_thread().ident
    frames: list[bytes] = []

    def read_slowly() -> None:
        link = BlockingLink(ours)
        ours.recv(1, socket.MSG_PEEK)  # the frame is on its way, and much larger than the socket
        table.set_soft(0, SEQ, SoftReason.CANCEL)
        signal.pthread_kill(main, SOFT_SIGNAL)
        while (frame := link.receive()) is not None:
            frames.append(frame)

    def task(context: TaskContext) -> None:
        context.metadata["much"] = "x" * 60_000
        try:
            context.save_metadata()
        except SoftTimeout as error:
            context.metadata["stopped"] = error.reason
            assert context.cancel_requested
            raise

    reader = threading.Thread(target=read_slowly)
    reader.start()
    result = run(task, by=LoneHost(BlockingLink(theirs), soft), soft=soft)
    theirs.close()
    reader.join()
    ours.close()
    signal.signal(SOFT_SIGNAL, signal.SIG_DFL)
    notes = [decode_note(frame) for frame in frames]
    assert all(note is not None and note[0] == SEQ for note in notes)
    assert result.verdict is Verdict.STOPPED
    assert json.loads(notes[-1][1])["stopped"] == "cancel"  # type: ignore[index]


def test_a_forked_child_has_nobody_to_tell(run: Callable[..., Result], table: DeadlineTable, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    host = LoneHost(BlockingLink(theirs), SoftSignal(table, 0))

    def task(context: TaskContext) -> None:
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            with pytest.raises(ContextError, match="forked from it"):
                context.progress(1)
        context.metadata.clear()

    body(run(task, by=host))
    ours.close()
    theirs.close()


def test_a_run_ends_when_the_frame_of_its_thread_is_whole(table: DeadlineTable) -> None:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    host = LoneHost(BlockingLink(theirs), SoftSignal(table, 0))
    host.open(SEQ)
    telling = threading.Thread(target=host.tell, args=(SEQ, b"x" * 60_000))
    telling.start()
    ours.recv(1, socket.MSG_PEEK)  # the thread is in the middle of it
    ending = threading.Thread(target=host.close, args=(SEQ,))
    ending.start()
    assert ending.is_alive()
    assert len(BlockingLink(ours).receive() or b"") > 60_000
    telling.join()
    ending.join()
    ours.close()
    theirs.close()


def test_a_forked_child_ends_though_a_thread_of_its_parent_was_telling(table: DeadlineTable, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    host = LoneHost(BlockingLink(theirs), SoftSignal(table, 0))
    host.open(SEQ)
    telling = threading.Thread(target=host.tell, args=(SEQ, b"x" * 60_000))
    telling.start()
    ours.recv(1, socket.MSG_PEEK)
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 1)
        host.close(SEQ)
    BlockingLink(ours).receive()
    telling.join()
    ours.close()
    theirs.close()


def test_contexts_of_tasks_beside_each_other_do_not_mix() -> None:
    class Beside(Listening):
        is_alone = False

    def look() -> None:
        with pytest.raises(ContextError):
            current()

    work = Work(SEQ, 1, 1, 1, 0, "default", f"{__name__}.look_empty", b"{}")
    thread = threading.Thread(target=contextvars.copy_context().run, args=(look,))
    thread.start()
    thread.join()
    assert run_attempt(work, Resolver(["*"]), SoftSignal(DeadlineTable.create(1), 0), 1000, Beside()).verdict is Verdict.SUCCEED


def look_empty() -> None:
    failed: list[BaseException] = []

    def look() -> None:
        try:
            current()
        except ContextError as error:
            failed.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert failed
