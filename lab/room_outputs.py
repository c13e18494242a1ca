"""What a room says happened: the outputs of `lab.room.Room`, one frozen struct per kind.

Whoever runs the room hands each output to those whom it concerns: local participants, bridges, the hub, the
registrar. Participants and streams in outputs carry the ids under which this room shows them, except in
BridgeEvent and TrackKey, which speak of things by the ids that they have in their own cluster.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from bridges.wire.objects import Participant, Stream, TrackKind

__all__ = [
    "BridgeEvent",
    "LinkDown",
    "LinkUp",
    "Output",
    "ParticipantJoined",
    "ParticipantLeft",
    "StreamAdded",
    "StreamRemoved",
    "StreamUpdated",
    "Subscribed",
    "SubscriptionEnded",
    "SubscriptionKey",
    "TrackKey",
    "TrackMuted",
    "TracksGone",
]


class TrackKey(Struct, frozen=True):
    """A track, wherever it lives: a stream has at most one of each kind."""

    cluster: str
    stream: str
    """The stream's id in `cluster`."""
    kind: TrackKind


class SubscriptionKey(Struct, frozen=True):
    """Whose subscription: `owner` is a local participant's id, or a bridge's worker id."""

    owner: str
    id: str
    by_bridge: bool = False


class ParticipantJoined(Struct, frozen=True):
    """Somebody is in the room, here or (`cascading`) in another cluster."""

    participant: Participant


class ParticipantLeft(Struct, frozen=True):
    """Somebody is in the room no more."""

    id: str
    local: bool


class StreamAdded(Struct, frozen=True):
    """A stream can be subscribed to."""

    stream: Stream


class StreamRemoved(Struct, frozen=True):
    """A stream is gone; the ends of its subscriptions came before this."""

    id: str


class StreamUpdated(Struct, frozen=True):
    """A stream's information or the status of its tracks changed."""

    stream: Stream


class Subscribed(Struct, frozen=True):
    """These tracks are wanted by that subscriber."""

    key: SubscriptionKey
    tracks: tuple[TrackKey, ...]


class SubscriptionEnded(Struct, frozen=True):
    """A subscription is over. `asked` is whether its owner ended it, and so knows."""

    key: SubscriptionKey
    reason: Literal["unsubscribed", "stream-removed", "participant-left", "bridge-lost", "room-closed"]

    @property
    def asked(self) -> bool:
        """Whether the owner knows, or is not there any more to be told."""
        return self.reason in {"unsubscribed", "participant-left", "bridge-lost"}


class TracksGone(Struct, frozen=True):
    """A local stream's tracks cannot be pulled any more."""

    tracks: tuple[TrackKey, ...]


class TrackMuted(Struct, frozen=True):
    """A local track shall carry nothing, or again something."""

    key: TrackKey
    muted: bool


class BridgeEvent(Struct, frozen=True):
    """Something local that every linked cluster must hear: `type` and `data` as on OWT's wire."""

    type: Literal[
        "addParticipant",
        "removeParticipant",
        "addStream",
        "updateStreamInfo",
        "removeStream",
        "setStreamMute",
    ]
    data: Any


class LinkUp(Struct, frozen=True):
    """The cluster `peer` has told us everything that it has."""

    peer: str


class LinkDown(Struct, frozen=True):
    """Nothing comes from `peer` any more; what had come is removed."""

    peer: str


Output = (
    ParticipantJoined
    | ParticipantLeft
    | StreamAdded
    | StreamRemoved
    | StreamUpdated
    | Subscribed
    | SubscriptionEnded
    | TracksGone
    | TrackMuted
    | BridgeEvent
    | LinkUp
    | LinkDown
)
