"""What is fuzzed: functions of bytes, each with the invariant that it upholds as its docstring.

A target returns if the invariant holds and raises if it does not; a documented refusal is no failure. The
first byte says how the others are to be read, so that a fuzzer gets deep without guessing lengths: its lowest
bit, whether they are the stream itself or messages, one a line, that are framed here; the other bits, in
chunks of which size they arrive (0: all at once).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import structs

from bridges.event.session import (
    EventReceived,
    EventSession,
    PeerReady,
    Role,
    State,
    TokenPresented,
    Violated,
)
from bridges.media import session as media
from bridges.wire import framing, messages, rpc
from bridges.wire.errors import MessageError, WireError
from bridges.wire.frame import Feedback, MediaFrame
from bridges.wire.framing import Deframer, Metadata
from bridges.wire.messages import ClusterHello, SubscribeOptions, TrackHello
from bridges.wire.objects import MediaOptions, TrackRequest
from tests.fuzz.janus_targets import janus_messages
from tests.fuzz.media_targets import own_media, picture_layers
from tests.fuzz.own_targets import own_dialer, own_framing, own_listener
from tests.fuzz.rtp_targets import rtp_control, rtp_description, rtp_tracks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RIGHT_TOKEN", "TARGETS", "Target", "chunks", "stream_of"]

RIGHT_TOKEN: Final = "right"
_LIMITS: Final = {"max_metadata_bytes": 4096, "max_frame_bytes": 8192}
_PREFIX: Final = 5
_MOST: Final = 4096
"""Bytes of metadata that a session of these tests takes."""
_UNCHECKED: Final = 1 << 17
"""Bytes that may wait for a token's verdict: more than any input has, as verdicts come at once here."""


class Target(Protocol):
    """One thing that is fuzzed."""

    __name__: str
    __doc__: str | None

    def __call__(self, data: bytes) -> None:
        """Raise if the invariant does not hold for these bytes."""


def stream_of(data: bytes) -> bytes:
    """Return the bytes that a peer sends."""
    if not data[:1] or not data[0] & 1:
        return data[1:]
    return b"".join(framing.encode(Metadata(line)) for line in data[1:].split(b"\n"))


def chunks(data: bytes) -> list[bytes]:
    """Return the same bytes as they arrive."""
    stream, size = stream_of(data), data[0] >> 1 if data else 0
    return [stream[i : i + size] for i in range(0, len(stream), size)] if size else [stream]


# --- the codec ------------------------------------------------------------------------------------


def owt_framing(data: bytes) -> None:
    """Any bytes give the same messages and the same one WireError, or none, however they are cut.

    What was a message is encoded to the bytes that it was; never is more kept than the largest message.
    """
    whole, cut = _deframe([stream_of(data)]), _deframe(chunks(data))
    assert whole == cut
    found = b"".join(message for message in whole if isinstance(message, bytes))
    assert stream_of(data).startswith(found)


def _deframe(parts: list[bytes]) -> list[bytes | type[WireError]]:
    deframer = Deframer(**_LIMITS)
    found: list[bytes | type[WireError]] = []
    for part in parts:
        deframer.feed(part)
        try:
            while (message := deframer.next_message()) is not None:
                found.append(framing.encode(message))
        except WireError as error:
            return [*found, type(error)]
        assert deframer.buffered < _PREFIX + max(_LIMITS.values())
    return found


def owt_messages(data: bytes) -> None:
    """Any metadata is understood, and is the same when it was encoded again, or is a MessageError."""
    for decode in (
        messages.decode_event_stream,
        messages.decode_event_hello,
        messages.decode_event_message,
        messages.decode_media,
    ):
        try:
            message = decode(Metadata(data))
        except MessageError:
            continue
        again = messages.encode(message)
        assert messages.encode(decode(again)) == again


def owt_structs(data: bytes) -> None:
    """Any bytes are a frame or a feedback message that keeps every bit, or a WireError."""
    for struct in (MediaFrame, Feedback):
        try:
            found = struct(data)
        except WireError:
            continue
        assert bytes(found.raw) == data
        try:
            repr(found)
            if isinstance(found, Feedback):
                assert isinstance(found.stream_id, str)
        except WireError:
            continue


def owt_rpc(data: bytes) -> None:
    """Any bytes are a request or a reply, the same when it was encoded again, or a MessageError."""
    try:
        message = rpc.decode(data)
    except MessageError:
        return
    again = rpc.encode(message)
    assert rpc.encode(rpc.decode(again)) == again


# --- the sessions ---------------------------------------------------------------------------------


def event_listener(data: bytes) -> None:
    """No bytes open a listener's stream without the right token, nor do anything else than the table says.

    Events are reported only after the token was accepted; a fault is reported once, and last; how bytes are
    cut decides nothing; what is kept of a peer without a token is bounded.
    """
    _same_for_both(data, lambda: EventSession.listener(max_event_bytes=_MOST, max_unchecked_bytes=_UNCHECKED))


def event_dialer(data: bytes) -> None:
    """No bytes make a dialer do anything else than the table says: greeting first, then events, one fault."""
    _same_for_both(data, lambda: EventSession.dialer(cluster="c", room="r", token="t", max_event_bytes=_MOST))


def _same_for_both(data: bytes, make: Callable[[], EventSession]) -> None:
    assert _talk(make(), [stream_of(data)]) == _talk(make(), chunks(data))


def _talk(session: EventSession, parts: list[bytes]) -> list[str]:
    told: list[str] = []
    accepted = session.role is Role.DIALER
    for part in parts:
        pending = list(session.receive_data(part))
        while pending:
            event = pending.pop(0)
            assert not (told and told[-1].startswith("violated")), "a fault is the last event"
            match event:
                case PeerReady():
                    told.append(f"ready {event.cluster!r}")
                case TokenPresented():
                    assert session.role is Role.LISTENER
                    told.append(f"token {event.room!r} {event.token!r}")
                    accepted = event.token == RIGHT_TOKEN
                    if accepted:
                        pending += session.token_accepted()
                    else:
                        session.token_refused()
                case EventReceived():
                    assert accepted, "an event before the token was accepted"
                    told.append(f"event {event.event!r}")
                case Violated():
                    told.append(f"violated {type(event.error).__name__}")
                    assert session.state is State.CLOSED
        if session.state is State.OPEN:
            assert accepted
        session.data_to_send()
        if session.state is not State.CHECKING_TOKEN:
            assert session._deframer.buffered <= _PREFIX + _MOST
    return told


_TRACK: Final = TrackHello(id="t", kind="video")
_OPTIONS: Final = SubscribeOptions(
    room="r",
    cluster="c",
    connection_id="q",
    media=MediaOptions(tracks=[TrackRequest(id="t", type="video", from_="s")]),
)
_MEDIA: Final[dict[str, Callable[[], media._Session]]] = {
    "dialer": lambda: media.DialerSession(ClusterHello(room="r", token="t", cluster="c")),
    "listener": media.ListenerSession,
    "puller": lambda: media.PullerSession(_TRACK, _OPTIONS, max_frame_bytes=8192),
    "puller on our own wire": lambda: media.PullerSession(
        _TRACK, structs.replace(_OPTIONS, alias=1), max_frame_bytes=8192
    ),
    "pusher": media.PusherSession,
}


def media_sessions(data: bytes) -> None:
    """Any bytes give each role of a media connection the same events, however cut, and at most one WireError.

    A session that has failed fails in the same way for ever; a listener is open only when it was told so.
    """
    for role, make in _MEDIA.items():
        assert _signal(make(), [stream_of(data)]) == _signal(make(), chunks(data)), role


def _signal(session: media._Session, parts: list[bytes]) -> list[str]:
    told: list[str] = []
    failed: WireError | None = None
    for part in parts:
        session.feed(part)
        try:
            while (event := session.next_event()) is not None:
                told.append(_shown(event))
                if isinstance(event, ClusterHello) and event.token == RIGHT_TOKEN:
                    assert isinstance(session, media.ListenerSession)
                    session.accept()
        except WireError as error:
            told.append(type(error).__name__)
            failed = error
        if failed is not None:
            assert _error_again(session) is failed
            return told
        session.data_to_send()
        if isinstance(session, media.ListenerSession) and session.state is media.State.OPEN:
            assert any(RIGHT_TOKEN in line for line in told)
    return told


def _error_again(session: media._Session) -> WireError | None:
    try:
        session.next_event()
    except WireError as error:
        return error
    return None


def _shown(event: media.Event) -> str:
    match event:
        case MediaFrame() | Feedback():
            return event.raw.hex()
        case ClusterHello():
            return f"{event!r} {event.token!r}"
    return repr(event)


_ALL: Final[tuple[Target, ...]] = (
    owt_framing,
    owt_messages,
    owt_structs,
    owt_rpc,
    event_listener,
    event_dialer,
    media_sessions,
    own_framing,
    own_listener,
    own_dialer,
    own_media,
    picture_layers,
    rtp_control,
    rtp_description,
    rtp_tracks,
    janus_messages,
)
TARGETS: Final[dict[str, Target]] = {target.__name__: target for target in _ALL}
