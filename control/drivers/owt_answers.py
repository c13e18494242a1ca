"""What an OWT cluster answers (owt-server 5.x), read into our values. Pure: bytes in, values out.

Every function raises MalformedAnswerError, and nothing else, for whatever it cannot understand.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Annotated, Final

from msgspec import Meta, Raw, Struct, field

from causeway.api import BridgeAddress
from control.drivers.answers import decode, is_host
from control.drivers.base import Bridges, MalformedAnswerError, RoomParticipant, RoomToken

__all__ = [
    "read_bridges",
    "read_ok",
    "read_participants",
    "read_placed_rooms",
    "read_room",
    "read_rooms",
    "read_token",
]

_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_MAX_PORT: Final = 65535
_PORT_DIGITS: Final = re.compile(r"[0-9]{1,5}")

_Host = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\s/?#@]+\Z")]
_Port = Annotated[int, Meta(ge=1, le=_MAX_PORT)]
_Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Room(Struct, frozen=True):
    """A room object: the id stands in one of two fields."""

    id_: str | None = field(name="_id", default=None)
    id: str | None = None


class _PlacedRoom(Struct, frozen=True, rename="camel"):
    """A room object of a cluster of ours."""

    id: str
    placement_epoch: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None


class _Token(Struct, frozen=True):
    """What is inside the base64 of a client's token, as far as control cares."""

    host: str
    secure: bool = False


class _Bridges(Struct, frozen=True, kw_only=True):
    """The answer to `bridges`; the fingerprints are ours."""

    eventbridgeip: _Host
    eventbridgeport: _Port
    eventbridgefingerprint: _Fingerprint | None = None
    mediabridgeip: _Host | None = None
    mediabridgeport: _Port | None = None
    mediabridgefingerprint: _Fingerprint | None = None


class _Participant(Struct, frozen=True):
    """One of `participants`."""

    id: str
    user: str = ""
    role: str = ""


def read_room(answer: bytes, conference: str) -> None:
    """Check that the room has the id that it was to have: everything else is found by it."""
    room = decode(answer, _Room)
    if conference not in {room.id_, room.id}:
        raise MalformedAnswerError("the room has another id than it was given")


def read_rooms(answer: bytes) -> None:
    """Check that the answer is a list of rooms, whatever is in it."""
    decode(answer, list[Raw])


def read_placed_rooms(answer: bytes) -> list[tuple[str, int | None]]:
    """Read a list of `{id, placementEpoch?, …}` into (id, epoch)."""
    return [(room.id, room.placement_epoch) for room in decode(answer, list[_PlacedRoom])]


def read_ok(answer: bytes) -> None:
    """Check that the answer is `ok`, as text or as a JSON string."""
    if answer.strip().strip(b'"') != b"ok":
        raise MalformedAnswerError("the answer is not ok")


def read_bridges(answer: bytes) -> Bridges:
    """Read `{eventbridgeip, eventbridgeport, mediabridgeip?, mediabridgeport?, …fingerprint?}`."""
    read = decode(answer, _Bridges)
    media = None
    if read.mediabridgeip is not None and read.mediabridgeport is not None:
        media = BridgeAddress(
            host=read.mediabridgeip, port=read.mediabridgeport, fingerprint=read.mediabridgefingerprint
        )
    event = BridgeAddress(
        host=read.eventbridgeip, port=read.eventbridgeport, fingerprint=read.eventbridgefingerprint
    )
    return Bridges(event=event, media=media)


def read_participants(answer: bytes) -> tuple[RoomParticipant, ...]:
    """Read a list of `{id, user, role, …}`."""
    read = decode(answer, list[_Participant])
    return tuple(RoomParticipant(id=one.id, user=one.user, role=one.role) for one in read)


def read_token(answer: bytes) -> RoomToken:
    """Read a client's token: base64 of JSON; the client gets the text as it is."""
    text = answer.strip().strip(b'"')
    try:
        inside = b64decode(text, validate=True)
    except ValueError:
        raise MalformedAnswerError("the token is not base64") from None
    token = decode(inside, _Token)
    ip, port = _read_host(token.host, secure=token.secure)
    return RoomToken(ip=ip, port=port, secure=token.secure, text=text.decode("ascii"))


def _read_host(host: str, *, secure: bool) -> tuple[str, int]:
    """Split `host:port`. OWT writes IPv6 addresses bare or in brackets, and public names without a port."""
    host = host.removesuffix("/")
    if ":" not in host or host.endswith("]"):
        name, port = host, str(_HTTPS_PORT if secure else _HTTP_PORT)
    else:
        name, _, port = host.rpartition(":")
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not (is_host(bare, ipv6=":" in name or bare != name) and _PORT_DIGITS.fullmatch(port)):
        raise MalformedAnswerError("the token's host is not host:port")
    number = int(port)
    if not 1 <= number <= _MAX_PORT:
        raise MalformedAnswerError("the token's port is not a port")
    return bare, number
