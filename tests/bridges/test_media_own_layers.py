"""What pictures say of their layers, by real encoders where there are some, by bits where not."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from bridges.media.own.layers import Dependencies
from bridges.wire.bitstream import BASE, Layer, layer_of
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from lab.media.picture import MovingPicture

SPARE = Layer(1, discardable=True)


def picture(payload: bytes, *, key: bool = False, format_: FrameFormat = FrameFormat.VP8) -> MediaFrame:
    info = VideoInfo(width=64, height=64, key_frame=key)
    return MediaFrame.build(format_, timestamp=0, info=info, payload=payload)


def encoded(
    codec: str, count: int, *, key_at: tuple[int, ...] = (), **options: str
) -> list[tuple[bytes, bool]]:
    """Return pictures of a codec, and which are key frames."""
    encoder = av.VideoCodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.bit_rate, encoder.gop_size, encoder.thread_count = 200_000, 1000, 1
    encoder.options = options
    source = MovingPicture(320, 192)
    packets = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(source.draw(number), format="yuv420p")
        frame.pts = number
        frame.pict_type = PictureType.I if number in key_at else PictureType.NONE
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [(bytes(packet), packet.is_keyframe) for packet in packets]


def vp8(layers: str, count: int = 40) -> list[tuple[bytes, bool]]:
    return encoded(
        "libvpx",
        count,
        key_at=(23,),
        **{"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"},
        **{"error-resilient": "default"},
        **({"ts-parameters": layers} if layers else {}),
    )


TWO_LAYERS = (
    "ts_number_layers=2:ts_target_bitrate=120,200:ts_rate_decimator=2,1:ts_periodicity=2:ts_layer_id=0,1"
    ":ts_layering_mode=2"
)


def test_of_a_vp8_stream_with_two_layers_one_can_be_left_out_and_the_rest_decodes_to_the_same() -> None:
    pictures = vp8(TWO_LAYERS)
    layers = [layer_of(FrameFormat.VP8, data) for data, _ in pictures]
    assert layers.count(SPARE) >= 15
    whole, rest = (av.VideoCodecContext.create("vp8", "r") for _ in range(2))
    for (data, _), layer in zip(pictures, layers, strict=True):
        (expected,) = whole.decode(av.Packet(data))
        if layer == BASE:
            (shown,) = rest.decode(av.Packet(data))
            assert shown.to_ndarray().tobytes() == expected.to_ndarray().tobytes()


def test_a_plain_vp8_stream_has_no_picture_to_spare() -> None:
    assert {layer_of(FrameFormat.VP8, data) for data, _ in vp8("", 12)} == {BASE}


def test_pictures_of_h264_that_are_not_referred_to_can_be_spared() -> None:
    pictures = encoded("libx264", 20, preset="ultrafast", bf="2", b_strategy="0")
    found = [layer_of(FrameFormat.H264, data) for data, _ in pictures]
    assert found.count(SPARE) >= 6
    assert found[0] == BASE


@pytest.mark.parametrize(
    ("format_", "payload", "layer"),
    [
        (FrameFormat.H265, b"\0\0\0\1\x46\1\xff\0\0\1\x02\x03rest", Layer(2, discardable=False)),
        (FrameFormat.H265, b"\0\0\1\x26\x01key", BASE),
        (FrameFormat.H265, b"\0\0\1\x46\x01no slice", BASE),
        (FrameFormat.H264, b"\0\0\1\x06sei\0\0\1\x01slice", SPARE),
        (FrameFormat.H264, b"\0\0\1\x06sei\0\0\1\x41slice", BASE),
        (FrameFormat.H264, b"no start code", BASE),
        # A temporal delimiter, then a frame with the extension: temporal 1.
        (FrameFormat.AV1, bytes([0x12, 0x00, 0x36, 0x20, 0x01, 0xFF]), Layer(1, discardable=False)),
        (FrameFormat.AV1, bytes([0x12, 0x00, 0x32, 0x01, 0xFF]), BASE),
        (FrameFormat.AV1, bytes([0x10, 0x00]), BASE),
        # Marker 10, profile 0, shown anew 0, inter, shown, resilient, nothing stored, references, same size.
        (FrameFormat.VP9, bytes([0b10000111, 0, 0, 0b00001001, 0, 0]), SPARE),
        (FrameFormat.VP9, bytes([0b10000111, 1, 0, 0b00001001, 0, 0]), BASE),
        (FrameFormat.VP9, bytes([0b10000111, 0, 0, 0b00001001, 0, 0b11000000]), BASE),
        (FrameFormat.VP9, bytes([0b10000011, 0, 0, 0, 0]), BASE),
        (FrameFormat.VP9, b"\0\0", BASE),
        (FrameFormat.VP8, b"\x01", BASE),
        (FrameFormat.VP8, b"", BASE),
        (FrameFormat.I420, b"raw", BASE),
    ],
)
def test_what_the_first_bits_say(format_: FrameFormat, payload: bytes, layer: Layer) -> None:
    assert layer_of(format_, payload) == layer


@given(st.sampled_from([*FrameFormat]), st.binary(max_size=200))
def test_any_bytes_give_an_answer(format_: FrameFormat, payload: bytes) -> None:
    layer = layer_of(format_, payload)
    assert 0 <= layer.temporal <= 7


def test_each_picture_needs_the_base_and_spare_ones_are_needed_by_none() -> None:
    dependencies = Dependencies()
    needs = [
        (dependence.needs, dependence.discardable)
        for data, key in vp8(TWO_LAYERS, 8)
        for dependence in [dependencies.of(picture(data, key=key))]
    ]
    assert needs == [
        ((), False),
        *[((1,), True), ((2,), False)] * 3,
        ((1,), True),
    ]


def test_layers_that_others_need_are_needed_until_the_next_key_frame() -> None:
    dependencies = Dependencies()

    def of(temporal: int, *, key: bool = False) -> tuple[int, ...]:
        payload = bytes([0x36, temporal << 5, 0x01, 0xFF])
        return dependencies.of(picture(payload, key=key, format_=FrameFormat.AV1)).needs

    assert of(0, key=True) == ()
    assert [of(temporal) for temporal in (2, 1, 2, 0, 2, 1, 2)] == [
        (1,),
        (2,),
        (1, 2, 3),
        (4,),
        (1, 2, 3),
        (2, 4),
        (1, 2, 3),
    ]
    assert of(7) == (1, 2, 4), "so many can be named"
    assert of(0, key=True) == ()
    assert of(1) == (1,)


def test_a_plain_stream_is_glanced_at_now_and_then_until_it_has_layers() -> None:
    dependencies = Dependencies()
    key, spare, base = b"\0", b"\0\0\1\x01slice", b"\0\0\1\x41slice"

    def of(payload: bytes) -> bool:
        return dependencies.of(picture(payload, key=payload is key, format_=FrameFormat.H264)).discardable

    of(key)
    for _ in range(100):
        assert not of(base)
    alternately = [of(payload) for _ in range(30) for payload in (spare, base)]
    assert alternately[-30:] == [True, False] * 15


def test_before_a_key_frame_the_one_before_is_needed_and_sound_needs_nothing() -> None:
    assert Dependencies().of(picture(b"\x01" * 30)).needs == (1,)
    info = AudioInfo(samples=960, sample_rate=48_000, channels=2)
    sound = MediaFrame.build(FrameFormat.OPUS, timestamp=0, info=info, payload=b"sound")
    dependencies = Dependencies()
    assert [dependencies.of(sound).needs for _ in range(3)] == [(), (), ()]
