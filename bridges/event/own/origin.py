"""One origin in one conference at this bridge: its events' log and the picture that they add up to. Pure.

Which connection they come by is the relay's business.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridges.event.own.log import EventLog, Logged
from bridges.event.own.picture import Change, Picture, difference
from bridges.wire.messages import is_of_shape
from bridges.wire.own.messages import MAX_INCARNATION, NOTHING, Position
from bridges.wire.own.values import decode_value, encode_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridges.event.own.log import LogBudget
    from bridges.event.own.settings import OwnWireSettings

__all__ = [
    "ENVELOPE_BYTES",
    "LOCAL_TYPES",
    "Origin",
    "OriginState",
    "Route",
    "draw_incarnation",
    "is_event",
    "picture_of",
]

LOCAL_TYPES: Final = frozenset({"initialize", "onCascadingDisconnected"})
"""Events that a bridge makes for its own node; they are never taken from a wire, nor from a node."""


ENVELOPE_BYTES: Final = 16 << 10
"""Room in a message for what stands around an event's data or an entry: names and hops."""

_RANDOM_BITS: Final = 20
_ANY_STREAM: Final = {"id": "any", "media": {"tracks": []}}


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginState:
    """How an origin stands at this bridge, for figures and for media's way upstream."""

    origin: str
    at: Position
    """How far we have its events."""
    path: tuple[str, ...]
    """Cluster ids on the way from the origin to us, the origin first, ours not included; empty: out of reach,
    or ourselves. The last is the next hop towards the origin."""
    participants: int
    streams: int
    digest: bytes
    log_events: int
    log_bytes: int


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

    def state(self, path: tuple[str, ...]) -> OriginState:
        """Return how the origin stands, whose events come by `path`."""
        return OriginState(
            origin=self.name,
            at=self.log.end,
            path=path,
            participants=len(self.picture.participants),
            streams=len(self.picture.streams),
            digest=self.picture.digest,
            log_events=len(self.log),
            log_bytes=self.log.bytes,
        )


def draw_incarnation(unix_ms: int, random_bits: int) -> int:
    """Return a number for a new start: later ones are greater, those of one millisecond differ.

    `random_bits`: at least 20 random bits, such as secrets.randbits(20).
    """
    drawn = unix_ms << _RANDOM_BITS | random_bits & ((1 << _RANDOM_BITS) - 1)
    return min(max(drawn, 1), MAX_INCARNATION)


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
