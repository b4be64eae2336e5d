"""The result envelope of the executor protocol, read and written."""

import json
from typing import Any

import pytest

from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.executor.encode import encode_error
from reproq_supervisor.executor.envelope import Failure, NoEnvelopeError, Success, read_envelope, write_envelope


def failure(**keys: Any) -> Failure:
    read = read_envelope(json.dumps({"ok": False, **keys}).encode())
    assert isinstance(read, Failure)
    return read


def written(result: Result) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(write_envelope(result))
    return envelope


@pytest.mark.parametrize("text", ['{"ok":true,"return":[1]}', ' \n{"return": [1], "ok": true, "more": 1}\n\n'])
def test_a_success_has_its_value(text: str) -> None:
    assert read_envelope(text.encode()) == Success([1])


def test_a_success_without_a_value_returned_nothing() -> None:
    assert read_envelope(b'{"ok":true}') == Success(None)


def test_a_failure_of_the_contract_is_retried() -> None:
    read = failure(exception_class="ValueError", message="bad", traceback="Traceback ...")
    assert read == Failure(ErrorKind.APP_ERROR, "ValueError", "bad", "Traceback ...", is_final=False, delay_s=None)


@pytest.mark.parametrize("exception_class", ["PayloadError", "ImportError"])
def test_what_no_retry_can_mend_is_final(exception_class: str) -> None:
    assert failure(exception_class=exception_class, message="no such task").is_final
    assert not failure(exception_class=exception_class, message="from inside the task", traceback="Traceback ...").is_final


def test_a_program_may_steer_its_retry() -> None:
    assert failure(message="x", retry=False).is_final
    assert failure(message="x", retry_after_s=5).delay_s == 5.0


@pytest.mark.parametrize("nonsense", [-1, "soon", True, None, [], float("nan"), float("inf"), 1e300])
def test_a_delay_that_is_none_is_not_taken(nonsense: object) -> None:
    assert failure(message="x", retry_after_s=nonsense).delay_s is None


@pytest.mark.parametrize(
    ("named", "kind"),
    [("bad_result", "bad_result"), ("worker_crashed", "app_error"), ("timeout", "app_error"), (7, "app_error"), ([], "app_error")],
)
def test_a_program_cannot_speak_for_the_daemon(named: object, kind: str) -> None:
    assert failure(message="x", kind=named).kind == kind


def test_texts_may_be_anything() -> None:
    read = failure(exception_class=7, message={"a": 1}, traceback=None)
    assert (read.exception_class, read.message, read.traceback) == ("7", '{"a": 1}', "")


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"   ",
        b"hello",
        b"[1]",
        b"null",
        b"{}",
        b'{"ok":1}',
        b'{"ok":"true"}',
        b'{"ok":true,"return":1}{"ok":true}',
        b'noise {"ok":true,"return":1}',
        b'{"ok":true,"return":1',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"ok":true,"return":' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_no_envelope(stdout: bytes) -> None:
    with pytest.raises(NoEnvelopeError, match=r"^Invalid JSON on stdout: "):
        read_envelope(stdout)


def test_a_success_is_written_as_the_contract_says() -> None:
    assert written(Result(1, Verdict.SUCCEED, b'{"a":[1,null]}')) == {"ok": True, "return": {"a": [1, None]}}


def test_an_error_is_written_as_the_contract_says() -> None:
    error = ValueError("bad")
    envelope = written(Result(1, Verdict.FAIL, encode_error(ErrorKind.APP_ERROR, "bad", error)))
    assert envelope.pop("traceback").startswith("ValueError")
    assert envelope == {"ok": False, "exception_class": "ValueError", "message": "bad"}


@pytest.mark.parametrize(
    ("kind", "exception_class"),
    [("invalid_spec", "PayloadError"), ("security_violation", "ForbiddenTaskError"), ("bad_result", "BadResultError")],
)
def test_what_we_find_wrong_has_a_class_and_keeps_its_kind(kind: str, exception_class: str) -> None:
    envelope = written(Result(1, Verdict.FAIL_FINALLY, encode_error(kind, "why")))
    assert envelope == {
        "ok": False,
        "exception_class": exception_class,
        "message": "why",
        "traceback": None,
        "retry": False,
        "kind": kind,
    }


def test_a_missing_task_has_no_traceback() -> None:
    envelope = written(Result(1, Verdict.FAIL_FINALLY, encode_error(ErrorKind.APP_ERROR, "no task", ImportError("no task"))))
    assert envelope == {"ok": False, "exception_class": "ImportError", "message": "no task", "traceback": None, "retry": False}


def test_a_stopped_task_was_terminated() -> None:
    assert written(Result(1, Verdict.STOPPED, encode_error(ErrorKind.TIMEOUT, "stopped")))["exception_class"] == "Terminated"


def test_a_delay_that_the_task_asked_for_is_passed_on() -> None:
    assert written(Result(1, Verdict.FAIL, encode_error(ErrorKind.APP_ERROR, "later"), delay_s=2.5))["retry_after_s"] == 2.5
