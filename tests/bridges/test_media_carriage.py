"""The shell of media on our own wire, over a line of two ends that loses what a test says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from bridges.media.carriage import Carriage
from bridges.media.outlets import DatagramOutlet
from bridges.media.pieces import Piece, fresh
from bridges.media.settings import MediaSettings, OwnMediaSettings
from bridges.wire.own_media.body import pack
from bridges.wire.own_media.datagram import MAX_ALIAS, FrameHead, decode, encode_fragment
from tests.bridges.media_side import Changes, picture, sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridges.quic import Connection
    from bridges.quic.inside.datagrams import DatagramSource
    from bridges.wire.own_media.errors import MediaDatagramError

SETTINGS = MediaSettings(key_frame_interval=0.05, own=OwnMediaSettings(max_malformed=3))


_NOTICED = 0.02
"""Seconds until a loss is."""


class End:
    """One end of a line, as a carriage uses a QUIC connection."""

    path = None
    round_trip = None
    max_datagram_bytes = 1150

    def __init__(self, *, settings: MediaSettings = SETTINGS, tell_clock: bool = False) -> None:
        self.other: End
        self.loses: Callable[[bytes], bool] = lambda _: False
        self.refused: list[MediaDatagramError] = []
        self.source: DatagramSource
        self.arrive: Callable[[bytes], None]
        self.clocks: list[int] = []
        self.carriage = Carriage(
            cast("Connection", self),
            settings=settings,
            tell_clock=tell_clock,
            refused=self.refused.append,
        )

    def use_datagrams(self, source: DatagramSource, on_datagram: Callable[[bytes], None]) -> None:
        self.source, self.arrive = source, on_datagram

    def peer_clock(self, stamp: int) -> None:
        self.clocks.append(stamp)

    def datagrams_waiting(self) -> None:
        asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        while (datagram := self.source.head()) is not None:
            settle = self.source.taken()
            if self.loses(datagram):
                asyncio.get_running_loop().call_later(_NOTICED, self._lost, settle)
            else:
                self.other.arrive(datagram)
                settle(True)

    def _lost(self, settle: Callable[[bool], None]) -> None:
        settle(False)
        self._send()


class Taker:
    """Who pulls a track."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.lacks = 0
        self.changes = Changes()

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.changes.note()

    def key_frame_lacks(self) -> None:
        self.lacks += 1
        self.changes.note()


@pytest.fixture
async def line() -> Any:
    near, far = End(), End()
    near.other, far.other = far, near
    yield near, far
    near.carriage.close()
    far.carriage.close()


Line = tuple[End, End]


def joined(line: Line, *, video: bool = True) -> tuple[int, Taker, list[int]]:
    """Open a track from the first end to the second; return its number, its taker, and what is asked for."""
    near, far = line
    taker, asked = Taker(), list[int]()
    alias = far.carriage.expect(taker, sound=not video)
    near.carriage.open(alias, sound=not video, ask=lambda: asked.append(alias), slow=lambda _: None)
    return alias, taker, asked


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_numbers_go_round_and_those_in_use_are_passed_over(line: Line) -> None:
    carriage = line[1].carriage
    taker = Taker()
    assert [carriage.expect(taker, sound=True) for _ in range(3)] == [0, 1, 2]
    carriage.forget(0)
    assert carriage.expect(taker, sound=True) == 3
    carriage._next_alias = MAX_ALIAS
    assert [carriage.expect(taker, sound=True) for _ in range(3)] == [MAX_ALIAS, 0, 4]


async def test_too_many_tracks_are_refused_at_either_end() -> None:
    few = MediaSettings(max_tracks=1)
    end = End(settings=few)
    alias = end.carriage.expect(Taker(), sound=True)
    with pytest.raises(ValueError, match="tracks already"):
        end.carriage.expect(Taker(), sound=True)
    end.carriage.open(alias, sound=True, ask=lambda: None, slow=lambda _: None)
    with pytest.raises(ValueError, match="cannot be opened"):
        end.carriage.open(alias, sound=True, ask=lambda: None, slow=lambda _: None)
    with pytest.raises(ValueError, match="tracks already"):
        end.carriage.open(alias + 1, sound=True, ask=lambda: None, slow=lambda _: None)
    end.carriage.close()


async def test_a_frame_that_is_late_stays_so_when_it_is_passed_on(line: Line) -> None:
    near, _ = line
    alias, taker, _ = joined(line)
    near.carriage.offer(alias, fresh(picture(0, key=True), now()))
    late = Piece(picture(1), now() - 0.15, (1,), discardable=True, temporal=2, spatial=1)
    near.carriage.offer(alias, late)
    await taker.changes.until(lambda: len(taker.pieces) == 2)
    first, second = taker.pieces
    assert now() - first.captured < 0.1
    assert 0.1 < now() - second.captured < 1.0
    assert (second.frame, second.needs, second.discardable) == (late.frame, (1,), True)
    assert (second.temporal, second.spatial) == (2, 1)


async def test_what_is_lost_and_too_late_to_be_repeated_is_waited_for_no_longer(line: Line) -> None:
    near, far = line
    alias, taker, _ = joined(line, video=False)
    near.loses = is_frame(1)
    for number in range(3):
        near.carriage.offer(alias, fresh(sound(number), now()))
    await taker.changes.until(lambda: len(taker.pieces) == 2)
    assert [piece.frame for piece in taker.pieces] == [sound(0), sound(2)]
    quality = far.carriage.quality(alias)
    assert (quality.missed_frames, quality.recovered_datagrams) == (1, 0)
    assert 0 <= quality.jitter_ms < 1000
    assert near.carriage.carried().datagrams_lost > 0
    far.carriage.forget(alias)
    near.carriage.offer(alias, fresh(sound(3), now()))
    near.carriage.end(alias)


async def test_a_picture_that_cannot_be_decoded_is_not_handed_on_and_a_key_frame_lacks(line: Line) -> None:
    near, _ = line
    alias, taker, _ = joined(line)
    near.loses = is_frame(1)
    for number in range(3):
        near.carriage.offer(alias, fresh(picture(number, key=number == 0, size=500), now()))
    await taker.changes.until(lambda: taker.lacks >= 2)
    assert [piece.frame for piece in taker.pieces] == [picture(0, key=True, size=500)]
    near.carriage.offer(alias, fresh(picture(3, key=True), now()))
    await taker.changes.until(lambda: len(taker.pieces) == 2)


async def test_wishes_of_the_peer_reach_the_source_as_often_as_is_of_use(line: Line) -> None:
    near, _ = line
    alias, taker, asked = joined(line)
    assert not near.carriage.offer(alias, fresh(picture(0), now())), "there is nothing that it builds upon"
    for _ in range(50):
        near.carriage.wished(alias)
    assert len(asked) == 1
    near.carriage.offer(alias, fresh(picture(1, key=True), now()))
    await taker.changes.until(lambda: taker.pieces)
    near.carriage.wished(alias)
    near.carriage.end(alias)
    near.carriage.wished(alias)
    assert len(asked) <= 2


async def test_for_want_of_a_picture_that_is_given_up_a_key_frame_is_asked_for_at_once(line: Line) -> None:
    near, far = line
    asked = asyncio.Event()
    alias = far.carriage.expect(Taker(), sound=False)
    near.carriage.open(alias, sound=False, ask=asked.set, slow=lambda _: None)
    near.carriage.offer(alias, fresh(picture(0, key=True, size=500), now()))
    near.loses = lambda _: True
    near.carriage.offer(alias, Piece(picture(1, size=500), now() - 0.59, (1,)))
    async with asyncio.timeout(5):
        await asked.wait()
    assert near.carriage.given_up(alias) == 1


async def test_after_a_silence_sound_is_the_first_that_comes(line: Line) -> None:
    near, _ = line
    alias, taker, _ = joined(line, video=False)
    near.loses = lambda _: True
    near.carriage.offer(alias, fresh(sound(0), now()))
    await asyncio.sleep(0)
    near.loses = lambda _: False
    near.source.knock()
    near.datagrams_waiting()
    await taker.changes.until(lambda: taker.pieces)
    assert [piece.frame for piece in taker.pieces] == [sound(0)]


async def test_frames_that_are_none_are_counted_with_what_is_no_datagram(line: Line) -> None:
    _, far = line
    _, taker, _ = joined(line)
    for number in range(2):
        far.arrive(encode_fragment(FrameHead(0, number, 0), 0, 1, b"\x07 no frame"))
    assert far.refused == []
    far.arrive(b"\xff")
    assert len(far.refused) == 1
    assert taker.pieces == []


async def test_who_leaves_while_frames_are_handed_on_gets_no_more(line: Line) -> None:
    near, far = line
    alias, taker, _ = joined(line)

    def leave(piece: Piece) -> None:
        taker.pieces.append(piece)
        taker.changes.note()
        far.carriage.forget(alias)

    taker.piece = leave  # type: ignore[method-assign] # it leaves at the first
    for number in range(3):
        near.carriage.offer(alias, fresh(picture(number, key=number == 0), now()))
    await taker.changes.until(lambda: taker.pieces)
    assert far.carriage.receiver.figures["unknown_track"] > 0, "what came in the same turn"
    assert len(taker.pieces) == 1


async def test_after_the_end_nobody_is_called(line: Line) -> None:
    near, far = line
    alias, taker, asked = joined(line)
    near.loses = is_frame(1)
    for number in range(3):
        near.carriage.offer(alias, fresh(picture(number, key=number == 0), now()))
    await taker.changes.until(lambda: taker.pieces)
    far.carriage.close()
    near.carriage.close()
    assert far.carriage._timer is None
    far.arrive(encode_fragment(FrameHead(0, 9, 0), 0, 1, b"x"))
    near.carriage.wished(alias)
    assert len(taker.pieces) == 1
    assert asked == []


async def test_what_is_offered_after_the_end_goes_nowhere(line: Line) -> None:
    """A relay goes on getting frames until it is told that the link is gone, which is a moment later."""
    alias, taker, _asked = joined(line)
    near, _far = line
    near.carriage.close()
    assert not near.carriage.offer(alias, fresh(picture(1, key=True), now()))
    await asyncio.sleep(0)
    assert taker.pieces == []


def is_frame(number: int) -> Callable[[bytes], bool]:
    """Return whether a datagram has a part of that frame, or parity."""

    def parts(datagram: bytes) -> Iterator[int]:
        content: Any = decode(datagram)
        for each in getattr(content, "fragments", [content]):
            yield each.head.frame if hasattr(each, "head") else number

    return lambda datagram: number in parts(datagram)


async def test_what_expires_while_it_waits_was_dropped(line: Line) -> None:
    near, far = line
    taker = Taker()
    alias = far.carriage.expect(taker, sound=False)
    outlet = DatagramOutlet(near.carriage, alias, sound=False, ask=lambda: None, slow=lambda _: None)
    assert not outlet.offer(fresh(picture(1), now())), "a track begins with a key frame"
    old = fresh(picture(2, key=True), now() - 10.0)
    assert outlet.offer(old)
    assert outlet.dropped == 1
    assert near.source.head() is None, "it has waited for too long"
    assert outlet.dropped == 2
    assert outlet.offer(fresh(picture(3, key=True), now()))
    await taker.changes.until(lambda: taker.pieces)
    outlet.close()
    assert outlet.dropped == 2, "also when the track has ended"


async def test_what_is_passed_on_is_what_came(line: Line) -> None:
    near, far = line
    alias, taker, _ = joined(line)
    frame = picture(1, key=True)
    near.carriage.offer(alias, fresh(frame, now()))
    await taker.changes.until(lambda: taker.pieces)
    (piece,) = taker.pieces
    assert (piece.frame, piece.body) == (frame, pack(frame))
    again, next_taker, _ = joined((far, near))
    far.carriage.offer(again, piece._replace(body=pack(frame) + b"!"))
    await next_taker.changes.until(lambda: next_taker.pieces)
    assert next_taker.pieces[0].frame.payload == frame.payload + b"!"


@pytest.mark.parametrize("wanted", [True, False])
async def test_who_takes_media_tells_its_clock_to_a_peer_that_wants_it_and_to_no_other(
    *, wanted: bool
) -> None:
    near, far = End(), End(tell_clock=wanted)
    near.other, far.other = far, near
    alias, taker, _ = joined((near, far))
    far.datagrams_waiting()
    await asyncio.sleep(0)
    assert near.clocks == [], "nothing has come that the peer measures its path by"
    before = now()
    for number in range(12):
        near.carriage.offer(alias, fresh(picture(number, key=True), now()))
    await taker.changes.until(lambda: len(taker.pieces) == 12)
    far._send()
    assert len(near.clocks) == wanted
    if wanted:
        assert 0 <= (near.clocks[0] - round(before * 1e6)) % 2**32 < 60e6
    far._send()
    assert len(near.clocks) == wanted, "once, until more has come"
    assert near.refused == far.refused == []
    near.carriage.close()
    far.carriage.close()
