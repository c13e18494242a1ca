"""The framing: bytes cut anywhere give the same messages, and garbage gives the one documented error."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.errors import FramingError, OversizedError, WireError
from bridges.wire.frame import AudioInfo, Feedback, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.framing import Deframer, Message, Metadata, encode

LIMITS = {"max_metadata_bytes": 200, "max_frame_bytes": 300}

frames = st.builds(
    lambda timestamp, key, payload: MediaFrame.build(
        FrameFormat.VP8,
        timestamp=timestamp,
        info=VideoInfo(width=640, height=360, key_frame=key),
        payload=payload,
    ),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.binary(max_size=200),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Metadata, st.binary(max_size=200)),
    frames,
    st.builds(Feedback.init_stream, st.text(max_size=30)),
    st.just(Feedback.request_key_frame()),
)


def drain(deframer: Deframer) -> list[Message | str]:
    """Everything that can be taken now; an error ends the list as its text."""
    taken: list[Message | str] = []
    try:
        while (message := deframer.next_message()) is not None:
            taken.append(message)
    except WireError as error:
        taken.append(str(error))
    return taken


def feed_in_pieces(pieces: list[bytes]) -> list[Message | str]:
    deframer = Deframer(**LIMITS)
    taken: list[Message | str] = []
    for piece in pieces:
        deframer.feed(piece)
        taken += drain(deframer)
        if taken and isinstance(taken[-1], str):
            break
    return taken


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def test_metadata_byte_for_byte() -> None:
    assert encode(Metadata(b'{"a":1}')) == b"\0\0\0\x08\x3a" + b'{"a":1}'


def test_frame_and_feedback_byte_for_byte() -> None:
    frame = MediaFrame.build(
        FrameFormat.OPUS, timestamp=1, info=AudioInfo(samples=1, sample_rate=8000, channels=1), payload=b"x"
    )
    assert encode(frame) == b"\0\0\0\x2a\x8f" + frame.raw
    feedback = Feedback.request_key_frame()
    assert encode(feedback) == b"\0\0\x01\x11\x5a" + feedback.raw


@given(st.lists(messages, max_size=8), st.lists(st.integers(min_value=0), max_size=8))
def test_what_is_encoded_comes_back_however_it_is_cut(sent: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    assert feed_in_pieces([data]) == sent
    assert feed_in_pieces([data[i : i + 1] for i in range(len(data))]) == sent
    assert feed_in_pieces(split_at(data, cuts)) == sent


@given(
    st.lists(messages, max_size=3).map(lambda sent: b"".join(map(encode, sent))),
    st.binary(max_size=400),
    st.lists(st.integers(min_value=0), max_size=5),
)
def test_garbage_gives_the_same_messages_and_error_however_it_is_cut(
    prefix: bytes, garbage: bytes, cuts: list[int]
) -> None:
    data = prefix + garbage
    whole = feed_in_pieces([data])
    assert feed_in_pieces([data[i : i + 1] for i in range(len(data))]) == whole
    assert feed_in_pieces(split_at(data, cuts)) == whole


@given(st.binary(max_size=2000))
def test_never_more_is_buffered_than_the_largest_message(data: bytes) -> None:
    deframer = Deframer(**LIMITS)
    deframer.feed(data)
    drain(deframer)
    assert deframer.buffered < 5 + max(LIMITS.values())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\0\0\0\0\x3a", "no bytes"),
        (b"\0\0\0\x02\x00", "unknown message type 0x00"),
        (b"\0\0\0\xca\x3a", "metadata of 201 bytes; the limit is 200 bytes"),
        (b"\xff\xff\xff\xff\x8f", "frame of 4294967294 bytes; the limit is 300 bytes"),
        (b"\0\0\x01\x12\x5a", "feedback of 273 bytes; the limit is 272 bytes"),
        (b"\0\0\0\x02\x5aX", "feedback of 1 bytes instead of 272"),
        (b"\0\0\0\x02\x8fX", "shorter than its header"),
    ],
)
def test_each_violation_has_its_words(data: bytes, complaint: str) -> None:
    (error,) = feed_in_pieces([data])
    assert isinstance(error, str)
    assert complaint in error


def test_a_dead_stream_stays_dead() -> None:
    deframer = Deframer()
    deframer.feed(b"\0\0\0\0\x3a" + encode(Metadata(b"{}")))
    for _ in range(2):
        with pytest.raises(FramingError):
            deframer.next_message()
    deframer.feed(encode(Metadata(b"{}")))
    assert deframer.buffered == 0
    with pytest.raises(FramingError):
        deframer.next_message()


def test_an_oversized_message_is_refused_before_its_body_arrives() -> None:
    deframer = Deframer(max_frame_bytes=1000)
    deframer.feed((1_000_001).to_bytes(4, "big") + b"\x8f")
    with pytest.raises(OversizedError, match="limit is 1000"):
        deframer.next_message()
