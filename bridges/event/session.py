"""The conversation on one stream of the event bridge, one conference, both roles. Sans-IO.

    dialer:    AWAIT_READY ──ready──▶ OPEN
    listener:  AWAIT_READY ──ready──▶ AWAIT_BRIDGE ──bridge──▶ CHECKING_TOKEN ──accepted──▶ OPEN
    OPEN       ──event──▶ OPEN
    anything else, and a refused token: ──▶ CLOSED

The transitions are the table `_NEXT`, and nothing else changes the state. A dialer says `ready` with its
cluster's id, and after the answer `bridge` with the room and its token; that a token is refused it learns by
the stream's reset only, as OWT's wire has no other answer. While a token is being checked, nothing that
follows it is looked at: it is kept, up to a limit, and parsed once the token is accepted. What the peer does
wrong is the one event `Violated`, the last ever.

Who checks tokens, and what events mean, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Self

from bridges.wire import framing, messages
from bridges.wire.errors import (
    MessageError,
    OversizedError,
    ReplayedError,
    SequenceError,
    UnknownMessageError,
    WireError,
)
from bridges.wire.framing import Deframer, Metadata
from bridges.wire.messages import BridgeHello, Event, Ready

__all__ = [
    "EventReceived",
    "EventSession",
    "PeerReady",
    "Role",
    "SessionEvent",
    "State",
    "TokenPresented",
    "Violated",
]

_PREFIX_BYTES: Final = 5
"""Length and type byte, which a message has before its payload."""


class Role(Enum):
    """Who opened the stream."""

    DIALER = auto()
    LISTENER = auto()


class State(Enum):
    """Where the conversation stands."""

    AWAIT_READY = auto()
    AWAIT_BRIDGE = auto()
    CHECKING_TOKEN = auto()
    OPEN = auto()
    CLOSED = auto()


class _Input(Enum):
    READY = auto()
    BRIDGE = auto()
    EVENT = auto()
    ACCEPTED = auto()
    REFUSED = auto()


_NEXT: Final[dict[tuple[Role, State, _Input], State]] = {
    (Role.DIALER, State.AWAIT_READY, _Input.READY): State.OPEN,
    (Role.DIALER, State.OPEN, _Input.EVENT): State.OPEN,
    (Role.LISTENER, State.AWAIT_READY, _Input.READY): State.AWAIT_BRIDGE,
    (Role.LISTENER, State.AWAIT_BRIDGE, _Input.BRIDGE): State.CHECKING_TOKEN,
    (Role.LISTENER, State.CHECKING_TOKEN, _Input.ACCEPTED): State.OPEN,
    (Role.LISTENER, State.CHECKING_TOKEN, _Input.REFUSED): State.CLOSED,
    (Role.LISTENER, State.OPEN, _Input.EVENT): State.OPEN,
}

_NOT_PARSING: Final = frozenset({State.CHECKING_TOKEN, State.CLOSED})
_GREETING: Final = frozenset({State.AWAIT_READY, State.AWAIT_BRIDGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReady:
    """The peer said `ready`; to a listener it names its cluster."""

    cluster: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPresented:
    """The dialer wants `room`: check the token, then call token_accepted or token_refused."""

    room: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReceived:
    """The peer's conference node tells ours something."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Violated:
    """The peer broke the protocol: reset the stream with `error.code`. Nothing follows."""

    error: WireError


SessionEvent = PeerReady | TokenPresented | EventReceived | Violated


class EventSession:
    """One stream's conversation. Made by `dialer` or `listener`.

    Feed `receive_data`, send what `data_to_send` returns after each call. The limits: `max_event_bytes` of
    one event's JSON, `max_hello_bytes` of a message before the stream is open, `max_unchecked_bytes` of what
    may follow a token that is being checked.
    """

    def __init__(
        self, role: Role, *, max_event_bytes: int, max_hello_bytes: int, max_unchecked_bytes: int
    ) -> None:
        self.role: Final = role
        self.state = State.AWAIT_READY
        self._max_hello_bytes = max_hello_bytes
        self._max_unchecked_bytes = max_unchecked_bytes
        self._hello: BridgeHello | None = None
        self._said: set[_Input] = set()
        """What the peer has said."""
        self._deframer = Deframer(
            max_metadata_bytes=max(max_event_bytes, max_hello_bytes), max_frame_bytes=0, max_feedback_bytes=0
        )
        self._outgoing = bytearray()

    @classmethod
    def dialer(
        cls,
        *,
        cluster: str,
        room: str,
        token: str,
        max_event_bytes: int = 1 << 20,
        max_hello_bytes: int = 4096,
    ) -> Self:
        """Return the dialer's end: `cluster` is its own, `room` and `token` are the listener's."""
        session = cls(
            Role.DIALER,
            max_event_bytes=max_event_bytes,
            max_hello_bytes=max_hello_bytes,
            max_unchecked_bytes=0,
        )
        session._hello = BridgeHello(room=room, token=token)
        session._write(Ready(target=cluster))
        return session

    @classmethod
    def listener(
        cls,
        *,
        max_event_bytes: int = 1 << 20,
        max_hello_bytes: int = 4096,
        max_unchecked_bytes: int = (1 << 20) + (64 << 10),
    ) -> Self:
        """Return the listener's end."""
        return cls(
            Role.LISTENER,
            max_event_bytes=max_event_bytes,
            max_hello_bytes=max_hello_bytes,
            max_unchecked_bytes=max_unchecked_bytes,
        )

    # --- in -------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[SessionEvent]:
        """Take bytes of the stream and return what they mean, in order."""
        if self.state is State.CLOSED:
            return []
        self._deframer.feed(data)
        return self._parse()

    def token_accepted(self) -> list[SessionEvent]:
        """Open the stream; returns what the peer sent meanwhile. Only after TokenPresented."""
        self._decide(_Input.ACCEPTED)
        return self._parse()

    def token_refused(self) -> None:
        """Close the session: the stream is to be reset. Only after TokenPresented."""
        self._decide(_Input.REFUSED)
        self.close()

    def close(self) -> None:
        """Take and give nothing any more, and keep nothing."""
        self.state = State.CLOSED
        self._deframer.discard()
        self._outgoing.clear()

    # --- out ------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """Return the bytes to write to the stream, once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def send_event(self, event: Event) -> None:
        """Tell the peer something; only while the session is OPEN."""
        if self.state is not State.OPEN:
            raise RuntimeError(f"an event cannot be sent while the session is {self.state.name}")
        self._write(event)

    # --- inside ---------------------------------------------------------------------------------

    def _parse(self) -> list[SessionEvent]:
        """Return what the whole messages mean; stops where a token must be checked first."""
        found: list[SessionEvent] = []
        try:
            while self.state not in _NOT_PARSING and (message := self._deframer.next_message()) is not None:
                found.append(self._take(message))
            self._check_waiting()
        except WireError as error:
            # What came before the violation still counts, so that it does not matter how bytes were cut.
            self.close()
            found.append(Violated(error=error))
        return found

    def _take(self, message: framing.Message) -> SessionEvent:
        if not isinstance(message, Metadata):
            raise UnknownMessageError("an event stream carries metadata only")
        if self.state is not State.OPEN and len(message.payload) > self._max_hello_bytes:
            raise OversizedError(f"a message of {len(message.payload)} bytes before the stream is open")
        match messages.decode_event_stream(message):
            case Ready() as ready:
                return self._take_ready(ready)
            case BridgeHello(room=room, token=token):
                self._advance(_Input.BRIDGE)
                return TokenPresented(room=room, token=token)
            case Event() as event:
                self._advance(_Input.EVENT)
                return EventReceived(event=event)

    def _take_ready(self, ready: Ready) -> PeerReady:
        self._advance(_Input.READY)
        if self.role is Role.LISTENER and ready.target is None:
            raise MessageError("ready: the dialer must name its cluster in `target`")
        self._write(Ready() if self._hello is None else self._hello)
        return PeerReady(cluster=ready.target)

    def _check_waiting(self) -> None:
        """Bound what is kept of a peer that has not shown a valid token."""
        waiting = self._deframer.buffered
        if self.state is State.CHECKING_TOKEN and waiting > self._max_unchecked_bytes:
            raise OversizedError(f"{waiting} bytes before the token was accepted")
        if self.state in _GREETING and waiting > self._max_hello_bytes + _PREFIX_BYTES:
            raise OversizedError(
                f"a message of more than {self._max_hello_bytes} bytes before the stream is open"
            )

    def _advance(self, input_: _Input) -> None:
        state = _NEXT.get((self.role, self.state, input_))
        if state is None:
            if input_ in self._said:
                raise ReplayedError(f"`{input_.name.lower()}` once more")
            raise SequenceError(f"`{input_.name.lower()}` is not allowed in {self.state.name}")
        self._said.add(input_)
        self.state = state

    def _decide(self, input_: _Input) -> None:
        if self.state is not State.CHECKING_TOKEN:
            raise RuntimeError(f"there is no token to decide on in {self.state.name}")
        self._advance(input_)

    def _write(self, message: Ready | BridgeHello | Event) -> None:
        self._outgoing += framing.encode(messages.encode(message))
