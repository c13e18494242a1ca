"""Somebody in a room of the edge's cluster who is no client of its portal: made of whatever the edge is for.

What a guest publishes is served to the hub like a client's tracks; what it watches is fetched from the hub
likewise. Streams of other clusters come through the cluster's bridge, as for everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridges.internal.receiver import InternalReceiver, InternalUnavailableError
from bridges.wire.objects import Track
from causeway.backoff import Backoff
from lab.hub import Origin, RoutedTrack
from lab.room_outputs import SubscriptionKey, TrackKey
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridges.internal.listener import InternalListener, Source
    from bridges.wire.frame import Feedback, MediaFrame
    from bridges.wire.objects import TrackKind
    from edge.rtp.track import Codec
    from lab.cluster import Cluster

__all__ = ["Guest", "Publication", "Subscription", "stream_format", "watch"]

_log: Final = structlog.get_logger(__name__)


def stream_format(codec: Codec) -> dict[str, Any]:
    """Return what a stream says of a track of this codec."""
    if codec.is_video:
        return {"codec": codec.value}
    return {"codec": codec.value, "sampleRate": codec.clock_rate, "channelNum": 2}


def watch(
    cluster: Cluster,
    part: str,
    *,
    room: str,
    stream: str,
    kinds: Iterable[TrackKind],
    on_frame: Callable[[TrackKind, MediaFrame], None],
) -> Subscription:
    """Subscribe to tracks of a stream for a part of the cluster that is nobody in the room.

    Raises RoomError as Room.subscribe_for.
    """
    key = SubscriptionKey(part, secrets.token_hex(10))
    wanted = list(kinds)
    cluster.rooms.act(room, lambda there: there.subscribe_for(part, key.id, stream, wanted))
    return Subscription(cluster, room, key, on_frame)


class Guest:
    """One who is in `room` as `participant` (Rooms.join has let them in), until `leave`."""

    def __init__(
        self, cluster: Cluster, listener: InternalListener, *, host: str, room: str, participant: str
    ) -> None:
        """Take the cluster; `listener`, which runs at `host`, serves what is published."""
        self.room = room
        self.participant = participant
        self._cluster = cluster
        self._listener = listener
        self._host = host
        self._publications: list[Publication] = []

    @property
    def present(self) -> bool:
        """Whether the room still has them: it may have been closed, or they were sent away."""
        running = self._cluster.rooms.get_running(self.room)
        return running is not None and any(
            one.id == self.participant for one in running.room.local_participants
        )

    def publish(
        self,
        codecs: Mapping[TrackKind, Codec],
        *,
        on_feedback: Callable[[TrackKind, Feedback], None] = lambda _kind, _feedback: None,
        on_subscribers: Callable[[TrackKind, int], None] = lambda _kind, _count: None,
    ) -> Publication:
        """Publish a stream with a track of each of these kinds.

        `on_feedback` is told what the cluster asks of a track, `on_subscribers` how many fetch it. Raises
        RoomError as Room.publish.
        """
        stream = secrets.token_hex(10)
        tracks = [
            Track(id=f"{kind}-{secrets.token_hex(16)}", type=kind, format=stream_format(codec))
            for kind, codec in codecs.items()
        ]
        self._cluster.rooms.act(
            self.room,
            lambda room: room.publish(self.participant, stream, tracks),
        )
        sources: dict[TrackKind, Source] = {}
        for track in tracks:
            kind = track.type
            subscribers = functools.partial(on_subscribers, kind)
            sources[kind] = self._listener.add_source(
                track.id,
                on_feedback=functools.partial(on_feedback, kind),
                on_joined=subscribers,
                on_left=subscribers,
            )
            routed = RoutedTrack(self.room, TrackKey(self._cluster.rooms.cluster, stream, kind))
            self._cluster.routing.set_origin(routed, Origin(self._host, self._listener.port, track.id))
        publication = Publication(self, stream, sources)
        self._publications.append(publication)
        return publication

    def unpublish(self, publication: Publication) -> None:
        """Take a stream back; one that is gone already is fine."""
        publication.close()
        with contextlib.suppress(ValueError):
            self._publications.remove(publication)
        with contextlib.suppress(RoomError):  # the room is closed, or they were sent away
            self._cluster.rooms.act(
                self.room, lambda room: room.unpublish(self.participant, publication.stream)
            )

    def subscribe(
        self,
        stream: str,
        kinds: Iterable[TrackKind],
        on_frame: Callable[[TrackKind, MediaFrame], None],
    ) -> Subscription:
        """Subscribe to tracks of a stream of any cluster; `run` of what is returned fetches them.

        Raises RoomError as Room.subscribe.
        """
        key = SubscriptionKey(self.participant, secrets.token_hex(10))
        wanted = list(kinds)
        self._cluster.rooms.act(
            self.room, lambda room: room.subscribe(self.participant, key.id, stream, wanted)
        )
        return Subscription(self._cluster, self.room, key, on_frame)

    def leave(self) -> None:
        """Leave the room, with everything; being out already is fine."""
        for publication in self._publications:
            publication.close()
        self._publications.clear()
        with contextlib.suppress(RoomError):
            self._cluster.rooms.act(self.room, lambda room: room.leave(self.participant))


class Publication:
    """A published stream: `write` its frames."""

    def __init__(self, guest: Guest, stream: str, sources: dict[TrackKind, Source]) -> None:
        self.guest = guest
        self.stream = stream
        self._sources = sources

    def write(self, kind: TrackKind, frame: MediaFrame) -> None:
        """Give a frame to whoever fetches the track of this kind; never blocks."""
        self._sources[kind].write(frame)

    def close(self) -> None:
        """Serve the tracks no more."""
        for source in self._sources.values():
            source.close()


class Subscription:
    """Tracks of one stream, fetched by `run` until they are gone, or `end`."""

    def __init__(
        self,
        cluster: Cluster,
        room: str,
        key: SubscriptionKey,
        on_frame: Callable[[TrackKind, MediaFrame], None],
    ) -> None:
        self._cluster = cluster
        self._room = room
        self._key = key
        self._on_frame = on_frame
        self._receivers: dict[TrackKind, InternalReceiver] = {}

    @property
    def alive(self) -> bool:
        """Whether the room still has it."""
        return bool(self._cluster.routing.sinks(self._room, self._key))

    def request_key_frame(self) -> None:
        """Ask for a key frame; without a connection nothing happens, for a new one begins with one."""
        if (receiver := self._receivers.get("video")) is not None:
            receiver.request_key_frame()

    async def run(self) -> None:
        """Fetch the tracks; returns when the subscription is over."""
        sinks = self._cluster.routing.sinks(self._room, self._key)
        async with asyncio.TaskGroup() as tasks:
            for kind, sink in dict(sinks).items():
                tasks.create_task(self._fetch(kind, sink), name=f"fetch-{kind}")

    def end(self) -> None:
        """End it; one that is over already is fine."""
        with contextlib.suppress(RoomError):
            # Right for a participant's, too: who asks is this process, whoever it is for.
            self._cluster.rooms.act(
                self._room, lambda room: room.unsubscribe_for(self._key.owner, self._key.id)
            )

    async def _fetch(self, kind: TrackKind, sink: str) -> None:
        backoff = Backoff(base=0.05, cap=1.0)
        while self.alive:
            try:
                await self._fetch_once(kind, sink)
            except InternalUnavailableError as error:
                _log.info("edge.track_unreachable", kind=kind, reason=str(error))
            if self.alive:
                await asyncio.sleep(backoff.next_delay())

    async def _fetch_once(self, kind: TrackKind, sink: str) -> None:
        """Fetch until the connection is lost. Raises InternalUnavailableError."""
        lost = asyncio.Event()
        settings = self._cluster.settings
        receiver = await InternalReceiver.connect(
            settings.host,
            self._cluster.hub.port,
            sink,
            on_frame=lambda frame: self._on_frame(kind, frame),
            on_lost=lambda _reason: lost.set(),
            settings=settings.internal,
        )
        self._receivers[kind] = receiver
        try:
            await lost.wait()
        finally:
            self._receivers.pop(kind, None)
            receiver.close()
