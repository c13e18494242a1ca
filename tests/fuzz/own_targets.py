"""Our own wire, fuzzed: its codec and both ends of a conversation. See targets.py for what a target is.

Inputs of the conversations are records: a byte with the lane in its lower bits, whose highest bit asks for
the framing to be added here; two bytes of length; the bytes that arrive. The first byte of an input says in
chunks of which size they do (0: all at once).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.event.own.conversation import Conversation, Role
from bridges.event.own.outputs import ChannelClosed, Greeted, OpenRequested, Output, Told, Violated
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings
from bridges.wire.own.codec import LENGTH_BYTES, OwnDeframer, Unknown, encode
from bridges.wire.own.errors import OwnCode, OwnWireError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOMS", "TOKEN", "own_dialer", "own_framing", "own_listener", "records"]

TOKEN: Final = "right"
ROOMS: Final = ("r", "s")
_FRAME: Final = 0x80
_SETTINGS: Final = OwnWireSettings(
    max_message_bytes=65_536, max_channels=4, max_waiting=3, max_origins=4, credit_bytes=4096, max_strikes=9
)
_EVERYTHING: Final = 1 << 24


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return lanes, and what arrives on them."""
    at = 1
    while at + 3 <= len(data):
        head, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        body = data[at + 3 : at + 3 + length]
        at += 3 + length
        yield head & 0x7, len(body).to_bytes(LENGTH_BYTES, "big") + body if head & _FRAME else body


def own_framing(data: bytes) -> None:
    """Any bytes give the same messages and the same OwnWireError, or none, however they are cut.

    Never is more kept than the largest message; a message that was read is the same when encoded again.
    """
    size, stream = data[0] if data else 0, data[1:]
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)] if size else [stream]
    assert _deframe([stream]) == _deframe(pieces)


def _deframe(pieces: list[bytes]) -> list[object]:
    deframer = OwnDeframer(4096)
    found: list[object] = []
    for piece in pieces:
        deframer.feed(piece)
        try:
            while (framed := deframer.next_message()) is not None:
                if isinstance(framed.message, OwnWireError | Unknown):
                    found.append((str(framed.message), framed.channel))
                else:
                    found.append(encode(framed.message))
        except OwnWireError as error:
            return [*found, str(error)]
        assert deframer.buffered < LENGTH_BYTES + 4096
    return found


def own_listener(data: bytes) -> None:
    """No bytes of a dialer open a conference without its token, or do anything that is not documented.

    A connection is given up once, and that is the last; a conference is closed once; nobody changes what
    happens in our own cluster; the nodes are told of others only; how bytes are cut decides nothing.
    """
    _same_however_cut(data, Role.LISTENER)


def own_dialer(data: bytes) -> None:
    """No bytes of a listener open a conference that was not asked for, or do what is not documented.

    As for a listener; besides, no conference is asked for at the dialer.
    """
    _same_however_cut(data, Role.DIALER)


def _same_however_cut(data: bytes, role: Role) -> None:
    assert _talk(data, role, 0) == _talk(data, role, data[0] if data else 0)


def _talk(data: bytes, role: Role, size: int) -> list[Output]:
    end = _End(role)
    for lane, arriving in records(data):
        for at in range(0, len(arriving), size or len(arriving) or 1):
            end.receive(lane, arriving[at : at + size] if size else arriving)
        end.flush()
    end.check()
    return end.outputs


class _End:
    """One end of a conversation, with everything that its shell would do."""

    def __init__(self, role: Role) -> None:
        self.outputs: list[Output] = []
        self.relays = {room: _relay(room) for room in ROOMS}
        self.open: set[int] = set()
        peer = "us" if role is Role.DIALER else None
        self.conversation = Conversation(
            role, cluster="eu", peer=peer, settings=_SETTINGS, now=0.0, wake=lambda: None
        )

    def receive(self, lane: int, data: bytes) -> None:
        closed = self.conversation.closed
        pending = self.conversation.receive(lane, data, 0.0)
        assert not (closed and pending), "something after the end"
        while pending:
            output = pending.pop(0)
            self.outputs.append(output)
            pending += self.carry_out(output)

    def carry_out(self, output: Output) -> list[Output]:
        conversation = self.conversation
        match output:
            case Greeted() if conversation.role is Role.DIALER:
                self.open = {conversation.open(relay, TOKEN, 0.0) for relay in self.relays.values()}
            case OpenRequested(channel=channel, room=room, token=token):
                assert conversation.role is Role.LISTENER
                self.open.add(channel)
                if token == TOKEN and room in self.relays:
                    return conversation.accept(channel, self.relays[room], 0.0)
                return conversation.close_channel(channel, OwnCode.TOKEN_REFUSED, "wrong", 0.0)
            case ChannelClosed(channel=channel):
                self.open.discard(channel)
            case Told(origin=origin, type=type_, consumed=consumed):
                assert origin != "eu"
                assert type_ != "onCascadingDisconnected"
                consumed()
        return []

    def flush(self) -> None:
        for lane in self.conversation.lanes_to_send():
            self.conversation.data_to_send(lane, _EVERYTHING, 0.0)

    def check(self) -> None:
        ends = [at for at, output in enumerate(self.outputs) if isinstance(output, Violated)]
        assert ends in ([], [len(self.outputs) - 1])
        assert self.conversation.closed == bool(ends)
        for relay in self.relays.values():
            own = relay.origin("eu")
            assert own is not None
            assert (own.log.last, list(own.picture.participants)) == (0, ["p1"])
            assert len(relay.origins()) <= 1 + _SETTINGS.max_origins
            assert not (self.conversation.closed and relay.peers())


def _relay(room: str) -> Relay:
    relay = Relay(room, cluster="eu", incarnation=5, relaying=True, settings=_SETTINGS)
    relay.attach({"p1": {"id": "p1"}}, {})
    return relay
