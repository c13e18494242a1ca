"""Who of a room watches what: participants of it, and bridges on behalf of other clusters. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal, TypeVar

from msgspec import Struct

from lab.room_outputs import Output, Subscribed, SubscriptionEnded, SubscriptionKey, TrackKey
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from bridges.wire.objects import Stream, TrackKind

__all__ = ["EndReason", "Subscription", "Subscriptions", "TrackOrigin"]

_T = TypeVar("_T", bound=Hashable)
EndReason = Literal["unsubscribed", "stream-removed", "participant-left", "bridge-lost", "room-closed"]


class Subscription(Struct, frozen=True):
    """Tracks of one stream for one owner; `stream` is the id under which the room shows it."""

    key: SubscriptionKey
    stream: str
    tracks: tuple[TrackKey, ...]


class TrackOrigin(Struct, frozen=True):
    """Where a stream lives, and its id there."""

    cluster: str
    stream: str


class Subscriptions:
    """Every subscription of a room, found by key and by stream; at most `max_per_owner` for one owner."""

    def __init__(self, *, max_per_owner: int) -> None:
        self.max_per_owner = max_per_owner
        self._by_key: dict[SubscriptionKey, Subscription] = {}
        self._by_stream: dict[str, dict[SubscriptionKey, None]] = {}
        self._by_owner: dict[tuple[str, bool], dict[SubscriptionKey, None]] = {}

    @property
    def all(self) -> list[Subscription]:
        """Every subscription, in order of arrival."""
        return list(self._by_key.values())

    def add(
        self, key: SubscriptionKey, stream: Stream, origin: TrackOrigin, kinds: list[TrackKind]
    ) -> Output:
        """Add a subscription to the tracks of `kinds`; `origin` is where the stream lives.

        Raises RoomError `id-taken`, `too-many-subscriptions` or `no-such-track`.
        """
        if key in self._by_key:
            raise RoomError("id-taken", "there is a subscription with this id")
        if len(self._by_owner.get((key.owner, key.by_bridge), ())) >= self.max_per_owner:
            raise RoomError("too-many-subscriptions", "no more subscriptions are allowed")
        if not kinds or not {track.type for track in stream.media.tracks}.issuperset(kinds):
            raise RoomError("no-such-track", "the stream has no such track")
        tracks = tuple(TrackKey(origin.cluster, origin.stream, kind) for kind in kinds)
        self._by_key[key] = Subscription(key, stream.id, tracks)
        self._by_stream.setdefault(stream.id, {})[key] = None
        self._by_owner.setdefault((key.owner, key.by_bridge), {})[key] = None
        return Subscribed(key, tracks)

    def end(self, key: SubscriptionKey, reason: EndReason) -> list[Output]:
        """End one subscription. Raises RoomError `no-such-subscription`."""
        if key not in self._by_key:
            raise RoomError("no-such-subscription", "there is no such subscription")
        subscription = self._by_key.pop(key)
        _discard(self._by_stream, subscription.stream, key)
        _discard(self._by_owner, (key.owner, key.by_bridge), key)
        return [SubscriptionEnded(key, reason)]

    def end_owner(self, owner: str, reason: EndReason, *, by_bridge: bool = False) -> list[Output]:
        """End every subscription of one owner."""
        keys = list(self._by_owner.get((owner, by_bridge), ()))
        return [output for key in keys for output in self.end(key, reason)]

    def end_stream(self, stream: str) -> list[Output]:
        """End every subscription to one stream, because it goes."""
        keys = list(self._by_stream.get(stream, ()))
        return [output for key in keys for output in self.end(key, "stream-removed")]

    def end_all(self) -> list[Output]:
        """End every subscription, because the room closes."""
        return [output for key in list(self._by_key) for output in self.end(key, "room-closed")]


def _discard(index: dict[_T, dict[SubscriptionKey, None]], where: _T, key: SubscriptionKey) -> None:
    del index[where][key]
    if not index[where]:
        del index[where]
