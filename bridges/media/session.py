"""The conversations on a media connection's streams, sans-IO: bytes in, events out, bytes to send.

Rule 1: everything that decides whether a message is allowed stands in the tables below, one per role; what is
not in the table is refused with SequenceError. Rule 2: this file knows no socket, clock, node or token; it
says that a token waits to be checked, and is told the verdict.

A connection's first stream carries its signalling:

    dialer     AWAIT_READY ──ready/cluster──> OPEN
    listener   AWAIT_READY ──ready/ready──> AWAIT_CLUSTER ──cluster──> CHECKING ──accept()──> OPEN

Every other stream carries one track, opened by whoever wants it (the puller):

    puller     AWAIT_READY ──ready/track, subscribe──> FLOWING ──frame──> FLOWING
    pusher     AWAIT_READY ──ready/ready──> AWAIT_TRACK ──track──> AWAIT_SUBSCRIBE ──subscribe──> FLOWING
               FLOWING ──feedback──> FLOWING

On our own wire no frames come on the stream: the puller says by which alias it knows their datagrams.

Who opens a stream sends `ready` first. An arrow's label is the message that came, and after the slash what is
answered.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from bridges.wire.errors import ReplayedError, SequenceError, WireError
from bridges.wire.frame import Feedback, FeedbackCommand, MediaFrame
from bridges.wire.framing import Deframer, Metadata
from bridges.wire.framing import encode as encode_message
from bridges.wire.messages import (
    ClusterHello,
    MediaSignal,
    Ready,
    Subscribe,
    SubscribeOptions,
    TrackHello,
    decode_media,
    encode,
)
from bridges.wire.objects import TrackKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DialerSession",
    "Event",
    "ListenerSession",
    "PullerSession",
    "PusherSession",
    "State",
    "TrackWanted",
]

_MAX_METADATA_BYTES: Final = 64 << 10

Input = MediaSignal | MediaFrame | Feedback


class State(Enum):
    """Where a conversation stands."""

    AWAIT_READY = "await-ready"
    AWAIT_CLUSTER = "await-cluster"
    CHECKING = "checking"
    OPEN = "open"
    AWAIT_TRACK = "await-track"
    AWAIT_SUBSCRIBE = "await-subscribe"
    FLOWING = "flowing"


class TrackWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A peer wants a track: its own `id` and `kind` for it, and where it comes from."""

    id: str
    kind: TrackKind
    options: SubscribeOptions


Event = Ready | ClusterHello | TrackWanted | MediaFrame | Feedback
"""What `next_event` returns: `Ready` tells that the peer has answered, the others that they have come."""

_Table = dict[tuple[State, type[Input]], State]

_DIALER: Final[_Table] = {
    (State.AWAIT_READY, Ready): State.OPEN,
}
_LISTENER: Final[_Table] = {
    (State.AWAIT_READY, Ready): State.AWAIT_CLUSTER,
    (State.AWAIT_CLUSTER, ClusterHello): State.CHECKING,
}
_PULLER: Final[_Table] = {
    (State.AWAIT_READY, Ready): State.FLOWING,
    (State.FLOWING, MediaFrame): State.FLOWING,
}
_OWN_PULLER: Final[_Table] = {
    (State.AWAIT_READY, Ready): State.FLOWING,
}
_PUSHER: Final[_Table] = {
    (State.AWAIT_READY, Ready): State.AWAIT_TRACK,
    (State.AWAIT_TRACK, TrackHello): State.AWAIT_SUBSCRIBE,
    (State.AWAIT_SUBSCRIBE, Subscribe): State.FLOWING,
    (State.FLOWING, Feedback): State.FLOWING,
}


class _Session:
    """One stream's conversation.

    `feed` takes bytes; `next_event` returns the next event, None when more bytes are needed, and raises
    WireError for what is not allowed: the conversation is dead then and raises the same error again.
    `data_to_send` returns and forgets what is to be sent.
    """

    _table: Mapping[tuple[State, type[Input]], State]

    def __init__(self, *, max_frame_bytes: int = 0) -> None:
        self.state = State.AWAIT_READY
        self._deframer = Deframer(max_metadata_bytes=_MAX_METADATA_BYTES, max_frame_bytes=max_frame_bytes)
        self._error: WireError | None = None
        self._said: set[type[Input]] = set()
        """What the peer has said."""
        self._out = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._error is None:
            self._deframer.feed(data)

    def next_event(self) -> Event | None:
        """Return the next event, or None when none has wholly arrived. Raises WireError."""
        if self._error is not None:
            raise self._error
        try:
            while (message := self._deframer.next_message()) is not None:
                event = self._step(decode_media(message) if isinstance(message, Metadata) else message)
                if event is not None:
                    return event
        except WireError as error:
            self._error = error
            raise
        return None

    def data_to_send(self) -> bytes:
        """Return what is to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def _step(self, message: Input) -> Event | None:
        kind = type(message)
        following = self._table.get((self.state, kind))
        if following is None:
            if kind in self._said:
                raise ReplayedError(f"{kind.__name__} once more")
            raise SequenceError(f"{kind.__name__} is not allowed in state {self.state.value}")
        self._said.add(kind)
        event = self._taken(message)
        self.state = following
        return event

    def _taken(self, message: Input) -> Event | None:
        """Answer an allowed message; return what it means to the user."""
        raise NotImplementedError

    def _send(self, *messages: Ready | ClusterHello | TrackHello | Subscribe) -> None:
        for message in messages:
            self._out += encode_message(encode(message))


class DialerSession(_Session):
    """The signalling stream at the side that dialled. OPEN says that the hello has been sent.

    A listener that does not accept the token closes the connection; one that does says nothing.
    """

    _table = _DIALER

    def __init__(self, hello: ClusterHello, *, clock: bool = False) -> None:
        super().__init__()
        self.peer_clock = False
        """Whether the peer wants to be told of our clock; `clock`: whether we want to be told of its."""
        self._hello = hello
        self._send(Ready(clock=clock))

    def _taken(self, message: Input) -> Event | None:
        assert isinstance(message, Ready)
        self.peer_clock = message.clock
        self._send(self._hello)
        return message


class ListenerSession(_Session):
    """The signalling stream at the side that was dialled: yields the ClusterHello, to be checked."""

    _table = _LISTENER

    def __init__(self, *, clock: bool = False) -> None:
        super().__init__()
        self.peer_clock = False
        """As the dialer's."""
        self._clock = clock

    def accept(self) -> None:
        """Take note that the token is right."""
        assert self.state is State.CHECKING
        self.state = State.OPEN

    def _taken(self, message: Input) -> Event | None:
        if isinstance(message, ClusterHello):
            return message
        assert isinstance(message, Ready)
        self.peer_clock = message.clock
        self._send(Ready(clock=self._clock))
        return None


class PullerSession(_Session):
    """A track's stream at the side that wants it: yields Ready, then frames, unless they are datagrams."""

    def __init__(self, track: TrackHello, options: SubscribeOptions, *, max_frame_bytes: int) -> None:
        own = options.alias is not None
        super().__init__(max_frame_bytes=0 if own else max_frame_bytes)
        self._table = _OWN_PULLER if own else _PULLER
        self._track = track
        self._options = options
        self._send(Ready())

    def _taken(self, message: Input) -> Event | None:
        if isinstance(message, MediaFrame):
            if message.is_video != (self._track.kind == "video"):
                raise SequenceError(f"a frame of format {message.format} on a track of {self._track.kind}")
            return message
        assert isinstance(message, Ready)
        self._send(self._track, Subscribe(options=self._options))
        return message


class PusherSession(_Session):
    """A track's stream at the side that has it: yields TrackWanted, then feedback."""

    _table = _PUSHER

    def __init__(self) -> None:
        super().__init__()
        self._track: TrackHello | None = None

    def _taken(self, message: Input) -> Event | None:
        match message:
            case Ready():
                self._send(Ready())
                return None
            case TrackHello():
                self._track = message
                return None
            case Subscribe():
                return self._wanted(message.options)
            case Feedback():
                if message.command is FeedbackCommand.INIT_STREAM_ID:
                    raise SequenceError("a stream between bridges is not named by feedback")
                return message
        raise AssertionError(message)

    def _wanted(self, options: SubscribeOptions) -> TrackWanted:
        assert self._track is not None
        if [track.type for track in options.media.tracks] != [self._track.kind]:
            raise SequenceError("a track stream is for exactly one track of its kind")
        return TrackWanted(id=self._track.id, kind=self._track.kind, options=options)
