"""Byte-exact tests of the two binary structs, against the offsets that docs/wire.md lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.errors import FramingError
from bridges.wire.frame import (
    FEEDBACK_BYTES,
    HEADER_BYTES,
    AudioInfo,
    Feedback,
    FeedbackCommand,
    FeedbackType,
    FrameFormat,
    MediaFrame,
    VideoInfo,
)

FORMATS = {
    "I420": 100,
    "VP8": 200,
    "VP9": 201,
    "H264": 202,
    "H265": 203,
    "AV1": 204,
    "PCM_48000_2": 800,
    "PCMU": 900,
    "PCMA": 901,
    "OPUS": 902,
    "ISAC16": 903,
    "ISAC32": 904,
    "ILBC": 905,
    "G722_16000_1": 906,
    "G722_16000_2": 907,
    "AAC": 908,
    "AAC_48000_2": 909,
    "AC3": 910,
    "NELLYMOSER": 911,
    "DATA": 912,
    "RTP": 913,
}


def test_format_numbers_are_owts() -> None:
    assert {member.name: member.value for member in FrameFormat} == FORMATS
    assert {name for name in FORMATS if FrameFormat[name].is_video} == {
        "I420",
        "VP8",
        "VP9",
        "H264",
        "H265",
        "AV1",
    }


def test_video_header_byte_for_byte() -> None:
    frame = MediaFrame.build(
        FrameFormat.VP8,
        timestamp=0xA1B2C3D4,
        info=VideoInfo(width=0x0280, height=0x0168, key_frame=True),
        payload=b"\x10\x20\x30",
    )
    assert frame.raw == bytes.fromhex(
        "c8000000"  # format 200 @0
        "00000000"  # padding @4
        "0000000000000000"  # pointer @8
        "03000000"  # length @16
        "d4c3b2a1"  # timestamp @20
        "8002"  # width @24
        "6801"  # height @26
        "01"  # key frame @28
        "0000000000000000000000"  # rest of info @29
        "102030"  # payload @40
    )
    assert len(frame.raw) == HEADER_BYTES + 3


def test_audio_header_byte_for_byte() -> None:
    frame = MediaFrame.build(
        FrameFormat.OPUS,
        timestamp=960,
        info=AudioInfo(samples=960, sample_rate=48_000, channels=2, is_rtp_packet=True, voice=1, level=0x7F),
        payload=b"\xff",
    )
    assert frame.raw == bytes.fromhex(
        "86030000"  # format 902 @0
        "00000000"
        "0000000000000000"
        "01000000"  # length @16
        "c0030000"  # timestamp @20
        "01"  # is-RTP-packet @24
        "000000"
        "c0030000"  # samples @28
        "80bb0000"  # sample rate @32
        "02"  # channels @36
        "01"  # voice @37
        "7f"  # level @38
        "00"
        "ff"
    )


@pytest.mark.parametrize(
    ("offset", "size", "read"),
    [
        (0, 4, lambda frame: frame.format),
        (20, 4, lambda frame: frame.timestamp),
        (24, 2, lambda frame: frame.video.width),
        (26, 2, lambda frame: frame.video.height),
        (24, 1, lambda frame: int(frame.audio.is_rtp_packet)),
        (28, 4, lambda frame: frame.audio.samples),
        (32, 4, lambda frame: frame.audio.sample_rate),
        (36, 1, lambda frame: frame.audio.channels),
        (37, 1, lambda frame: frame.audio.voice),
        (38, 1, lambda frame: frame.audio.level),
    ],
)
def test_each_field_is_read_at_its_offset(offset: int, size: int, read: object) -> None:
    assert callable(read)
    raw = bytearray(HEADER_BYTES)
    value = 1 if size == 1 else 0x01020304 & ((1 << 8 * size) - 1)
    raw[offset : offset + size] = value.to_bytes(size, "little")
    assert read(MediaFrame(bytes(raw))) == value


def test_key_frame_flag_matters_for_pictures_only() -> None:
    picture = bytearray(HEADER_BYTES)
    picture[0] = FrameFormat.VP9
    assert not MediaFrame(bytes(picture)).key_frame
    picture[28] = 1
    assert MediaFrame(bytes(picture)).key_frame
    sound = MediaFrame.build(
        FrameFormat.OPUS, timestamp=0, info=AudioInfo(samples=0, sample_rate=48_000, channels=1), payload=b""
    )
    assert sound.key_frame
    assert not sound.is_video


def test_what_the_sender_left_in_unused_bytes_is_kept() -> None:
    raw = bytes(range(16)) + (2).to_bytes(4, "little") + bytes(range(20)) + b"ab"
    frame = MediaFrame(raw)
    assert frame.raw is raw
    assert frame.payload == b"ab"


def test_timestamp_wraps() -> None:
    info = VideoInfo(width=1, height=1, key_frame=False)
    assert MediaFrame.build(FrameFormat.VP8, timestamp=2**32 + 5, info=info, payload=b"").timestamp == 5


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1])
def test_a_frame_shorter_than_its_header_is_refused(length: int) -> None:
    with pytest.raises(FramingError, match="shorter than its header"):
        MediaFrame(bytes(length))


def test_a_frame_whose_length_lies_is_refused() -> None:
    with pytest.raises(FramingError, match="says 0 bytes and carries 3"):
        MediaFrame(bytes(HEADER_BYTES + 3))


@given(st.binary(max_size=2 * HEADER_BYTES))
def test_any_bytes_are_a_frame_or_the_documented_error(data: bytes) -> None:
    try:
        frame = MediaFrame(data)
    except FramingError:
        return
    assert frame.raw == data


def test_key_frame_request_byte_for_byte() -> None:
    assert Feedback.request_key_frame().raw == bytes(FEEDBACK_BYTES)


def test_bitrate_request_byte_for_byte() -> None:
    raw = Feedback.set_bitrate(0x1234).raw
    assert raw[0:4] == b"\0\0\0\0"
    assert raw[4:8] == b"\1\0\0\0"  # cmd @4
    assert raw[8:10] == b"\x34\x12"  # kbps @8
    assert raw[10:] == bytes(FEEDBACK_BYTES - 10)
    assert Feedback(raw).kbps == 0x1234


def test_init_stream_byte_for_byte() -> None:
    raw = Feedback.init_stream("track-1").raw
    assert len(raw) == FEEDBACK_BYTES
    assert raw[0:4] == b"\2\0\0\0"
    assert raw[4:8] == b"\3\0\0\0"
    assert raw[8:140] == bytes(132)
    assert raw[140:144] == b"\7\0\0\0"  # buffer length @140
    assert raw[144:151] == b"track-1"  # buffer @144
    assert raw[151:] == bytes(FEEDBACK_BYTES - 151)
    feedback = Feedback(raw)
    assert (feedback.type, feedback.command) == (FeedbackType.DATA, FeedbackCommand.INIT_STREAM_ID)
    assert feedback.stream_id == "track-1"


def test_init_stream_takes_128_bytes_and_no_more() -> None:
    assert Feedback.init_stream("é" * 64).stream_id == "é" * 64
    with pytest.raises(ValueError, match="130 bytes; at most 128"):
        Feedback.init_stream("é" * 65)


def test_a_stream_id_that_is_not_text_is_refused() -> None:
    raw = bytearray(Feedback.init_stream("xx").raw)
    raw[144:146] = b"\xff\xfe"
    with pytest.raises(FramingError, match="not UTF-8"):
        _ = Feedback(bytes(raw)).stream_id


@given(st.binary(min_size=FEEDBACK_BYTES - 1, max_size=FEEDBACK_BYTES + 1))
def test_any_bytes_are_feedback_or_the_documented_error(data: bytes) -> None:
    try:
        feedback = Feedback(data)
    except FramingError:
        return
    assert feedback.raw == data


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [(0, 3, "FeedbackType"), (4, 5, "FeedbackCommand"), (140, 129, "129 bytes of buffer")],
)
def test_feedback_out_of_range_is_refused(offset: int, value: int, complaint: str) -> None:
    raw = bytearray(FEEDBACK_BYTES)
    raw[offset] = value
    with pytest.raises(FramingError, match=complaint):
        Feedback(bytes(raw))
