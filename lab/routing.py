"""Subscriptions become routes: what a room says is wanted, the hub pulls and serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hub import Hub, Origin, RoutedTrack
from lab.room_outputs import Subscribed, SubscriptionEnded, SubscriptionKey, TrackMuted, TracksGone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridges.wire.objects import TrackKind
    from lab.rooms import RoomNews, RunningRoom

__all__ = ["Routing"]


class Routing:
    """Holds a sink for every track of every subscription. A listener of Rooms; the first of them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._sinks: dict[tuple[str, SubscriptionKey], dict[TrackKind, str]] = {}

    def sinks(self, room_id: str, key: SubscriptionKey) -> Mapping[TrackKind, str]:
        """Return the id to name at the hub's address for each track of a subscription."""
        return self._sinks.get((room_id, key), {})

    def set_paused(self, room_id: str, key: SubscriptionKey, kind: TrackKind, *, paused: bool) -> None:
        """Let nothing of one kind pass to a subscription, or again everything; nothing if it has none."""
        sink = self.sinks(room_id, key).get(kind)
        if sink is not None:
            self._hub.set_paused(sink, paused=paused)

    def set_origin(self, track: RoutedTrack, origin: Origin) -> None:
        """Say where a local track is served."""
        self._hub.set_origin(track, origin)

    def hear(self, running: RunningRoom, news: RoomNews) -> None:
        """Follow what happens in a room."""
        room_id = running.room.id
        match news:
            case Subscribed(key, tracks):
                self._sinks[room_id, key] = {
                    track.kind: self._hub.attach(RoutedTrack(room_id, track)) for track in tracks
                }
            case SubscriptionEnded(key):
                for sink in self._sinks.pop((room_id, key), {}).values():
                    self._hub.detach(sink)
            case TracksGone(tracks):
                for track in tracks:
                    self._hub.clear_origin(RoutedTrack(room_id, track))
            case TrackMuted(key=track, muted=muted):
                self._hub.set_muted(RoutedTrack(room_id, track), muted=muted)
            case _:
                pass
