"""The media bridge against a peer that speaks OWT's wire and does as it pleases."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridges.codes import CloseCode, name_of
from bridges.media.settings import MediaSettings
from bridges.quic import Certificate, Connection, QuicSettings, dial, listen
from bridges.wire.errors import (
    FramingError,
    MessageError,
    OversizedError,
    ReplayedError,
    SequenceError,
    UnknownMessageError,
    WireError,
)
from bridges.wire.frame import Feedback, MediaFrame
from bridges.wire.framing import Deframer, Message, Metadata
from bridges.wire.framing import encode as encode_message
from bridges.wire.messages import (
    ClusterHello,
    Ready,
    Subscribe,
    SubscribeOptions,
    TrackHello,
    decode_media,
    encode,
)
from bridges.wire.objects import MediaOptions, TrackRequest
from tests.bridges.media_side import QUICK, ROOM, Changes, Side, Taken, picture, side, sound, two_sides

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.wire.objects import TrackKind

OWT_WIRE = QuicSettings(alpn=("h3",))

HELLO = ClusterHello(room=ROOM, token="room-token", cluster="rogue")


class Peer:
    """The other end of a QUIC connection: notes what comes, says what it is told to."""

    def __init__(self) -> None:
        self.quic: Connection
        self.messages: dict[int, list[Message]] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.lost: list[str] = []
        self.changes = Changes()
        self._deframers: dict[int, Deframer] = {}

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        deframer = self._deframers.setdefault(stream_id, Deframer())
        deframer.feed(data)
        while (message := deframer.next_message()) is not None:
            self.messages.setdefault(stream_id, []).append(message)
        if end:
            self.ended.add(stream_id)
        self.changes.note()

    def stream_reset(self, stream_id: int, code: int) -> None:
        self.resets[stream_id] = code
        self.changes.note()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changes.note()

    def open(self, *messages: object) -> int:
        stream_id = self.quic.open_stream()
        self.say(stream_id, *messages)
        return stream_id

    def say(self, stream_id: int, *messages: object) -> None:
        for message in messages:
            if isinstance(message, bytes):
                self.quic.send(stream_id, message)
            elif isinstance(message, MediaFrame | Feedback | Metadata):
                self.quic.send(stream_id, encode_message(message))
            else:
                self.quic.send(stream_id, encode_message(encode(message)))  # type: ignore[arg-type] # signals

    def frames(self, stream_id: int) -> list[MediaFrame]:
        return [m for m in self.messages.get(stream_id, []) if isinstance(m, MediaFrame)]


@asynccontextmanager
async def peer_of(own: Side, *, settings: QuicSettings = OWT_WIRE) -> AsyncIterator[Peer]:
    """Dial a side's bridge."""
    info = await own.call("getInfo")
    quic = await dial(info["ip"], info["port"], fingerprint=info["fingerprint"], settings=settings)
    peer = Peer()
    peer.quic = quic
    quic.handler = peer
    try:
        yield peer
    finally:
        quic.close()
        await quic.wait_closed()


async def let_in(peer: Peer, own: Side) -> None:
    assert peer.open(Ready(), HELLO) == 0
    await own.poll(lambda stats: any(link["peer"] == "rogue" for link in stats["links"]))


def subscribe(
    connection_id: str = "quic-1-1", kind: TrackKind = "video", *, alias: int | None = None
) -> tuple[object, ...]:
    media = MediaOptions(tracks=[TrackRequest(id="t", type=kind, from_="stream-1")])
    options = SubscribeOptions(
        room=ROOM, cluster="rogue", connection_id=connection_id, media=media, alias=alias
    )
    return Ready(), TrackHello(id="t", kind=kind), Subscribe(options=options)


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_track_streams_before_the_token_are_reset_unread() -> None:
    async with side("east") as east, peer_of(east) as peer:
        signalling = peer.open(Ready())
        early = peer.open(*subscribe())
        await peer.changes.until(lambda: peer.resets)
        assert peer.resets == {early: SequenceError.code}
        peer.say(signalling, HELLO)
        await east.poll(lambda stats: stats["links"])
        assert east.subscribed == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([HELLO], SequenceError.code),
        ([Ready(), Ready()], ReplayedError.code),
        ([Ready(), TrackHello(id="t", kind="video")], SequenceError.code),
        ([Ready(), picture()], UnknownMessageError.code),
        ([b"\xff\xff\xff\xff\x3a"], OversizedError.code),
        ([b"\0\0\0\0\x3a"], FramingError.code),
        ([Metadata(b"{")], MessageError.code),
        ([Metadata(b'{"type":"bridge"}')], UnknownMessageError.code),
        ([Ready(), ClusterHello(room=ROOM, token="guessed", cluster="rogue")], CloseCode.TOKEN_REFUSED),
        ([Ready(), ClusterHello(room="other", token="x", cluster="rogue")], CloseCode.TOKEN_REFUSED),
        ([Ready(), ClusterHello(room=ROOM, token="room-token", cluster="east")], CloseCode.IDENTITY),
    ],
)
async def test_what_is_wrong_on_the_signalling_stream_closes_the_connection(
    words: list[Any], code: int
) -> None:
    async with side("east") as east, peer_of(east) as peer:
        peer.open(*words)
        await peer.changes.until(lambda: peer.lost)
        assert f"0x{code:x}" in peer.lost[0]
        assert "guessed" not in peer.lost[0]
        assert east.bridge.figures().counters[name_of(code)] == 1
        assert (await east.stats())["links"] == []


async def test_a_peer_that_says_nothing_is_shown_the_door() -> None:
    async with side("east", media=MediaSettings(hello_timeout=0.1)) as east, peer_of(east) as peer:
        peer.open(Ready())
        await peer.changes.until(lambda: peer.lost)


async def test_a_track_stream_on_which_nothing_is_asked_is_reset() -> None:
    async with side("east", media=MediaSettings(hello_timeout=0.3)) as east, peer_of(east) as peer:
        await let_in(peer, east)
        stream = peer.open(Ready())
        await peer.changes.until(lambda: stream in peer.resets)


@pytest.mark.parametrize(
    "words",
    [
        [TrackHello(id="t", kind="video")],
        [*subscribe(), picture()],
        [*subscribe(), Metadata(b"not json")],
        [*subscribe(), Feedback.init_stream("x")],
        [*subscribe(), Ready()],
        [b"\x00\x00\x00\x01\x77"],
    ],
)
async def test_what_is_wrong_on_a_track_stream_costs_that_stream_only(words: list[Any]) -> None:
    async with side("east") as east, peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await let_in(peer, east)
        good = peer.open(*subscribe("quic-good-1"))
        await east.changes.until(lambda: source.subscribers == 1)
        bad = peer.open(*words)
        await peer.changes.until(lambda: bad in peer.resets)
        assert east.bridge.figures().counters[name_of(peer.resets[bad])] == 1
        await east.changes.until(lambda: source.subscribers == 1)
        source.write(picture(1, key=True))
        await peer.changes.until(lambda: peer.frames(good) == [picture(1, key=True)])
        await east.poll(lambda stats: len(stats["tracks"]) == 1)


async def test_two_clusters_may_choose_the_same_connection_id() -> None:
    async with two_sides() as (east, west), peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await west.publish("session-1", east, ("track-1", "video", "stream-1"))
        taken = await Taken.of(west, "track-1")
        await east.changes.until(lambda: source.subscribers == 1)
        await let_in(peer, east)
        namesake = peer.open(*subscribe("quic-session-1-track-1"))
        await east.changes.until(lambda: source.subscribers == 2)
        assert [options["cluster"] for options in east.subscribed] == ["west", "rogue"]
        assert len({options["connectionId"] for options in east.subscribed}) == 2
        source.write(picture(1, key=True))
        await peer.changes.until(lambda: peer.frames(namesake) == [picture(1, key=True)])
        # What ends is the one that was named, not the other cluster's.
        peer.quic.send(namesake, b"", end=True)
        await east.changes.until(lambda: east.unsubscribed == ["rogue:quic-session-1-track-1"])
        source.write(picture(2))
        await taken.until(lambda: taken.frames == [picture(1, key=True), picture(2)])
        taken.close()


async def test_a_connection_id_that_its_cluster_uses_in_another_room_is_refused() -> None:
    async with side("east") as east, peer_of(east) as here, peer_of(east) as there:
        east.node.room("other")
        source = east.source("stream-1", "video")
        await let_in(here, east)
        here.open(*subscribe())
        await east.changes.until(lambda: source.subscribers == 1)
        there.open(Ready(), ClusterHello(room="other", token="room-token", cluster="rogue"))
        await east.poll(lambda stats: len(stats["links"]) == 2)
        again = there.open(*subscribe())
        await there.changes.until(lambda: again in there.resets)
        assert (source.subscribers, len(east.subscribed)) == (1, 1)


async def test_the_same_cluster_may_pull_anew_and_the_former_is_undone_first() -> None:
    async with side("east") as east, peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await let_in(peer, east)
        first = peer.open(*subscribe())
        await east.changes.until(lambda: source.subscribers == 1)
        second = peer.open(*subscribe())
        await peer.changes.until(lambda: first in peer.ended)
        await east.changes.until(lambda: len(east.subscribed) == 2 and source.subscribers == 1)
        assert east.unsubscribed == ["rogue:quic-1-1"]
        source.write(picture(1, key=True))
        await peer.changes.until(lambda: peer.frames(second))


async def test_a_newer_connection_of_the_same_name_takes_over_only_from_one_that_does_not_answer() -> None:
    async with side("east") as east, peer_of(east) as old, peer_of(east) as new, peer_of(east) as third:
        await let_in(old, east)
        new.open(Ready(), HELLO)
        await new.changes.until(lambda: new.lost)
        assert f"0x{CloseCode.IDENTITY:x}" in new.lost[0]
        assert old.lost == []
        assert east.bridge.figures().counters["identity"] == 1
        old.quic._quic.receive_datagram = lambda *_, **__: None  # type: ignore[method-assign] # deaf
        third.open(Ready(), HELLO)
        await east.poll(lambda _: east.bridge.figures().counters.get("superseded") == 1)
        assert third.lost == []


async def test_the_end_of_a_stream_unsubscribes_whichever_way_it_comes() -> None:
    async with side("east") as east, peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await let_in(peer, east)
        by_end, by_reset = peer.open(*subscribe("by-end")), peer.open(*subscribe("by-reset"))
        by_loss = peer.open(*subscribe("by-loss"))
        await east.changes.until(lambda: source.subscribers == 3)
        peer.quic.send(by_end, b"", end=True)
        await east.changes.until(lambda: east.unsubscribed == ["rogue:by-end"])
        peer.quic.reset_stream(by_reset, 0)
        await east.changes.until(lambda: east.unsubscribed == ["rogue:by-end", "rogue:by-reset"])
        assert by_loss not in peer.ended
        peer.quic.close()
        await east.changes.until(
            lambda: east.unsubscribed == ["rogue:by-end", "rogue:by-reset", "rogue:by-loss"]
        )
        await east.changes.until(lambda: source.subscribers == 0)


async def test_what_a_peer_says_after_we_have_ended_a_track_disturbs_nothing() -> None:
    async with side("east") as east, peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await let_in(peer, east)
        asking, ending = peer.open(*subscribe("asking")), peer.open(*subscribe("ending"))
        await east.changes.until(lambda: source.subscribers == 2)
        source.close()
        await peer.changes.until(lambda: peer.ended == {asking, ending})
        peer.say(asking, Feedback.request_key_frame())
        peer.quic.send(asking, b"", end=True)
        peer.quic.send(ending, b"", end=True)
        east.source("stream-1", "audio")
        still = peer.open(*subscribe("still", "audio"))
        await east.changes.until(lambda: len(east.subscribed) == 3)
        assert still not in peer.resets
        assert peer.lost == []
        assert east.bridge.figures().counters == {}


async def test_a_peer_that_does_not_acknowledge_costs_bounded_memory_then_gets_a_decodable_rest() -> None:
    limit = 50_000
    media = MediaSettings(redial_base=0.05, max_backlog_bytes=limit, max_delay=60.0)
    async with side("east", media=media) as east, peer_of(east) as peer:
        source = east.source("stream-1", "video")
        await let_in(peer, east)
        stream = peer.open(*subscribe())
        await east.changes.until(lambda: source.subscribers == 1)
        (connection,) = east.bridge._links._accepted.values()
        peer.quic._quic.receive_datagram = lambda *_, **__: None  # type: ignore[method-assign] # deaf
        asked = len(east.feedback)
        track: dict[str, Any] = {}
        for i in range(400):
            source.write(picture(i, key=i % 50 == 0))
            (track,) = (await east.stats())["tracks"]
            assert connection._quic.backlog(stream) <= limit + 3000
        assert track["dropped_frames"] > 300
        assert track["frames"] + track["dropped_frames"] == 400
        assert len(east.feedback) - asked < 10, "no key frames are asked for while none would pass"
        del peer.quic._quic.receive_datagram
        await peer.changes.until(lambda: len(peer.frames(stream)) == track["frames"])
        assert [f.timestamp // 3000 for f in peer.frames(stream)] == list(range(track["frames"]))
        await east.poll(lambda _: not connection._quic.backlog(stream))  # what it has taken is acknowledged
        source.write(picture(500))
        await east.changes.until(lambda: len(east.feedback) > asked)
        source.write(picture(501, key=True))
        source.write(picture(502))
        await peer.changes.until(lambda: len(peer.frames(stream)) == track["frames"] + 2)
        assert peer.frames(stream)[-2:] == [picture(501, key=True), picture(502)]


class Source(Peer):
    """A listening peer, for a bridge that pulls: it lets everybody in and answers `ready`."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[int, TrackHello] = {}

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        before = len(self.messages.get(stream_id, []))
        super().stream_data(stream_id, data, end)
        for message in self.messages.get(stream_id, [])[before:]:
            if not isinstance(message, Metadata):
                continue
            match decode_media(message):
                case Ready():
                    self.say(stream_id, Ready())
                case TrackHello() as track:
                    self.wanted[stream_id] = track
        self.changes.note()


@asynccontextmanager
async def pulled_from(own: Side) -> AsyncIterator[Source]:
    """Let a side's bridge dial a peer of ours."""
    source = Source()

    def accept(connection: Connection) -> Source:
        source.quic = connection
        return source

    certificate = Certificate.self_signed("rogue")
    listener = await listen("127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=OWT_WIRE)
    order = {
        "room": ROOM,
        "token": "room-token",
        "selfCluster": own.cluster,
        "targetCluster": "rogue",
        "evIP": "127.0.0.1",
        "evPort": 9,
        "mediaIP": "127.0.0.1",
        "mediaPort": listener.port,
        "mediaFingerprint": certificate.fingerprint,
    }
    await own.call("startCascading", order)
    try:
        yield source
    finally:
        listener.close()
        await source.quic.wait_closed()


async def publish_from_rogue(west: Side, kind: str = "video") -> None:
    track = {"id": "track-1", "type": kind, "from": "stream-1"}
    await west.call("publish", "s", "mediabridge", {"cluster": "rogue", "room": ROOM, "pubArgs": [track]})


@pytest.mark.parametrize(
    "garbage",
    [sound(), Feedback.request_key_frame(), Ready(), b"\x00\x00\x00\x02\x8f\x00", b"\x7f\xff\xff\xff\x8f"],
)
async def test_a_peer_that_sends_rubbish_on_a_track_is_asked_anew(garbage: object) -> None:
    async with side("west") as west, pulled_from(west) as source:
        await publish_from_rogue(west)
        taken = await Taken.of(west, "track-1")
        await source.changes.until(lambda: source.wanted)
        (first,) = source.wanted
        source.say(first, picture(1, key=True))
        await taken.until(lambda: taken.frames)
        source.say(first, garbage)
        await source.changes.until(lambda: len(source.wanted) == 2)
        assert first in source.resets
        second = max(source.wanted)
        source.say(second, picture(2))
        source.say(second, picture(3, key=True))
        await taken.until(lambda: len(taken.frames) == 2)
        assert taken.frames == [picture(1, key=True), picture(3, key=True)]
        taken.close()


async def test_key_frames_are_asked_for_no_faster_than_the_interval_allows() -> None:
    media = MediaSettings(redial_base=0.05, key_frame_interval=0.2)
    async with side("west", media=media) as west, pulled_from(west) as source:
        await publish_from_rogue(west)
        taken = await Taken.of(west, "track-1")
        await source.changes.until(lambda: source.wanted)
        (stream,) = source.wanted
        assert taken.receiver is not None
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while loop.time() - begin < 1.0:
            taken.receiver.request_key_frame()
            await west.stats()
        asked = [m for m in source.messages[stream] if isinstance(m, Feedback)]
        assert 2 <= len(asked) <= 7
        assert set(asked) == {Feedback.request_key_frame()}
        taken.close()


async def test_a_peer_that_ends_a_track_is_asked_again_until_unpublish() -> None:
    async with side("west", media=QUICK) as west, pulled_from(west) as source:
        await publish_from_rogue(west, "audio")
        for count in (1, 2, 3):
            await source.changes.until(lambda count=count: len(source.wanted) == count)  # type: ignore[misc] # now
            stream = max(source.wanted)
            source.quic.send(stream, b"", end=True)
            await source.changes.until(lambda stream=stream: stream in source.ended)  # type: ignore[misc] # now
        await west.call("unpublish", "s")
        assert (await west.stats())["tracks"] == []


def test_every_wire_error_has_a_code_and_a_name_of_its_own() -> None:
    errors = [
        WireError,
        FramingError,
        MessageError,
        SequenceError,
        UnknownMessageError,
        OversizedError,
        ReplayedError,
    ]
    codes = [error.code for error in errors]
    assert len(set(codes)) == len({error.name for error in errors}) == len(errors)
    assert not set(codes) & {int(code) for code in CloseCode}
