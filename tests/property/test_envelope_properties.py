"""Whatever a program writes, reading it as an envelope has one of three ends."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import MAX_RESULT_BYTES, Result, Verdict
from reproq_supervisor.executor.encode import encode_error, encode_failure, encode_result
from reproq_supervisor.executor.envelope import Failure, NoEnvelopeError, Success, read_envelope, write_envelope

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(["exception_class", "message", "traceback", "kind", "retry", "retry_after_s", "return", "other"])


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_an_envelope_or_are_refused(stdout: bytes) -> None:
    try:
        assert isinstance(read_envelope(stdout), Success | Failure)
    except NoEnvelopeError as error:
        assert str(error).startswith("Invalid JSON on stdout: ")


@given(st.dictionaries(keys, json_values, max_size=6))
def test_any_failure_becomes_an_error_object_of_a_kind_that_a_program_may_name(told: dict[str, Any]) -> None:
    said = read_envelope(json.dumps({**told, "ok": False}).encode())
    assert isinstance(said, Failure)
    assert said.delay_s is None or said.delay_s >= 0
    error = json.loads(encode_failure(said.kind, said.message, said.exception_class, said.traceback, exit_code=1))
    assert error["kind"] in ("app_error", "bad_result", "invalid_spec", "security_violation")
    assert "\0" not in error["message"] + error["exception_class"] + error["traceback"]


@given(json_values)
def test_what_our_program_returns_is_what_is_read(value: Any) -> None:
    try:
        body = encode_result(value, MAX_RESULT_BYTES)
    except ValueError:
        return  # refused by the program itself
    said = read_envelope(write_envelope(Result(1, Verdict.SUCCEED, body)))
    assert isinstance(said, Success)
    assert encode_result(said.value, MAX_RESULT_BYTES) == body


@given(st.sampled_from([Verdict.FAIL, Verdict.FAIL_FINALLY]), st.text(max_size=50), st.none() | st.floats(0, 1000))
def test_what_our_program_says_of_a_failure_is_what_is_read(verdict: Verdict, message: str, delay_s: float | None) -> None:
    error = encode_error(ErrorKind.APP_ERROR, message, RuntimeError(message))
    said = read_envelope(write_envelope(Result(1, verdict, error, delay_s=delay_s)))
    assert isinstance(said, Failure)
    assert (said.kind, said.exception_class, said.is_final) == ("app_error", "RuntimeError", verdict is Verdict.FAIL_FINALLY)
    assert said.message == json.loads(error)["message"]
    assert said.delay_s == (delay_s if verdict is Verdict.FAIL else None)
