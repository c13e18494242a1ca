"""What a room shows of other clusters, told by OWT's cascading events.

Pure, as lab.room, whose tables of participants and streams it writes into: ids that are taken there get a
suffix, everything is kept by the cluster that it came from, and goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from bridges.wire.objects import Id, Participant, Stream, StreamInfo, StreamMedia, TrackKind
from lab.room_outputs import (
    LinkDown,
    LinkUp,
    Output,
    ParticipantJoined,
    ParticipantLeft,
    StreamAdded,
    StreamRemoved,
    StreamUpdated,
)
from lab.room_rules import RoomError
from lab.room_subscriptions import Subscriptions, TrackOrigin

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS_OF_TRACK", "Cascade", "muted_stream"]

KINDS_OF_TRACK: Final[dict[str, tuple[TrackKind, ...]]] = {
    "audio": ("audio",),
    "video": ("video",),
    "av": ("audio", "video"),
}
"""What `track` of a mute means."""


class _Peer(Struct):
    """What came from one cluster, through which bridge: ids there, to the ids that are shown here."""

    bridge: str
    participants: dict[str, str] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    initialised: bool = False


class _Initialize(Struct):
    participants: dict[Id, Participant] = field(default_factory=dict)
    streams: dict[Id, Stream] = field(default_factory=dict)


class _StreamUpdate(Struct):
    id: Id
    info: StreamInfo


class _StreamMute(Struct):
    id: Id
    track: str
    muted: bool


class Cascade:
    """The other clusters of a room on cluster `own`; each may bring `max_per_peer` of a kind."""

    def __init__(
        self,
        own: str,
        participants: dict[str, Participant],
        streams: dict[str, Stream],
        subscriptions: Subscriptions,
        *,
        max_per_peer: int,
    ) -> None:
        self._own = own
        self._participants = participants
        self._streams = streams
        self._subscriptions = subscriptions
        self._max_per_peer = max_per_peer
        self._peers: dict[str, _Peer] = {}

    @property
    def links(self) -> list[str]:
        """The clusters whose whole state we have been told."""
        return [cluster for cluster, peer in self._peers.items() if peer.initialised]

    def origin(self, stream: Stream) -> TrackOrigin:
        """Return where a stream of another cluster lives, and its id there."""
        cluster = stream.cluster or ""
        streams = self._peers[cluster].streams
        return TrackOrigin(cluster, next(origin for origin, shown in streams.items() if shown == stream.id))

    def event(self, bridge: str, cluster: str, type_: str, data: Any) -> list[Output]:
        """Take an event that came from `cluster` through `bridge`; see Room.cascading_event."""
        handler = self._HANDLERS.get(type_)
        if handler is None or cluster == self._own:
            raise RoomError("bad-event", f"{type_!r} from {cluster} means nothing here")
        peer = self._peers.get(cluster)
        if peer is not None and peer.bridge != bridge and type_ != "initialize":
            return []
        if peer is None:
            if type_ == "onCascadingDisconnected":
                return []
            peer = _Peer(bridge)
        try:
            outputs = handler(self, cluster, peer, data)
        except msgspec.ValidationError as error:
            raise RoomError("bad-event", f"{type_}: {error}") from None
        if type_ == "onCascadingDisconnected":
            return outputs
        peer.bridge = bridge
        self._peers[cluster] = peer
        return outputs

    def bridge_lost(self, bridge: str) -> list[Output]:
        """Remove every cluster whose events came through `bridge`."""
        lost = [cluster for cluster, peer in self._peers.items() if peer.bridge == bridge]
        return [output for cluster in lost for output in self._drop(cluster, self._peers[cluster], None)]

    def drop_all(self) -> list[Output]:
        """Remove everything that came from other clusters."""
        return [
            output
            for cluster, peer in list(self._peers.items())
            for output in self._drop(cluster, peer, None)
        ]

    # --- one method for each event --------------------------------------------------------------------

    def _initialize(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        told = msgspec.convert(data, _Initialize)
        if max(len(told.participants), len(told.streams)) > self._max_per_peer:
            raise RoomError("too-many", f"more than {self._max_per_peer} participants or streams")
        outputs: list[Output] = []
        # What is not told any more goes; what stays does not flap.
        for id_ in [id_ for id_ in peer.streams if id_ not in told.streams]:
            outputs += self._hide_stream(peer, id_)
        for id_ in [id_ for id_ in peer.participants if id_ not in told.participants]:
            outputs += self._hide_participant(peer, id_)
        for id_, participant in told.participants.items():
            outputs += self._show_participant(peer, replace(participant, id=id_))
        for id_, stream in told.streams.items():
            outputs += self._show_stream(cluster, peer, replace(stream, id=id_))
        if not peer.initialised:
            peer.initialised = True
            outputs.append(LinkUp(cluster))
        return outputs

    def _add_participant(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster
        return self._show_participant(peer, msgspec.convert(data, Participant))

    def _add_stream(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        return self._show_stream(cluster, peer, msgspec.convert(data, Stream))

    def _remove_participant(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster
        return self._hide_participant(peer, msgspec.convert(data, str))

    def _remove_stream(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster
        return self._hide_stream(peer, msgspec.convert(data, str))

    def _update_stream(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster
        update = msgspec.convert(data, _StreamUpdate)
        shown = peer.streams.get(update.id)
        if shown is None:
            return []
        return self._replace(replace(self._streams[shown], info=_shown_info(peer, update.info)))

    def _mute_stream(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster
        mute = msgspec.convert(data, _StreamMute)
        shown = peer.streams.get(mute.id)
        if shown is None:
            return []
        return self._replace(muted_stream(self._streams[shown], mute.track, muted=mute.muted))

    def _ignore(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del cluster, peer, data  # Who is loudest elsewhere changes nothing in a room without mixing.
        return []

    def _drop(self, cluster: str, peer: _Peer, data: Any) -> list[Output]:
        del data
        outputs: list[Output] = []
        for id_ in list(peer.streams):
            outputs += self._hide_stream(peer, id_)
        for id_ in list(peer.participants):
            outputs += self._hide_participant(peer, id_)
        del self._peers[cluster]
        return [*outputs, LinkDown(cluster)] if peer.initialised else outputs

    _HANDLERS: Final[dict[str, Callable[[Cascade, str, _Peer, Any], list[Output]]]] = {
        "initialize": _initialize,
        "addParticipant": _add_participant,
        "removeParticipant": _remove_participant,
        "addStream": _add_stream,
        "updateStreamInfo": _update_stream,
        "removeStream": _remove_stream,
        "setStreamMute": _mute_stream,
        "onAudioActiveness": _ignore,
        "onCascadingDisconnected": _drop,
    }

    # --- showing and hiding ---------------------------------------------------------------------------

    def _show_participant(self, peer: _Peer, told: Participant) -> list[Output]:
        if told.id in peer.participants:
            return []
        self._check_room(peer.participants)
        shown = _free(told.id, self._participants)
        peer.participants[told.id] = shown
        self._participants[shown] = replace(told, id=shown, cascading=True)
        return [ParticipantJoined(self._participants[shown])]

    def _hide_participant(self, peer: _Peer, told: str) -> list[Output]:
        shown = peer.participants.pop(told, None)
        if shown is None:
            return []
        del self._participants[shown]
        return [ParticipantLeft(shown, local=False)]

    def _show_stream(self, cluster: str, peer: _Peer, told: Stream) -> list[Output]:
        if told.cluster == self._own:
            return []  # an echo of our own
        known = peer.streams.get(told.id)
        tracks = {track.type: track for track in reversed(told.media.tracks)}  # the first of each kind
        stream = replace(
            told,
            id=known or _free(told.id, self._streams),
            media=StreamMedia(tracks=list(reversed(tracks.values()))),
            info=_shown_info(peer, told.info),
            cluster=cluster,
        )
        if known is not None and _tracks(stream) == _tracks(self._streams[known]):
            return self._replace(stream)
        outputs = self._hide_stream(peer, told.id)
        self._check_room(peer.streams)
        peer.streams[told.id] = stream.id
        self._streams[stream.id] = stream
        return [*outputs, StreamAdded(stream)]

    def _hide_stream(self, peer: _Peer, told: str) -> list[Output]:
        shown = peer.streams.pop(told, None)
        if shown is None:
            return []
        del self._streams[shown]
        return [*self._subscriptions.end_stream(shown), StreamRemoved(shown)]

    def _replace(self, stream: Stream) -> list[Output]:
        if stream == self._streams[stream.id]:
            return []
        self._streams[stream.id] = stream
        return [StreamUpdated(stream)]

    def _check_room(self, held: dict[str, str]) -> None:
        if len(held) >= self._max_per_peer:
            raise RoomError("too-many", f"a cluster may bring {self._max_per_peer} of a kind")


def muted_stream(stream: Stream, track: str, *, muted: bool) -> Stream:
    """Return `stream` with the status of `track` (audio, video, av) changed; raises RoomError."""
    kinds = KINDS_OF_TRACK.get(track)
    if kinds is None:
        raise RoomError("no-such-track", "a track is audio, video or av")
    status = "inactive" if muted else "active"
    tracks = [replace(one, status=status) if one.type in kinds else one for one in stream.media.tracks]
    return replace(stream, media=StreamMedia(tracks=tracks))


def _free(told: str, taken: dict[str, Any]) -> str:
    """Return the id to show something from another cluster under: its own, unless that is taken."""
    shown, number = told, 1
    while shown in taken:
        number += 1
        shown = f"{told}~{number}"
    return shown


def _tracks(stream: Stream) -> list[tuple[str, str]]:
    return [(track.id, track.type) for track in stream.media.tracks]


def _shown_info(peer: _Peer, info: StreamInfo) -> StreamInfo:
    return replace(info, owner=peer.participants.get(info.owner, info.owner))
