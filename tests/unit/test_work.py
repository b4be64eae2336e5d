"""The wire form between shard and executor."""

import struct

import pytest

from reproq_supervisor.core.work import Result, Verdict, Work, decode_batch, decode_result, encode_batch, encode_result

WORK = Work(7, 2**40, 2, 5, -3, "default", "a.b.c", b'{"args": []}')


def test_a_batch_comes_back_in_order() -> None:
    batch = [WORK, Work(8, 1, 1, 1, 0, "", "", b""), Work(9, -1, 1, 1, 2**31 - 1, "Grün", "ä.ö", b"\xff\x00")]
    assert list(decode_batch(encode_batch(batch))) == batch


def test_an_empty_batch_is_empty() -> None:
    assert list(decode_batch(b"")) == []


def test_a_path_of_any_length_is_cut_so_that_it_fits_and_resolves_to_nothing() -> None:
    (work,) = decode_batch(encode_batch([Work(1, 1, 1, 1, 0, "default", "é" * 5000, b"{}")]))
    assert work.task_path.startswith("ééé")
    assert work.spec == b"{}"


def test_a_batch_that_is_cut_short_is_an_error() -> None:
    with pytest.raises(struct.error):
        list(decode_batch(encode_batch([WORK])[:10]))


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("delay_s", [None, 0.0, 12.5])
@pytest.mark.parametrize("output_follows", [False, True])
def test_a_result_comes_back(verdict: Verdict, delay_s: float | None, output_follows: bool) -> None:
    result = Result(3, verdict, b"body", 0.25, delay_s, output_follows=output_follows)
    assert decode_result(encode_result(result)) == result


@pytest.mark.parametrize("payload", [b"", b"short", b"\xff" * 64])
def test_rubbish_is_refused(payload: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        decode_result(payload)
