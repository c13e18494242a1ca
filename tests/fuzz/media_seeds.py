"""Where the fuzzing of media on our own wire begins: what a sender really sends, and some of it lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.media.own.sender import MediaSender, SenderLimits, Source
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.own_media.body import pack
from bridges.wire.own_media.clock import encode_clock
from tests.fuzz.media_targets import PICTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["media_seeds"]


def _records(datagrams: Iterable[bytes], *, pause: int = 1) -> bytes:
    return b"".join(bytes([pause]) + len(each).to_bytes(2, "big") + each for each in datagrams)


def _sent(*, round_trip: float, frames: int) -> list[bytes]:
    """Return the datagrams of pictures and sound on a path of which nothing is known but its length."""
    sender = MediaSender(SenderLimits(largest=200))
    sender.open(0, sound=False)
    sender.open(1, sound=True)
    sender.measured(round_trip)
    datagrams: list[bytes] = []
    for number in range(frames):
        now = number / 30
        key = number % 5 == 0
        picture = MediaFrame.build(
            FrameFormat.VP8,
            timestamp=3000 * number,
            info=VideoInfo(width=64, height=48, key_frame=key),
            payload=bytes([number]) * (500 if key else 150),
        )
        piece = MediaFrame.build(
            FrameFormat.OPUS,
            timestamp=960 * number,
            info=AudioInfo(samples=960, sample_rate=48_000, channels=2),
            payload=bytes([number]) * 20,
        )
        sender.offer(now, 0, Source(pack(picture), now, () if key else (1,)), rate=None)
        sender.offer(now, 1, Source(pack(piece), now, ()), rate=None)
        while (datagram := sender.head(now)) is not None:
            datagrams.append(datagram)
            sender.taken()
    return datagrams


def media_seeds() -> dict[str, list[bytes]]:
    """Return the beginnings of the target."""
    near, far = _sent(round_trip=0.02, frames=8), _sent(round_trip=0.25, frames=8)
    return {
        "own_media": [
            _records(near),
            _records(far, pause=0),
            _records([*near[:4], encode_clock(5000.0), *near[4:]]),
            _records(datagram for number, datagram in enumerate(near) if number % 4),
            _records(datagram for number, datagram in enumerate(far) if number % 5),
            _records(reversed(far)),
            _records([*near[:5], b"", b"\xff", b"\x70", *near[5:9]], pause=30),
            _records([b"\x40\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01x"] * 25),
        ],
        "picture_layers": [
            _layered(FrameFormat.VP8, b"\0key", b"\x01\0\0" + bytes(40), b"\x01\0\0" + b"\xa5" * 40),
            _layered(FrameFormat.VP9, b"\x82", b"\x87\0\0\x09\0\0", b"\x87\1\0\x09\0\0"),
            _layered(FrameFormat.H264, b"\0\0\1\x65key", b"\0\0\1\x01spare", b"\0\0\1\x41base"),
            _layered(FrameFormat.H265, b"\0\0\1\x26\1key", b"\0\0\1\x02\3top", b"\0\0\1\x02\1base"),
            _layered(FrameFormat.AV1, b"\x12\0\x0a\1k", b"\x12\0\x36\x20\1t", b"\x12\0\x36\0\1b"),
        ],
    }


def _layered(codec: FrameFormat, key: bytes, *pictures: bytes) -> bytes:
    """Return a key frame, and other pictures in turn."""
    number = PICTURES.index(codec)
    heads = [(0x80 | number, key), *[(number, each) for _ in range(3) for each in pictures]]
    return b"".join(bytes([head]) + len(each).to_bytes(2, "big") + each for head, each in heads)
