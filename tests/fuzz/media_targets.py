"""Media on our own wire, fuzzed: datagrams as a peer sends them, and what is handed on of them.

Inputs are records: a byte with the time that passes before, in units of 10 ms; two bytes of length; the
datagram. Track 0 has pictures, track 1 sound; there are no others.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from bridges.media.own.incoming import Received, TrackLimits
from bridges.media.own.layers import Dependencies
from bridges.media.own.receiver import MediaReceiver, ReceiverLimits
from bridges.wire.bitstream import layer_of
from bridges.wire.frame import FrameFormat, MediaFrame, VideoInfo
from bridges.wire.own_media.body import pack, unpack
from bridges.wire.own_media.clock import encode_clock, read_clock
from bridges.wire.own_media.datagram import (
    MAX_NEED,
    MAX_NEEDS,
    Fragment,
    Parity,
    decode,
    encode_fragment,
    encode_parity,
)
from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PICTURES", "media_records", "own_media", "picture_layers"]

PICTURES: Final = [each for each in FrameFormat if each.is_video]

_TICK: Final = 0.01
_BYTES: Final = 32 << 10
_MALFORMED: Final = 20
_LIMITS: Final = ReceiverLimits(
    tracks=2,
    total_bytes=_BYTES,
    malformed=_MALFORMED,
    picture=TrackLimits(frame_bytes=_BYTES // 4, track_bytes=_BYTES // 2, window=64),
    sound=TrackLimits(frame_bytes=_BYTES // 8, track_bytes=_BYTES // 4, window=64, patience=0.2),
)


def media_records(data: bytes) -> Iterator[tuple[float, bytes]]:
    """Return how much time passes, and the datagram that comes then."""
    at = 0
    while at + 3 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at] * _TICK, data[at + 3 : at + 3 + length]
        at += 3 + length


def own_media(data: bytes) -> None:
    """Any datagrams give frames in order, each once and after those that it needs, or are passed over.

    What is kept is bounded; the peer is given up when it has sent so much nonsense, and not before. What was
    understood is the same when it was encoded again, and so are frames.
    """
    receiver, now = MediaReceiver(_LIMITS), 0.0
    receiver.open(0, sound=False)
    receiver.open(1, sound=True)
    handed: dict[int, list[int]] = defaultdict(list)
    for pause, datagram in media_records(data):
        now += pause
        _same_again(datagram)
        try:
            outputs = [*receiver.tick(now), *receiver.receive(now, datagram)]
        except MediaDatagramError:
            assert receiver.figures["malformed"] == _MALFORMED
            return
        assert receiver.figures["malformed"] < _MALFORMED
        assert 0 <= receiver.size <= _BYTES
        for output in outputs:
            if isinstance(output, Received):
                _judge(output, handed[output.alias])
            else:
                assert output.alias == 0, "sound has no key frames"


def picture_layers(data: bytes) -> None:
    """Whatever pictures are, each is said to need pictures that came before it, and none that nobody needs.

    Records as above; the first byte says the codec, its highest bit whether it is a key frame.
    """
    dependencies, begun = Dependencies(), False
    spare: set[int] = set()
    for number, (head, payload) in enumerate(_pictures(data)):
        key, codec = bool(head & 0x80), PICTURES[head % 0x80 % len(PICTURES)]
        layer = layer_of(codec, payload)
        assert 0 <= layer.temporal <= 7
        assert layer.temporal == 1 or not layer.discardable
        info = VideoInfo(width=64, height=64, key_frame=key)
        needs, discardable, temporal = dependencies.of(
            MediaFrame.build(codec, timestamp=0, info=info, payload=payload)
        )
        assert bool(needs) != key
        assert list(needs) == sorted(set(needs))
        assert 0 <= temporal < MAX_NEEDS >= len(needs)
        begun = begun or key
        if begun:
            assert not spare & {number - need for need in needs if need < MAX_NEED}
        if discardable:
            spare.add(number)


def _pictures(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 3 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + length]
        at += 3 + length


def _judge(received: Received, handed: list[int]) -> None:
    head = received.head
    assert not handed or head.frame > handed[-1]
    assert {head.frame - need for need in head.needs} <= set(handed)
    assert [head.frame - need for need in head.needs] == [handed[-need] for need in received.needs]
    handed.append(head.frame)
    try:
        frame = unpack(received.body)
    except MediaDatagramError:
        return
    assert unpack(pack(frame)).payload == frame.payload


def _same_again(datagram: bytes) -> None:
    if (stamp := read_clock(datagram)) is not None:
        assert encode_clock(stamp / 1e6) == datagram
    try:
        content = decode(datagram)
    except MediaDatagramError:
        return
    if isinstance(content, Fragment):
        again = encode_fragment(content.head, content.part, content.parts, content.payload)
        assert decode(again)[:3] == content[:3]
    elif isinstance(content, Parity):
        assert decode(encode_parity(content)) == content
