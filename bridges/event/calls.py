"""What conference nodes ask of an event bridge beyond the orders to cascade, read from OWT's argument lists.

A node treats a bridge like a portal, so it also says things that no wire between clusters has a word for;
those are taken and come to nothing, as in OWT. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bridges.node.port import RpcError
from bridges.wire.messages import Event

__all__ = ["Broadcast", "Notify", "parse_broadcast", "parse_destroyed", "parse_notify"]


class _About(msgspec.Struct):
    """The second argument of `notify`: from whom it is, and which stream an `initialize` is for."""

    rpcId: str | None = None  # noqa: N815 - OWT's name
    type: str | None = None
    session: str | None = None
    stream: str | int | None = None


class Notify(msgspec.Struct, frozen=True):
    """Tell the peers of a node something: one stream if `stream` is set, or all that have its state."""

    node: str
    event: Event
    stream: tuple[str, str] | None
    """Session and stream, as they were named to the node by `onCascadingConnected`."""


class Broadcast(msgspec.Struct, frozen=True):
    """Tell the peers of a node something, but for those clusters that are excluded."""

    node: str
    event: Event
    excluded: frozenset[str]


class _Room(msgspec.Struct):
    room: str


def parse_notify(args: list[Any]) -> Notify | None:
    """Read `notify [participant, message, data]`; None when it is for a participant, not for clusters.

    Raises RpcError when it is neither.
    """
    match args:
        case [str(), str(), _]:
            return None  # An event of a portal's clients, which are told by name.
        case [str(caller), message, data]:
            try:
                about = msgspec.convert(message, _About)
                event = msgspec.convert(data, Event)
            except msgspec.ValidationError as error:
                raise RpcError(f"notify: {error}") from None
            stream = (str(about.session), str(about.stream)) if about.type == "initialize" else None
            return Notify(about.rpcId or caller, event, stream)
    raise RpcError("notify: wants [participant, message, data]")


def parse_broadcast(args: list[Any]) -> Broadcast | None:
    """Read `broadcast [node, excluded, message, data]`; None when it is no event between clusters.

    Raises RpcError when it is not of this shape.
    """
    match args:
        case [str(node), excluded, _, data]:
            try:
                clusters = msgspec.convert(excluded, list[str])
            except msgspec.ValidationError as error:
                raise RpcError(f"broadcast: {error}") from None
            try:
                return Broadcast(node, msgspec.convert(data, Event), frozenset(clusters))
            except msgspec.ValidationError:
                return None
    raise RpcError("broadcast: wants [node, excluded, message, data]")


def parse_destroyed(args: list[Any]) -> str:
    """Return the room of `destroyRoom [room]`, or of OWT's `destroyRoom [participant, message, {room}]`.

    Raises RpcError when there is none.
    """
    match args:
        case [str(room)] if room:
            return room
        case [_, _, about]:
            try:
                return msgspec.convert(about, _Room).room
            except msgspec.ValidationError as error:
                raise RpcError(f"destroyRoom: {error}") from None
    raise RpcError("destroyRoom: wants the room")
