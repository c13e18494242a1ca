"""Payload formats, with what real encoders give: apart, together again, decoded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rtp.errors import RtpError
from edge.rtp.formats import depacketizer, packetizer
from edge.rtp.formats.h264 import nal_units
from edge.rtp.formats.opus import samples
from edge.rtp.packet import RtpPacket
from edge.rtp.track import Codec, RtpTrack
from tests.edge.encoded import HEIGHT, KEY_FRAMES, WIDTH, decoded, pictures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge.rtp.formats.port import Depacketizer, Encoded

VIDEO = [codec for codec in Codec if codec.is_video]
LIMIT = 1 << 20


def track(codec: Codec, **more: tuple[bytes, ...]) -> RtpTrack:
    return RtpTrack(codec=codec, payload_type=96, **more)  # type: ignore[arg-type]  # only parameters come


def payloads(codec: Codec, *, max_bytes: int = 1000) -> list[tuple[int, bool, bytes]]:
    """Return the packets of the encoded pictures: number of the picture, marker, payload."""
    takes_apart = packetizer(track(codec))
    found = []
    for number, (frame, key) in enumerate(pictures(codec)):
        parts = takes_apart.split(frame, key_frame=key, max_bytes=max_bytes)
        found += [(number, part is parts[-1], part) for part in parts]
    return found


def together(puts: Depacketizer, packets: Iterable[tuple[int, bool, bytes]]) -> list[Encoded]:
    frames = []
    for number, marker, payload in packets:
        packet = RtpPacket(
            payload_type=96, sequence=0, timestamp=number * 3000, ssrc=1, marker=marker, payload=payload
        )
        if (frame := puts.push(packet)) is not None:
            frames.append(frame)
    return frames


@pytest.mark.parametrize("codec", VIDEO)
@pytest.mark.parametrize("max_bytes", [60, 1000, 8000])
def test_pictures_come_out_as_they_went_in_and_decode(codec: Codec, max_bytes: int) -> None:
    packets = payloads(codec, max_bytes=max_bytes)
    assert max(len(payload) for _, _, payload in packets) <= max_bytes
    frames = together(depacketizer(track(codec), max_frame_bytes=LIMIT), packets)
    assert len(frames) == len(pictures(codec))
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == list(KEY_FRAMES)
    assert {(frame.width, frame.height) for frame in frames} == {(WIDTH, HEIGHT)}
    for frame, (original, _) in zip(frames, pictures(codec), strict=True):
        match codec:
            case Codec.AV1:
                assert frame.payload == original.removeprefix(b"\x12\0"), "all but the temporal delimiter"
            case Codec.H264:
                assert nal_units(frame.payload) == nal_units(original), "start codes may have other lengths"
            case _:
                assert frame.payload == original
    assert decoded(codec, [frame.payload for frame in frames]) == [(WIDTH, HEIGHT)] * len(frames)


@pytest.mark.parametrize("codec", VIDEO)
def test_after_a_loss_it_goes_on_with_the_next_key_frame(codec: Codec) -> None:
    packets = payloads(codec)
    for lost in range(len(packets)):
        puts = depacketizer(track(codec), max_frame_bytes=LIMIT)
        frames = together(puts, packets[:lost])
        puts.lose()
        assert puts.wants_key_frame
        for packet in packets[lost + 1 :]:
            with contextlib.suppress(RtpError):
                frames += together(puts, [packet])
        cut = packets[lost][0]
        following = next((number for number in KEY_FRAMES if number > cut), 10_000)
        if codec is Codec.H264 and packets[lost][2][0] & 0x1F in {6, 24} and cut > 0:
            following = cut  # only parameter sets are missing: they are those of before
        whole = [number for number in range(len(pictures(codec))) if number < cut or number >= following]
        assert [frame.timestamp // 3000 for frame in frames] == whole
        assert all(frame.key_frame for frame in frames if frame.timestamp // 3000 == following)


@pytest.mark.parametrize("codec", VIDEO)
def test_a_picture_that_is_too_large_is_given_up(codec: Codec) -> None:
    puts = depacketizer(track(codec), max_frame_bytes=2000)
    with pytest.raises(RtpError, match="more than 2000 bytes"):
        together(puts, payloads(codec))
    assert puts.wants_key_frame


def test_a_picture_of_countless_packets_is_given_up() -> None:
    puts = depacketizer(track(Codec.VP8), max_frame_bytes=LIMIT)
    (_, _, first), *_ = payloads(Codec.VP8, max_bytes=20)
    with pytest.raises(RtpError, match="packets"):
        together(puts, [(0, False, first), *[(0, False, b"\0")] * 20_000])


@pytest.mark.parametrize("codec", VIDEO)
def test_a_picture_without_an_end_is_given_up(codec: Codec) -> None:
    (number, _, payload), *_ = payloads(codec)
    puts = depacketizer(track(codec), max_frame_bytes=LIMIT)
    with pytest.raises(RtpError, match="no end"):
        together(puts, [(number, False, payload), (number + 1, True, payload)])


@pytest.mark.parametrize("codec", VIDEO)
@given(data=st.data())
def test_broken_payloads_are_refused_and_nothing_else_happens(codec: Codec, data: st.DataObject) -> None:
    packets = payloads(codec, max_bytes=400)
    puts = depacketizer(track(codec), max_frame_bytes=LIMIT)
    for _ in range(data.draw(st.integers(1, 8))):
        number, marker, payload = data.draw(st.sampled_from(packets))
        broken = bytearray(payload)
        for _ in range(data.draw(st.integers(0, 3))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
        try:
            together(puts, [(number, marker, cut)])
        except RtpError:
            assert puts.wants_key_frame


@pytest.mark.parametrize("codec", [Codec.H264, Codec.AV1])
@given(frame=st.binary(min_size=1, max_size=60), key=st.booleans())
def test_frames_that_are_none_are_refused_or_fit(codec: Codec, frame: bytes, *, key: bool) -> None:
    try:
        parts = packetizer(track(codec)).split(frame, key_frame=key, max_bytes=20)
    except RtpError:
        return
    assert all(0 < len(part) <= 20 for part in parts)


def test_parameter_sets_of_a_description_are_put_before_key_frames_that_lack_them() -> None:
    (frame, _), *_ = pictures(Codec.H264)
    units = nal_units(frame)
    sets = tuple(unit for unit in units if unit[0] & 0x1F in {7, 8})
    bare = b"".join(b"\0\0\1" + unit for unit in units if unit not in sets)
    puts = depacketizer(track(Codec.H264, parameters=sets), max_frame_bytes=LIMIT)
    parts = packetizer(track(Codec.H264)).split(bare, key_frame=True, max_bytes=1000)
    (whole,) = together(puts, [(0, part is parts[-1], part) for part in parts if part[0] & 0x1F != 6])
    assert (whole.width, whole.height) == (WIDTH, HEIGHT)
    assert decoded(Codec.H264, [whole.payload]) == [(WIDTH, HEIGHT)]


def test_vp8_and_vp9_layers_are_read_from_the_descriptors() -> None:
    (key, _), (delta, _), *_ = pictures(Codec.VP8)
    vp8 = depacketizer(track(Codec.VP8), max_frame_bytes=LIMIT)
    # X; I, L, T, K: a picture id of 7 bits, TL0PICIDX, temporal layer 2 with the sync bit, KEYIDX.
    whole = together(
        vp8, [(0, True, b"\x90\xf0\x05\x01\x20" + key), (1, True, b"\x90\xf0\x06\x01\xa1" + delta)]
    )
    assert [(frame.payload, frame.temporal) for frame in whole] == [(key, 0), (delta, 2)]
    (key, _), (delta, _), *_ = pictures(Codec.VP9)
    vp9 = depacketizer(track(Codec.VP9), max_frame_bytes=LIMIT)
    structure = b"\x18\x01\x40\x00\xb4\x02\x10\x20"  # one spatial layer of 320 × 180; two temporal ones
    first = b"\xae\x81\x01\x00\x07" + structure + key  # I, L, B, E, V; not flexible
    second = b"\xfc\x02\x20\x03\x04" + delta  # I, P, L, F, B, E: needs the picture before, and one more
    whole = together(vp9, [(0, True, first), (1, True, second)])
    assert [(frame.payload, frame.temporal) for frame in whole] == [(key, 0), (delta, 1)]
    assert (whole[0].width, whole[0].height) == (320, 180)


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        ("fc", 960),
        ("fd", 1920),
        ("08", 960),
        ("18", 2880),
        ("60", 480),
        ("68", 960),
        ("e0", 120),
        ("ff03", 2880),
    ],
)
def test_how_long_an_opus_packet_sounds(packet: str, count: int) -> None:
    assert samples(bytes.fromhex(packet)) == count


@pytest.mark.parametrize("packet", ["", "ff", "ff00", "ff3f"])
def test_opus_packets_that_are_none_are_refused(packet: str) -> None:
    with pytest.raises(RtpError):
        samples(bytes.fromhex(packet))
