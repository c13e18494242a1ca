"""Those who are in a room of the Janus server, in the cluster's room: they join, publish and leave there.

An asyncio shell. It must not know how the server was asked, nor what it shows of other clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.wire.frame import FeedbackCommand
from edge.guest import Guest
from edge.janus.plan import grouped
from edge.janus.reception import Reception

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.internal.listener import InternalListener
    from bridges.wire.frame import Feedback, MediaFrame
    from bridges.wire.objects import TrackKind
    from edge.guest import Publication
    from edge.janus.admissions import Admitted
    from edge.janus.messages import RoomId
    from edge.janus.plan import Track
    from edge.janus.settings import JanusSettings
    from edge.rtp.settings import RtpSettings
    from lab.cluster import Cluster
    from lab.tasks import Tasks

__all__ = ["People", "Place"]

_PORTAL: Final = "janus"


class Place(NamedTuple):
    """Where the connector works."""

    cluster: Cluster
    listener: InternalListener
    """Serves what is published, at the cluster's host."""
    settings: JanusSettings
    rtp: RtpSettings
    tasks: Tasks

    @property
    def rtp_host(self) -> str:
        """Where RTP comes in."""
        return self.settings.rtp_host or self.cluster.settings.host


class _Inside:
    """One of them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.publications: dict[Track, Publication] = {}
        self.subscribers: dict[tuple[str, TrackKind], int] = {}
        self.reception: Reception | None = None


class People:
    """Everybody of one conference. `on_pulled` is called when it changes whose tracks are pulled."""

    def __init__(self, place: Place, conference: str, *, on_pulled: Callable[[], None]) -> None:
        self._place = place
        self._conference = conference
        self._on_pulled = on_pulled
        self._inside: dict[RoomId, _Inside] = {}

    def pulled(self) -> set[RoomId]:
        """Return of whom somebody wants a track."""
        return {id_ for id_, one in self._inside.items() if any(one.subscribers.values())}

    def who_is(self, participant: str) -> RoomId | None:
        """Return who is this participant of the cluster's room."""
        for id_, one in self._inside.items():
            if one.guest.participant == participant:
                return id_
        return None

    def join(self, id_: RoomId, who: Admitted) -> None:
        """Let somebody join the cluster's room. Raises RoomError."""
        cluster = self._place.cluster
        participant = cluster.rooms.join(self._conference, user=who.user, role=who.role, portal=_PORTAL)
        guest = Guest(
            cluster,
            self._place.listener,
            host=cluster.settings.host,
            room=self._conference,
            participant=participant,
        )
        self._inside[id_] = _Inside(guest)

    def leave(self, id_: RoomId) -> None:
        """Let them leave it, with everything; one who is not there any more is fine."""
        one = self._inside.pop(id_)  # first: the room tells of everybody who leaves, and this one is known
        self._stop(one)
        one.guest.leave()

    def publish(self, id_: RoomId, tracks: tuple[Track, ...]) -> None:
        """Publish tracks of theirs, as streams that other clusters understand. Raises RoomError."""
        one = self._inside[id_]
        try:
            for group in grouped(tracks):
                self._publish(one, group)
        except BaseException:
            self.unpublish(id_)
            raise

    def unpublish(self, id_: RoomId) -> None:
        """Take them all back."""
        one = self._inside[id_]
        self._stop(one)
        for publication in dict.fromkeys(one.publications.values()):
            one.guest.unpublish(publication)
        one.publications.clear()
        one.subscribers.clear()

    async def receive(self, id_: RoomId, *, peer: str) -> Reception:
        """Open ports for what the server sends of somebody from now on. Raises PortsTakenError."""
        one = self._inside[id_]

        def take(track: Track, frame: MediaFrame) -> None:
            if (publication := one.publications.get(track)) is not None:
                publication.write(track.kind, frame)

        one.reception = await Reception.open(
            tuple(one.publications),
            host=self._place.rtp_host,
            ports=self._place.settings.rtp_ports,
            peer=peer,
            settings=self._place.rtp,
            on_frame=take,
        )
        return one.reception

    def stop_receiving(self, id_: RoomId) -> None:
        """Close them."""
        if (one := self._inside.get(id_)) is not None:
            self._stop(one)

    def clear(self) -> None:
        """Let everybody leave."""
        for id_ in list(self._inside):
            self.leave(id_)

    def _publish(self, one: _Inside, group: tuple[Track, ...]) -> None:
        name = str(group[0].mindex)

        def asked(kind: TrackKind, feedback: Feedback) -> None:
            if (
                kind == "video"
                and feedback.command is FeedbackCommand.REQUEST_KEY_FRAME
                and one.reception is not None
            ):
                one.reception.request_key_frames()

        def counted(kind: TrackKind, count: int) -> None:
            one.subscribers[name, kind] = count
            self._on_pulled()

        publication = one.guest.publish(
            {track.kind: track.codec for track in group}, on_feedback=asked, on_subscribers=counted
        )
        for track in group:
            one.publications[track] = publication

    def _stop(self, one: _Inside) -> None:
        if one.reception is not None:
            one.reception.close()
            one.reception = None
