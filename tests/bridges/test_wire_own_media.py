from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.own_media.body import pack, unpack
from bridges.wire.own_media.clock import encode_clock, read_clock
from bridges.wire.own_media.datagram import (
    MAX_ALIAS,
    MAX_FRAGMENTS,
    MAX_FRAME_ID,
    MAX_ROWS,
    MAX_SOURCES,
    MAX_SPAN,
    PARITY_BYTES,
    Bundle,
    Fragment,
    FrameHead,
    Parity,
    decode,
    encode_bundle,
    encode_fragment,
    encode_parity,
    is_parity,
)
from bridges.wire.own_media.errors import MediaDatagramError

BYTE = st.integers(0, 255)


@st.composite
def heads(draw: st.DrawFn) -> FrameHead:
    frame = draw(st.integers(0, MAX_FRAME_ID))
    needs = draw(st.sets(st.integers(1, 255), max_size=3))
    return FrameHead(
        draw(st.integers(0, MAX_ALIAS)),
        frame,
        draw(st.integers(0, 2**32 - 1)),
        draw(BYTE),
        tuple(sorted(need for need in needs if need <= frame)),
        draw(st.booleans()),
        draw(st.integers(0, 7)),
        draw(st.integers(0, 7)),
    )


@settings(deadline=None)
@given(heads(), st.integers(1, MAX_FRAGMENTS), st.data(), st.binary(min_size=1, max_size=40))
def test_fragments_travel(head: FrameHead, parts: int, data: st.DataObject, payload: bytes) -> None:
    part = data.draw(st.integers(0, parts - 1))
    raw = encode_fragment(head, part, parts, payload)
    fragment = decode(raw)
    assert isinstance(fragment, Fragment)
    assert (fragment.head, fragment.part, fragment.parts) == (head, part, parts)
    assert (fragment.payload, fragment.raw) == (payload, raw)
    assert not is_parity(raw)


def test_the_header_is_short() -> None:
    assert len(encode_fragment(FrameHead(1, 100_000, 7, 50), 0, 1, b"x")) == 13 + 1
    assert len(encode_fragment(FrameHead(1, 100_000, 7, 50, (1,)), 3, 27, b"x")) == 14 + 1


def test_examples_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    examples = re.findall(
        r"^\| [^|]+ \| `([0-9a-f]{20,})` \|$", page.partition("## Media on our wire")[2], re.MULTILINE
    )
    delta = FrameHead(5, 1000, 2_000_000, 150, (1,))
    sound = [encode_fragment(FrameHead(6, n, 20_000 * n, 20), 0, 1, b"s") for n in (1, 0)]
    assert examples == [
        encode_fragment(delta, 2, 4, b"abc").hex(),
        encode_parity(Parity(5, 1000, 0, 1, (4,), b"\x00\x01\x02")).hex(),
        encode_bundle(tuple(sound)).hex(),
    ]
    assert f"| `{encode_clock(2.0).hex()}` |" in page


@settings(deadline=None)
@given(
    st.integers(0, MAX_ALIAS),
    st.integers(0, MAX_FRAME_ID - MAX_SPAN),
    st.integers(0, MAX_ROWS - 1),
    st.lists(st.integers(1, MAX_SOURCES // MAX_SPAN), min_size=1, max_size=MAX_SPAN),
    st.binary(min_size=3, max_size=50),
)
def test_parity_travels(alias: int, frame: int, row: int, counts: list[int], symbol: bytes) -> None:
    parity = Parity(alias, frame, 7 if len(counts) == 1 else 0, row, tuple(counts), symbol)
    raw = encode_parity(parity)
    assert decode(raw) == parity
    assert is_parity(raw)
    assert len(raw) <= len(symbol) - 2 + PARITY_BYTES


@settings(deadline=None)
@given(st.floats(0, 1e7))
def test_clocks_travel_and_come_round(seconds: float) -> None:
    raw = encode_clock(seconds)
    assert read_clock(raw) == round(seconds * 1e6) % 2**32
    with pytest.raises(MediaDatagramError):
        decode(raw)  # it is no track's: whoever puts tracks together never sees one


@settings(deadline=None)
@given(st.binary(max_size=8) | st.binary(min_size=4, max_size=4).map(lambda rest: b"\x70" + rest))
def test_any_bytes_are_a_clock_or_not_and_never_both_a_clock_and_something_else(data: bytes) -> None:
    stamp = read_clock(data)
    if stamp is None:
        assert len(data) != 5 or data[0] != 0x70
    else:
        assert encode_clock(stamp / 1e6) == data


@settings(deadline=None)
@given(st.lists(heads(), min_size=1, max_size=4))
def test_bundles_travel(chosen: list[FrameHead]) -> None:
    parts = tuple(encode_fragment(head, 0, 1, b"sound") for head in chosen)
    bundle = decode(encode_bundle(parts))
    assert isinstance(bundle, Bundle)
    assert [each.raw for each in bundle.fragments] == list(parts)


@settings(deadline=None)
@given(
    st.binary(max_size=80) | st.builds(lambda kind, rest: bytes([kind]) + rest, BYTE, st.binary(max_size=60))
)
def test_anything_else_raises_the_one_error(data: bytes) -> None:
    try:
        read = decode(data)
    except MediaDatagramError:
        return
    # What was read is what would have been written, but for longer forms of numbers.
    match read:
        case Fragment():
            again = decode(encode_fragment(read.head, read.part, read.parts, read.payload))
            assert isinstance(again, Fragment)
            assert again[:3] == read[:3]
        case Parity():
            assert decode(encode_parity(read)) == read
        case Bundle():
            assert 1 <= len(read.fragments) <= 4


@settings(deadline=None)
@given(heads(), st.data())
def test_a_datagram_that_is_cut_or_changed_is_read_or_refused(head: FrameHead, data: st.DataObject) -> None:
    raw = bytearray(encode_fragment(head, 0, 2, b"payload"))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(BYTE)
    for end in range(len(raw) + 1):
        try:
            decode(bytes(raw[:end]))
        except MediaDatagramError:
            continue


@pytest.mark.parametrize("version", [0, 2, 3])
def test_other_versions_are_refused(version: int) -> None:
    raw = bytearray(encode_fragment(FrameHead(1, 2, 3), 0, 1, b"x"))
    raw[0] = raw[0] & 0x3F | version << 6
    with pytest.raises(MediaDatagramError, match="version"):
        decode(bytes(raw))


@pytest.mark.parametrize(
    "wrong",
    [
        FrameHead(MAX_ALIAS + 1, 0, 0),
        FrameHead(0, MAX_FRAME_ID + 1, 0),
        FrameHead(0, 0, 2**32),
        FrameHead(0, 0, 0, 256),
        FrameHead(0, 9, 0, 0, (1, 2, 3, 4)),
        FrameHead(0, 9, 0, 0, (2, 1)),
        FrameHead(0, 0, 0, 0, (1,)),
        FrameHead(0, 0, 0, temporal=8),
        FrameHead(0, 0, 0, spatial=-1),
    ],
)
def test_what_has_no_room_is_not_written(wrong: FrameHead) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_fragment(wrong, 0, 1, b"x")


@pytest.mark.parametrize(
    "wrong",
    [
        Parity(0, 0, 0, MAX_ROWS, (1,), b"abc"),
        Parity(0, 0, 0, 0, (), b"abc"),
        Parity(0, 0, 0, 0, (0,), b"abc"),
        Parity(0, 0, 0, 0, (200, 200), b"abc"),
        Parity(0, 0, 1, 0, (1, 1), b"abc"),
        Parity(0, 0, 0, 0, (1,) * 9, b"abc"),
        Parity(0, 0, 0, 0, (1,), b"ab"),
        Parity(0, MAX_FRAME_ID, 0, 0, (1, 1), b"abc"),
        Parity(-1, 0, 0, 0, (1,), b"abc"),
    ],
)
def test_parity_that_cannot_be_is_not_written(wrong: Parity) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_parity(wrong)


PICTURE = MediaFrame.build(
    FrameFormat.VP8, timestamp=7, info=VideoInfo(width=640, height=360, key_frame=True), payload=b"picture"
)
SOUND = MediaFrame.build(
    FrameFormat.OPUS,
    timestamp=2**32 - 1,
    info=AudioInfo(samples=960, sample_rate=48000, channels=2, is_rtp_packet=True, voice=1, level=99),
    payload=b"sound",
)


@pytest.mark.parametrize(("frame", "size"), [(PICTURE, 12), (SOUND, 14)])
def test_frames_travel_with_a_short_header(frame: MediaFrame, size: int) -> None:
    body = pack(frame)
    assert len(body) == size + len(frame.payload)
    assert unpack(body) == frame


@settings(deadline=None)
@given(st.binary(min_size=40, max_size=60))
def test_any_frame_travels_whole_but_for_the_pointer(data: bytes) -> None:
    raw = data[:16] + (len(data) - 40).to_bytes(4, "little") + data[20:]
    frame = MediaFrame(raw)
    again = unpack(pack(frame))
    assert again.raw[:4] == raw[:4]
    assert again.raw[16:] == raw[16:]


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_what_is_no_frame_raises_the_one_error(body: bytes) -> None:
    try:
        frame = unpack(body)
    except MediaDatagramError:
        return
    assert unpack(pack(frame)).raw[16:] == frame.raw[16:]
