"""Where the fuzzing of media on our own wire begins: what a sender really sends, and some of it lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.media.own.sender import MediaSender, SenderLimits, Source
from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.own_media.body import pack

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
            _records(datagram for number, datagram in enumerate(near) if number % 4),
            _records(datagram for number, datagram in enumerate(far) if number % 5),
            _records(reversed(far)),
            _records([*near[:5], b"", b"\xff", b"\x70", *near[5:9]], pause=30),
            _records([b"\x40\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01x"] * 25),
        ]
    }
