"""Frames: whatever pieces a stream arrives in, the same payloads come out, and a length that cannot be is refused."""

import itertools
import os
from multiprocessing.connection import Connection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core import frames

payloads = st.lists(st.binary(max_size=200), max_size=12)
messages = st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=5)


def fed_in_pieces(stream: bytes, cuts: list[int], reader: frames.FrameReader) -> list[bytes]:
    """Feed *stream* to *reader* in the pieces between *cuts*."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [frame for start, end in itertools.pairwise(edges) for frame in reader.feed(stream[start:end])]


@given(payloads, st.lists(st.integers(0, 5000), max_size=30))
def test_payloads_come_out_whole_and_in_order_however_the_stream_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frames.encode(payload) for payload in sent)
    assert fed_in_pieces(stream, cuts, frames.FrameReader()) == sent


@given(payloads)
def test_payloads_come_out_of_a_stream_of_single_bytes_as_soon_as_they_are_whole(sent: list[bytes]) -> None:
    reader = frames.FrameReader()
    for payload in sent:
        frame = frames.encode(payload)
        assert [reader.feed(frame[at : at + 1]) for at in range(len(frame) - 1)] == [[]] * (len(frame) - 1)
        assert reader.feed(frame[-1:]) == [payload]


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda name: name != "type"), st.integers(), max_size=4))
def test_a_message_of_numbers_is_the_one_that_json_makes(numbers: dict[str, int]) -> None:
    assert frames.encode_numbers("reaped", numbers) == frames.encode_message({"type": "reaped", **numbers})


@given(st.lists(messages, max_size=5))
def test_messages_come_out_as_they_went_in(sent: list[dict[str, Any]]) -> None:
    stream = b"".join(frames.encode_message(message) for message in sent)
    assert frames.FrameReader().feed_messages(stream) == sent


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_frame_up_to_the_limit_is_taken_and_a_longer_one_is_refused_by_its_length_alone(size: int, limit: int) -> None:
    frame, reader = frames.encode(bytes(size)), frames.FrameReader(limit)
    if size <= limit:
        assert reader.feed(frame) == [bytes(size)]
    else:
        with pytest.raises(frames.FrameError, match=f"expected 0 to {limit}, got {size}"):
            reader.feed(frame[: frames.HEADER.size])


@given(st.integers(-(2**31), -1))
def test_a_negative_length_is_refused(length: int) -> None:
    with pytest.raises(frames.FrameError, match=str(length)):
        frames.FrameReader().feed(frames.HEADER.pack(length))


def test_frames_of_sixty_four_mebibytes_are_the_longest() -> None:
    longest = 64 * 1024 * 1024
    assert frames.FrameReader().feed(frames.HEADER.pack(longest)) == []
    with pytest.raises(frames.FrameError):
        frames.FrameReader().feed(frames.HEADER.pack(longest + 1))


@given(st.binary(max_size=2000))
def test_a_blocking_peer_may_use_the_connection_of_the_standard_library(payload: bytes) -> None:
    read_fd, write_fd = os.pipe()
    with Connection(read_fd, writable=False) as reader, Connection(write_fd, readable=False) as writer:
        os.write(write_fd, frames.encode(payload))
        assert reader.recv_bytes() == payload
        writer.send_bytes(payload)
        assert frames.FrameReader().feed(os.read(read_fd, 4096)) == [payload]
