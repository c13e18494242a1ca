"""One origin in one conference at this bridge: its events' log and the picture that they add up to. Pure.

Which connection they come by is the relay's business.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridges.event.own.log import EventLog, Logged
from bridges.event.own.picture import Change, Picture, difference
from bridges.wire.messages import is_of_shape
from bridges.wire.own.messages import NOTHING, Position
from bridges.wire.own.values import decode_value, encode_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridges.event.own.log import LogBudget
    from bridges.event.own.settings import OwnWireSettings

__all__ = ["ENVELOPE_BYTES", "LOCAL_TYPES", "Origin", "Route", "is_event", "picture_of"]

LOCAL_TYPES: Final = frozenset({"initialize", "onCascadingDisconnected"})
"""Events that a bridge makes for its own node; they are never taken from a wire, nor from a node."""


ENVELOPE_BYTES: Final = 16 << 10
"""Room in a message for what stands around an event's data or an entry: names and hops."""

_ANY_STREAM: Final = {"id": "any", "media": {"tracks": []}}


class Route(NamedTuple):
    """What a bridge can give of an origin: its present start, and the way from there, both ends included."""

    incarnation: int
    path: tuple[str, ...]


class Origin:
    """What is known of an origin. `told`: whether our conference node has heard of it."""

    def __init__(self, name: str, at: Position, settings: OwnWireSettings, budget: LogBudget) -> None:
        self.name: Final = name
        self.log: Final = EventLog(
            at, max_events=settings.log_events, max_bytes=settings.log_bytes, budget=budget
        )
        self.picture = _empty(settings)
        self.hops: tuple[str, ...] = ()
        """Clusters that the newest state came by; ours not included."""
        self.told = False

    @property
    def known(self) -> bool:
        """Whether there is a state: that of nothing is none."""
        return self.log.incarnation != NOTHING.incarnation

    def append(self, type_: str, data: Any, encoded: bytes, hops: tuple[str, ...]) -> Position:
        """Take the next event. Raises PictureFullError, ValueError; then nothing has changed."""
        self.picture.apply(type_, data)
        if hops != self.hops:
            self.hops = hops
        # What most events have in common is kept once.
        self.log.append(Logged(self.log.last + 1, self.hops, sys.intern(type_), encoded))
        return self.log.end

    def adopt(self, at: Position, picture: Picture, hops: tuple[str, ...]) -> list[Change]:
        """Take a whole state, and return what it changes."""
        changes = difference(self.picture, picture)
        self.picture, self.hops = picture, hops
        self.log.reset(at)
        return changes


def picture_of(
    participants: Mapping[str, Any], streams: Mapping[str, Any], settings: OwnWireSettings
) -> Picture:
    """Return the picture of what an `initialize` says: encoded values, or values.

    Raises ValueError for what is no participant, no stream or no JSON, PictureFullError.
    """
    picture = _empty(settings)
    for id_, entry in participants.items():
        picture.put_participant(id_, _checked("addParticipant", id_, entry))
    for id_, entry in streams.items():
        picture.put_stream(id_, _checked("addStream", id_, entry))
    return picture


def is_event(type_: str, data: Any) -> bool:
    """Return whether something is an event of nodes, with the data that its type asks for."""
    if type_ in LOCAL_TYPES or not is_of_shape(type_, data):
        return False
    # A stream has to remain one, or nobody could take the state that it is part of.
    return type_ != "updateStreamInfo" or is_of_shape("addStream", {**_ANY_STREAM, "info": data["info"]})


def _empty(settings: OwnWireSettings) -> Picture:
    return Picture(
        max_entries=settings.max_entries,
        max_bytes=settings.max_state_bytes,
        max_entry_bytes=settings.max_message_bytes - ENVELOPE_BYTES,
    )


def _checked(type_: str, id_: str, entry: Any) -> Any:
    value = decode_value(encode_value(entry) if isinstance(entry, dict) else entry)
    if not is_of_shape(type_, value) or value["id"] != id_:
        raise ValueError(f"{type_}: not what stands under its id, or not of its shape")
    return value
