"""The conversations of a media connection, without any transport."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from bridges.media import session as subject
from bridges.media.session import (
    DialerSession,
    ListenerSession,
    PullerSession,
    PusherSession,
    State,
    TrackWanted,
)
from bridges.wire.errors import MessageError, SequenceError, UnknownMessageError, WireError
from bridges.wire.frame import AudioInfo, Feedback, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.framing import Message, Metadata
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

if TYPE_CHECKING:
    from collections.abc import Callable

Session = DialerSession | ListenerSession | PullerSession | PusherSession

HELLO = ClusterHello(room="room-1", token="token-1", cluster="west")
TRACK = TrackHello(id="track-1", kind="video")
OPTIONS = SubscribeOptions(
    room="room-1",
    cluster="west",
    connection_id="quic-s-track-1",
    media=MediaOptions(tracks=[TrackRequest(id="track-1", type="video", from_="stream-1")]),
)
PICTURE = MediaFrame.build(
    FrameFormat.VP8, timestamp=1, info=VideoInfo(width=2, height=2, key_frame=True), payload=b"picture"
)
SOUND = MediaFrame.build(
    FrameFormat.OPUS, timestamp=1, info=AudioInfo(samples=960, sample_rate=48_000, channels=2), payload=b"s"
)
KEY_FRAME = Feedback.request_key_frame()

ROLES: dict[str, Callable[[], Session]] = {
    "dialer": lambda: DialerSession(HELLO),
    "listener": ListenerSession,
    "puller": lambda: PullerSession(TRACK, OPTIONS, max_frame_bytes=1 << 16),
    "puller on our own wire": lambda: PullerSession(
        TRACK, structs.replace(OPTIONS, alias=7), max_frame_bytes=1 << 16
    ),
    "pusher": PusherSession,
}


def wire(*messages: Ready | ClusterHello | TrackHello | Subscribe | MediaFrame | Feedback) -> bytes:
    parts: list[Message] = [m if isinstance(m, MediaFrame | Feedback) else encode(m) for m in messages]
    return b"".join(encode_message(part) for part in parts)


def drain(session: Session) -> list[object]:
    events: list[object] = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def talk(one: Session, other: Session) -> tuple[list[object], list[object]]:
    """Let two sessions speak until both are silent; return the events of each."""
    events: tuple[list[object], list[object]] = ([], [])
    for _ in range(10):
        for index, (source, sink) in enumerate(((other, one), (one, other))):
            sink.feed(source.data_to_send())
            events[index].extend(drain(sink))
    return events


def test_a_connection_opens_and_its_token_waits_to_be_checked() -> None:
    dialer, listener = DialerSession(HELLO), ListenerSession()
    assert listener.data_to_send() == b"", "who opens the stream speaks first"
    heard, asked = talk(dialer, listener)
    assert heard == [Ready()]
    assert asked == [HELLO]
    assert (dialer.state, listener.state) == (State.OPEN, State.CHECKING)
    listener.accept()
    assert listener.state.name == "OPEN"


@pytest.mark.parametrize(("near", "far"), [(True, True), (True, False), (False, True), (False, False)])
def test_each_end_hears_whether_the_other_wants_to_be_told_its_clock(*, near: bool, far: bool) -> None:
    dialer, listener = DialerSession(HELLO, clock=near), ListenerSession(clock=far)
    talk(dialer, listener)
    assert (dialer.peer_clock, listener.peer_clock) == (far, near)


def test_a_track_is_asked_for_then_frames_and_feedback_flow() -> None:
    puller, pusher = PullerSession(TRACK, OPTIONS, max_frame_bytes=1 << 16), PusherSession()
    heard, asked = talk(puller, pusher)
    assert heard == [Ready()]
    assert asked == [TrackWanted(id="track-1", kind="video", options=OPTIONS)]
    assert (puller.state, pusher.state) == (State.FLOWING, State.FLOWING)
    puller.feed(wire(PICTURE, PICTURE))
    assert drain(puller) == [PICTURE, PICTURE]
    pusher.feed(wire(KEY_FRAME, Feedback.set_bitrate(5)))
    assert drain(pusher) == [KEY_FRAME, Feedback.set_bitrate(5)]


def test_the_bytes_of_the_messages_in_order() -> None:
    puller = PullerSession(TRACK, OPTIONS, max_frame_bytes=1 << 16)
    assert puller.data_to_send() == wire(Ready())
    puller.feed(wire(Ready()))
    drain(puller)
    assert puller.data_to_send() == wire(TRACK, Subscribe(options=OPTIONS))


@pytest.mark.parametrize(
    ("role", "messages"),
    [
        ("dialer", [HELLO]),
        ("dialer", [Ready(), Ready()]),
        ("dialer", [Ready(), KEY_FRAME]),
        ("listener", [HELLO]),
        ("listener", [Ready(), Ready()]),
        ("listener", [Ready(), TRACK]),
        ("listener", [Ready(), HELLO, HELLO]),
        ("puller", [TRACK]),
        ("puller", [PICTURE]),
        ("puller", [Ready(), Ready()]),
        ("puller", [Ready(), KEY_FRAME]),
        ("puller", [Ready(), SOUND]),
        ("puller on our own wire", [Ready(), Ready()]),
        ("puller on our own wire", [Ready(), KEY_FRAME]),
        ("pusher", [TRACK]),
        ("pusher", [KEY_FRAME]),
        ("pusher", [Ready(), Subscribe(options=OPTIONS)]),
        ("pusher", [Ready(), KEY_FRAME]),
        ("pusher", [Ready(), TRACK, TRACK]),
        ("pusher", [Ready(), TRACK, KEY_FRAME]),
        ("pusher", [Ready(), TRACK, Subscribe(options=OPTIONS), Subscribe(options=OPTIONS)]),
        ("pusher", [Ready(), TRACK, Subscribe(options=OPTIONS), Feedback.init_stream("x")]),
        ("pusher", [Ready(), TrackHello(id="t", kind="audio"), Subscribe(options=OPTIONS)]),
    ],
)
def test_what_is_not_in_the_table_is_refused_and_the_session_is_dead(
    role: str, messages: list[Ready | TrackHello | Subscribe | MediaFrame | Feedback]
) -> None:
    session = ROLES[role]()
    session.feed(wire(*messages[:-1]))
    drain(session)
    session.data_to_send()
    session.feed(wire(messages[-1]))
    with pytest.raises(SequenceError) as first:
        drain(session)
    session.feed(wire(Ready()))
    with pytest.raises(SequenceError) as second:
        drain(session)
    assert first.value is second.value
    assert session.data_to_send() == b""


@pytest.mark.parametrize("role", ["dialer", "listener", "pusher", "puller on our own wire"])
def test_frames_get_no_room_where_none_may_come(role: str) -> None:
    session = ROLES[role]()
    session.feed(b"\x00\x01\x00\x00\x8f")  # 64 KiB announced
    with pytest.raises(UnknownMessageError):
        session.next_event()


def test_a_track_stream_is_for_exactly_one_track() -> None:
    tracks = [TrackRequest(id="t", type="video", from_="s")] * 2
    options = SubscribeOptions(room="r", cluster="c", connection_id="x", media=MediaOptions(tracks=tracks))
    session = PusherSession()
    session.feed(wire(Ready(), TRACK, Subscribe(options=options)))
    with pytest.raises(SequenceError):
        drain(session)


def test_metadata_that_is_no_message_is_refused() -> None:
    session = PusherSession()
    session.feed(encode_message(Metadata(b'{"type":"bridge"}')))
    with pytest.raises(MessageError):
        drain(session)


def test_a_token_is_in_no_error() -> None:
    session = ListenerSession()
    session.feed(wire(Ready(), HELLO, HELLO))
    with pytest.raises(SequenceError) as error:
        drain(session)
    assert "token-1" not in str(error.value)


def _outcome(role: str, chunks: list[bytes]) -> tuple[list[object], str, State, bytes]:
    """Feed chunks; return events, error, state and answers."""
    session = ROLES[role]()
    events: list[object] = []
    error = ""
    for chunk in chunks:
        session.feed(chunk)
        try:
            events += drain_into(session, events)
        except WireError as failure:
            error = f"{type(failure).__name__} {failure}"
    return events, error, session.state, session.data_to_send()


def drain_into(session: Session, events: list[object]) -> list[object]:
    """Append events as they come, so that those before an error are kept."""
    while (event := session.next_event()) is not None:
        events.append(event)
    return []


valid = st.sampled_from(
    [
        wire(Ready()),
        wire(HELLO),
        wire(TRACK),
        wire(Subscribe(options=OPTIONS)),
        wire(PICTURE),
        wire(SOUND),
        wire(KEY_FRAME),
    ]
)
streams = st.lists(valid | st.binary(max_size=12), max_size=8).map(b"".join)


@given(st.sampled_from(sorted(ROLES)), streams, st.data())
def test_any_bytes_parse_or_raise_the_one_error_however_they_are_cut(
    role: str, stream: bytes, data: st.DataObject
) -> None:
    """Whole, byte by byte and split somewhere give the same events, the same error, the same answers."""
    cut = data.draw(st.integers(0, len(stream)))
    whole = _outcome(role, [stream])
    assert _outcome(role, [stream[i : i + 1] for i in range(len(stream))]) == whole
    assert _outcome(role, [stream[:cut], stream[cut:]]) == whole


@given(st.sampled_from(sorted(ROLES)), st.lists(valid, max_size=8))
def test_frames_and_feedback_come_in_flow_and_in_their_direction_only(role: str, parts: list[bytes]) -> None:
    session = ROLES[role]()
    for part in parts:
        before = session.state
        session.feed(part)
        try:
            events = drain(session)
        except WireError:
            return
        for event in events:
            if isinstance(event, MediaFrame):
                assert (role, before) == ("puller", State.FLOWING)
            if isinstance(event, Feedback):
                assert (role, before) == ("pusher", State.FLOWING)


@given(st.binary(max_size=200))
def test_metadata_of_any_content_parses_or_is_refused(payload: bytes) -> None:
    try:
        decode_media(Metadata(payload))
    except MessageError:
        return


def test_the_sessions_own_no_socket_no_clock_and_no_task() -> None:
    tree = ast.parse(Path(subject.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"asyncio", "socket", "time", "aioquic", "structlog"}
