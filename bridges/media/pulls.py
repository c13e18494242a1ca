"""The tracks that come from other clusters: each pulled once, whoever wants it.

Who wants tracks are sessions of our own cluster (`publish`), which fetch them from the internal listener, and
neighbours that a track is passed on to. The last who leaves ends the pull.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from bridges.internal.listener import DuplicateSourceError
from bridges.media.pull import PulledTrack
from bridges.node.port import RpcError
from bridges.wire.frame import Feedback
from bridges.wire.objects import TrackRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bridges.internal.listener import InternalListener
    from bridges.media.connection import MediaConnection
    from bridges.media.pieces import Piece
    from bridges.media.pull import Output
    from bridges.media.settings import MediaSettings
    from bridges.media.ways import Routes
    from bridges.wire.objects import TrackKind

__all__ = ["Listening", "Pulls", "TrackOfOrigin"]


class TrackOfOrigin(NamedTuple):
    """A track, wherever it is pulled from: `stream` is its id in `origin`."""

    room: str
    origin: str
    stream: str
    kind: TrackKind


class Listening:
    """A neighbour's part in a pulled track: gets its frames, and asks of its source."""

    dropped = 0
    """What the neighbour does not take in time is dropped, and counted, on the way to it;"""
    backlog = 0
    """what waits for it, likewise."""

    def __init__(self, on_piece: Callable[[Piece], None], on_closed: Callable[[Listening], None]) -> None:
        self._pull: PulledTrack | None = None
        self._on_piece = on_piece
        self._on_closed = on_closed

    def begin(self, pull: PulledTrack) -> None:
        """Take what `pull` brings."""
        self._pull = pull
        pull.add_output(self)

    def write(self, piece: Piece) -> None:
        """Take what has come."""
        self._on_piece(piece)

    def send(self, feedback: Feedback) -> None:
        """Pass on what the neighbour says to the source."""
        if self._pull is not None:
            self._pull.asked(feedback, self)

    def request_key_frame(self) -> None:
        """Ask the source for a key frame."""
        self.send(Feedback.request_key_frame())

    def close(self) -> None:
        """Want the track no more."""
        if self._pull is not None:
            self._pull = None
            self._on_closed(self)


class _Served:
    """An internal source of our own cluster: what an agent fetches is the frame alone."""

    def __init__(self, listener: InternalListener, source_id: str, pull: PulledTrack) -> None:
        """Serve what `pull` brings. Raises DuplicateSourceError."""
        self._source = listener.add_source(source_id, on_feedback=lambda asked: pull.asked(asked, self))

    @property
    def dropped(self) -> int:
        """Frames that agents did not take in time."""
        return self._source.dropped

    @property
    def backlog(self) -> int:
        """Bytes that agents have not taken yet."""
        return self._source.backlog

    def write(self, piece: Piece) -> None:
        """Take what has come."""
        self._source.write(piece.frame)

    def close(self) -> None:
        """Serve nothing more."""
        self._source.close()


class _Wanted(NamedTuple):
    key: TrackOfOrigin
    output: Output


class Pulls:
    """Every pulled track of one bridge, found by what it is. `ended` hears of each that is pulled no more."""

    def __init__(
        self,
        *,
        cluster: str,
        routes: Routes,
        current: Callable[[str, str], MediaConnection | None],
        ended: Callable[[PulledTrack], None],
        settings: MediaSettings,
    ) -> None:
        """Pull over the connection that `current` returns for a peer and a room, if there is one."""
        self._cluster = cluster
        self._routes = routes
        self._current = current
        self._ended = ended
        self._settings = settings
        self._pulls: dict[TrackOfOrigin, PulledTrack] = {}
        self._sessions: dict[str, list[_Wanted]] = {}
        self._count = 0

    def __iter__(self) -> Iterator[PulledTrack]:
        return iter(list(self._pulls.values()))

    @property
    def sessions(self) -> list[str]:
        """The sessions of our own cluster that have tracks."""
        return list(self._sessions)

    # --- who wants tracks -------------------------------------------------------------------------

    def publish(
        self,
        session: str,
        *,
        origin: str,
        room: str,
        origin_type: str,
        requests: Sequence[TrackRequest],
        listener: InternalListener,
    ) -> None:
        """Have tracks for a session of our own cluster, each served by its request's id. Raises RpcError."""
        if session in self._sessions:
            raise RpcError(f"publish: there is already a session {session}")
        if self._count + len(requests) > self._settings.max_tracks:
            raise RpcError(f"publish: {self._count} tracks are pulled already")
        wanted: list[_Wanted] = []
        try:
            for request in requests:
                key = TrackOfOrigin(room, origin, request.from_, request.type)
                pull = self._pull(key, request, session=session, origin_type=origin_type, hops=())
                served = _Served(listener, request.id, pull)
                pull.add_output(served)
                wanted.append(_Wanted(key, served))
        except DuplicateSourceError as error:
            self._leave(wanted)
            self._end_idle()
            raise RpcError(f"publish: {error}") from None
        self._sessions[session] = wanted
        self._count += len(wanted)
        for key in {each.key for each in wanted}:
            self._pulls[key].attach()

    def unpublish(self, session: str) -> None:
        """Want the session's tracks no more. Raises RpcError if there is no such session."""
        wanted = self._sessions.pop(session, None)
        if wanted is None:
            raise RpcError(f"unpublish: there is no session {session}")
        self._count -= len(wanted)
        self._leave(wanted)
        self._end_idle(each.key for each in wanted)

    def listen(
        self, key: TrackOfOrigin, *, hops: Sequence[str], on_piece: Callable[[Piece], None]
    ) -> Listening:
        """Have a track for a neighbour, whose request has come by the clusters `hops`."""

        def closed(listening: Listening) -> None:
            self._leave([_Wanted(key, listening)])
            self._end_idle([key])

        request = TrackRequest(id=secrets.token_hex(10), type=key.kind, from_=key.stream)
        pull = self._pull(key, request, session=secrets.token_hex(10), origin_type="webrtc", hops=hops)
        listening = Listening(on_piece, closed)
        listening.begin(pull)
        pull.attach()
        return listening

    # --- what changes around them -----------------------------------------------------------------

    def link_up(self, peer: str, room: str) -> None:
        """Pull what is to come over this link."""
        for pull in self:
            if pull.room == room and self._routes.next_hop(room, pull.peer) == peer:
                pull.attach()

    def reroute(self, room: str) -> None:
        """Pull what comes another way now over that way, as soon as there is a connection."""
        for pull in self:
            if pull.room == room:
                pull.attach()

    def room_gone(self, room: str) -> None:
        """Want nothing of the room any more."""
        for session, wanted in list(self._sessions.items()):
            if wanted and wanted[0].key.room == room:
                self.unpublish(session)

    def unpublish_all(self) -> None:
        """Want nothing any more; what neighbours have is theirs to leave."""
        for session in self.sessions:
            self.unpublish(session)

    # --- inside -----------------------------------------------------------------------------------

    def _pull(
        self,
        key: TrackOfOrigin,
        request: TrackRequest,
        *,
        session: str,
        origin_type: str,
        hops: Sequence[str],
    ) -> PulledTrack:
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = PulledTrack(
                request,
                cluster=self._cluster,
                peer=key.origin,
                room=key.room,
                session=session,
                origin_type=origin_type,
                hops=hops,
                connection=lambda: self._current(self._routes.next_hop(key.room, key.origin), key.room),
                settings=self._settings,
            )
        return pull

    def _leave(self, wanted: Iterable[_Wanted]) -> None:
        for each in wanted:
            pull = self._pulls.get(each.key)
            if pull is not None:
                pull.remove_output(each.output)

    def _end_idle(self, keys: Iterable[TrackOfOrigin] | None = None) -> None:
        """End the pulls that nobody wants, of these or of all."""
        for key in set(self._pulls if keys is None else keys):
            pull = self._pulls.get(key)
            if pull is not None and pull.idle:
                del self._pulls[key]
                pull.close()
                self._ended(pull)
