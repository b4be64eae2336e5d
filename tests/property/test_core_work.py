"""The wire form between shard and executor, for every task and every result."""

import math

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.work import (
    MAX_TASK_PATH_BYTES,
    Result,
    Verdict,
    Work,
    decode_batch,
    decode_note,
    decode_result,
    encode_batch,
    encode_note,
    encode_output_note,
    encode_result,
)

works = st.builds(
    Work,
    seq=st.integers(0, 2**64 - 1),
    result_id=st.integers(-(2**63), 2**63 - 1),
    attempt=st.integers(0, 2**32 - 1),
    max_attempts=st.integers(0, 2**32 - 1),
    priority=st.integers(-(2**31), 2**31 - 1),
    queue_name=st.text(max_size=50),
    task_path=st.text(max_size=50),
    spec=st.binary(max_size=300),
    lease_no=st.integers(0, 2**63 - 1),
    limit_s=st.floats(0, 1e9),
)
results = st.builds(
    Result,
    seq=st.integers(0, 2**64 - 1),
    verdict=st.sampled_from(Verdict),
    body=st.binary(max_size=300),
    elapsed_s=st.floats(allow_nan=False),
    delay_s=st.none() | st.floats(allow_nan=False),
    output_follows=st.booleans(),
)


@given(st.lists(works, max_size=20))
def test_a_batch_comes_out_as_it_went_in(batch: list[Work]) -> None:
    assert list(decode_batch(encode_batch(batch))) == batch


@given(results)
def test_a_result_comes_out_as_it_went_in(result: Result) -> None:
    assert decode_result(encode_result(result)) == result


@given(st.floats(0, 1e9))
def test_a_delay_of_nothing_is_not_no_delay(delay_s: float) -> None:
    asked = decode_result(encode_result(Result(1, Verdict.FAIL, b"{}", delay_s=delay_s))).delay_s
    assert asked is not None
    assert math.isclose(asked, delay_s)
    assert decode_result(encode_result(Result(1, Verdict.FAIL, b"{}"))).delay_s is None


@given(st.text(st.sampled_from("aä€😀"), min_size=1000, max_size=6000), works)
def test_a_path_that_is_too_long_is_cut_and_what_comes_behind_it_is_whole(path: str, other: Work) -> None:
    long = Work(1, 2, 3, 4, 5, "queue", path, b"spec")
    first, second = decode_batch(encode_batch([long, other]))
    kept = path.encode()[:MAX_TASK_PATH_BYTES].decode(errors="replace")
    assert first == Work(1, 2, 3, 4, 5, "queue", kept, b"spec")
    assert second == other


def test_a_path_of_four_kibibytes_is_the_longest() -> None:
    for length in (4096, 4097):
        (work,) = decode_batch(encode_batch([Work(1, 1, 1, 1, 0, "q", "a" * length, b"")]))
        assert work.task_path == "a" * 4096


@given(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=300), results)
def test_a_note_comes_out_as_it_went_in_and_is_taken_for_nothing_else(seq: int, metadata: bytes, result: Result) -> None:
    assert decode_note(encode_note(seq, metadata)) == (seq, metadata)
    assert decode_note(encode_result(result)) is None
    assert decode_note(encode_output_note(seq)) is None
