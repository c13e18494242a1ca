"""A room of the conference node, as OWT runs one: who is in it, what is published, who watches what.

Pure: inputs are methods, each returns what happened as a list of outputs (lab.room_outputs); a refused input
raises RoomError and changes nothing. No socket, no clock, no task; ids come from the caller.

Local participants and streams are told to every linked cluster; what came from one is shown here, marked
(`cascading`, `cluster`), and never told on: clusters form a full mesh. What came from a cluster goes at once
when its link drops or the bridge that carried it is lost (lab.room_cascade).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from bridges.wire.objects import Participant, Stream, StreamInfo, StreamMedia, Track, TrackKind
from lab.room_cascade import KINDS_OF_TRACK, Cascade, muted_stream
from lab.room_outputs import (
    BridgeEvent,
    Output,
    ParticipantJoined,
    ParticipantLeft,
    StreamAdded,
    StreamRemoved,
    StreamUpdated,
    SubscriptionKey,
    TrackKey,
    TrackMuted,
    TracksGone,
)
from lab.room_rules import RoomError, RoomRules
from lab.room_subscriptions import Subscription, Subscriptions, TrackOrigin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Room"]


class Room:
    """One room on cluster `cluster`. `token` is what bridges of other clusters must present."""

    def __init__(self, room_id: str, *, cluster: str, token: str, rules: RoomRules) -> None:
        self.id = room_id
        self.cluster = cluster
        self.token = token
        self.rules = rules
        # By the ids that are shown here; those of local participants are _local's keys.
        self._participants: dict[str, Participant] = {}
        self._streams: dict[str, Stream] = {}
        self._local: dict[str, list[str]] = {}
        self._subscriptions = Subscriptions(max_per_owner=rules.max_subscriptions_per_owner)
        self._cascade = Cascade(
            cluster,
            self._participants,
            self._streams,
            self._subscriptions,
            max_per_peer=rules.max_per_peer,
        )

    # --- what is in it ----------------------------------------------------------------------------

    @property
    def participants(self) -> list[Participant]:
        """Everybody, in order of arrival; those of other clusters are marked `cascading`."""
        return list(self._participants.values())

    @property
    def streams(self) -> list[Stream]:
        """Every stream, each marked with the cluster that it lives in."""
        return list(self._streams.values())

    @property
    def local_participants(self) -> list[Participant]:
        """Those who joined here."""
        return [self._participants[id_] for id_ in self._local]

    @property
    def local_streams(self) -> list[Stream]:
        """Those published here."""
        return [self._streams[id_] for streams in self._local.values() for id_ in streams]

    @property
    def links(self) -> list[str]:
        """The clusters whose whole state we have been told."""
        return self._cascade.links

    @property
    def subscriptions(self) -> list[Subscription]:
        """Every subscription, of participants and of bridges."""
        return self._subscriptions.all

    def snapshot(self) -> dict[str, Any]:
        """Return the data of `initialize`: local participants and streams only, by id."""
        return {
            "participants": {one.id: one for one in self.local_participants},
            "streams": {one.id: one for one in self.local_streams},
        }

    # --- local participants -----------------------------------------------------------------------

    def join(
        self,
        participant_id: str,
        *,
        user: str,
        role: str,
        portal: str | None = None,
        origin: dict[str, Any] | None = None,
    ) -> list[Output]:
        """Take in a local participant.

        Raises RoomError `unknown-role`, `room-full`, or `id-taken` when the room shows somebody by that id.
        """
        rules = self.rules.role(role)
        if 0 <= self.rules.participant_limit <= len(self._local):
            raise RoomError("room-full", f"the room takes {self.rules.participant_limit} participants")
        if participant_id in self._participants:
            raise RoomError("id-taken", "there is a participant with this id")
        participant = Participant(
            id=participant_id,
            user=user,
            role=role,
            portal=portal,
            origin=origin,
            permission=msgspec.to_builtins({"publish": rules.publish, "subscribe": rules.subscribe}),
        )
        self._participants[participant_id] = participant
        self._local[participant_id] = []
        return [ParticipantJoined(participant), BridgeEvent("addParticipant", participant)]

    def leave(self, participant_id: str) -> list[Output]:
        """Let a local participant go, with streams and subscriptions. Raises RoomError `not-joined`."""
        streams = self._held(participant_id)
        outputs = self._subscriptions.end_owner(participant_id, "participant-left")
        for stream_id in list(streams):
            outputs += self.unpublish(participant_id, stream_id)
        del self._participants[participant_id], self._local[participant_id]
        return [
            *outputs,
            ParticipantLeft(participant_id, local=True),
            BridgeEvent("removeParticipant", participant_id),
        ]

    def publish(
        self, participant_id: str, stream_id: str, tracks: Sequence[Track], *, attributes: Any = None
    ) -> list[Output]:
        """Add a local stream.

        Raises RoomError `not-joined`, `forbidden`, `bad-tracks` (none, or two of one kind),
        `bad-format` (a codec that the room does not take), `too-many-streams` or `id-taken`.
        """
        held = self._held(participant_id)
        rules = self.rules.role(self._participants[participant_id].role)
        kinds = [track.type for track in tracks]
        if not kinds or len(set(kinds)) != len(kinds):
            raise RoomError("bad-tracks", "a stream has one or two tracks, at most one of each kind")
        if not all(rules.publish.allows(kind) for kind in kinds):
            raise RoomError("forbidden", f"role {rules.role} may not publish this")
        if not all(self.rules.accepts(track) for track in tracks):
            raise RoomError("bad-format", "the room does not take this codec")
        if len(held) >= self.rules.max_streams_per_participant or 0 <= self.rules.input_limit <= len(
            self.local_streams
        ):
            raise RoomError("too-many-streams", "no more streams are allowed")
        if stream_id in self._streams:
            raise RoomError("id-taken", "there is a stream with this id")
        stream = Stream(
            id=stream_id,
            media=StreamMedia(tracks=[replace(track, status="active") for track in tracks]),
            info=StreamInfo(owner=participant_id, attributes=attributes),
            cluster=self.cluster,
        )
        self._streams[stream_id] = stream
        held.append(stream_id)
        return [StreamAdded(stream), BridgeEvent("addStream", stream)]

    def unpublish(self, participant_id: str, stream_id: str) -> list[Output]:
        """Remove a local stream. Raises RoomError `not-joined` or `no-such-stream` when it is not theirs."""
        stream = self._own_stream(participant_id, stream_id)
        del self._streams[stream_id]
        self._local[participant_id].remove(stream_id)
        return [
            *self._subscriptions.end_stream(stream_id),
            TracksGone(self._track_keys(stream)),
            StreamRemoved(stream_id),
            BridgeEvent("removeStream", stream_id),
        ]

    def set_attributes(self, participant_id: str, stream_id: str, attributes: Any) -> list[Output]:
        """Change what a local stream says of itself. Raises RoomError as `unpublish`."""
        stream = self._own_stream(participant_id, stream_id)
        updated = replace(stream, info=replace(stream.info, attributes=attributes))
        if updated == stream:
            return []
        self._streams[stream_id] = updated
        return [
            StreamUpdated(updated),
            BridgeEvent("updateStreamInfo", {"id": stream_id, "info": updated.info}),
        ]

    def set_mute(self, participant_id: str, stream_id: str, track: str, *, muted: bool) -> list[Output]:
        """Mute or unmute `audio`, `video` or `av` of a local stream.

        Raises RoomError as `unpublish`, and `no-such-track`.
        """
        stream = self._own_stream(participant_id, stream_id)
        updated = muted_stream(stream, track, muted=muted)
        if updated == stream:
            return []
        self._streams[stream_id] = updated
        kinds = KINDS_OF_TRACK[track]
        return [
            *(TrackMuted(key, muted) for key in self._track_keys(updated) if key.kind in kinds),
            StreamUpdated(updated),
            BridgeEvent("setStreamMute", {"id": stream_id, "track": track, "muted": muted}),
        ]

    def subscribe(
        self, participant_id: str, subscription_id: str, stream_id: str, kinds: Iterable[TrackKind]
    ) -> list[Output]:
        """Subscribe a local participant to tracks of a stream, of whatever cluster.

        Raises RoomError `not-joined`, `no-such-stream`, `no-such-track`, `forbidden`, `id-taken`,
        `too-many-subscriptions`.
        """
        self._held(participant_id)
        rules = self.rules.role(self._participants[participant_id].role)
        stream = self._streams.get(stream_id)
        if stream is None:
            raise RoomError("no-such-stream", "there is no such stream")
        wanted = list(dict.fromkeys(kinds))
        if not all(rules.subscribe.allows(kind) for kind in wanted):
            raise RoomError("forbidden", f"role {rules.role} may not subscribe to this")
        return self._subscribe(SubscriptionKey(participant_id, subscription_id), stream, wanted)

    def unsubscribe(self, participant_id: str, subscription_id: str) -> list[Output]:
        """End a subscription. Raises RoomError `not-joined` or `no-such-subscription`."""
        self._held(participant_id)
        return self._subscriptions.end(SubscriptionKey(participant_id, subscription_id), "unsubscribed")

    # --- parts of this cluster that are nobody ------------------------------------------------------

    def subscribe_for(
        self, part: str, subscription_id: str, stream_id: str, kinds: Iterable[TrackKind]
    ) -> list[Output]:
        """Subscribe a part of this cluster that is no participant, and so has no role, to tracks of a stream.

        Such as a gateway to another media server, whose people see what they see through one subscription.
        Raises RoomError `no-such-stream`, `no-such-track`, `id-taken`, `too-many-subscriptions`.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            raise RoomError("no-such-stream", "there is no such stream")
        return self._subscribe(SubscriptionKey(part, subscription_id), stream, list(dict.fromkeys(kinds)))

    def unsubscribe_for(self, part: str, subscription_id: str) -> list[Output]:
        """End such a subscription. Raises RoomError `no-such-subscription`."""
        return self._subscriptions.end(SubscriptionKey(part, subscription_id), "unsubscribed")

    # --- bridges and other clusters ---------------------------------------------------------------

    def bridge_subscribe(
        self, bridge: str, connection_id: str, stream_id: str, kinds: Iterable[TrackKind]
    ) -> list[Output]:
        """Subscribe a media bridge, for another cluster, to a LOCAL stream.

        Raises RoomError `no-such-stream`, `no-such-track`, `id-taken` or `too-many-subscriptions`.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.cluster != self.cluster:
            raise RoomError("no-such-stream", "there is no such stream here")
        key = SubscriptionKey(bridge, connection_id, by_bridge=True)
        origin = TrackOrigin(self.cluster, stream_id)
        return [self._subscriptions.add(key, stream, origin, list(dict.fromkeys(kinds)))]

    def bridge_unsubscribe(self, bridge: str, connection_id: str) -> list[Output]:
        """End a media bridge's subscription. Raises RoomError `no-such-subscription`."""
        return self._subscriptions.end(SubscriptionKey(bridge, connection_id, by_bridge=True), "unsubscribed")

    def bridge_lost(self, bridge: str) -> list[Output]:
        """Remove everything that came through `bridge`, and what it was subscribed to."""
        ended = self._subscriptions.end_owner(bridge, "bridge-lost", by_bridge=True)
        return [*ended, *self._cascade.bridge_lost(bridge)]

    def cascading_event(self, bridge: str, cluster: str, type_: str, data: Any = None) -> list[Output]:
        """Take an event of OWT's cascading, come from `cluster` through `bridge`.

        Only the bridge that brought the cluster's last `initialize` is heard; an add or removal of what is
        already so changes nothing. Raises RoomError `bad-event`, or `too-many` beyond what one may bring.
        """
        return self._cascade.event(bridge, cluster, type_, data)

    def close(self) -> list[Output]:
        """End everything; the room is empty afterwards."""
        outputs = self._subscriptions.end_all()
        for participant_id in list(self._local):
            outputs += self.leave(participant_id)
        return [*outputs, *self._cascade.drop_all()]

    # --- parts of the above -----------------------------------------------------------------------

    def _subscribe(self, key: SubscriptionKey, stream: Stream, kinds: list[TrackKind]) -> list[Output]:
        local = stream.cluster == self.cluster
        origin = TrackOrigin(self.cluster, stream.id) if local else self._cascade.origin(stream)
        return [self._subscriptions.add(key, stream, origin, kinds)]

    def _held(self, participant_id: str) -> list[str]:
        """Return the ids of the streams that a local participant has published."""
        streams = self._local.get(participant_id)
        if streams is None:
            raise RoomError("not-joined", "there is no such participant here")
        return streams

    def _own_stream(self, participant_id: str, stream_id: str) -> Stream:
        if stream_id not in self._held(participant_id):
            raise RoomError("no-such-stream", "they have no such stream")
        return self._streams[stream_id]

    def _track_keys(self, stream: Stream) -> tuple[TrackKey, ...]:
        return tuple(TrackKey(self.cluster, stream.id, track.type) for track in stream.media.tracks)
