"""Media connections: those that we dial, kept up while they are wanted, and those that were let in.

One connection per peer cluster and room. It decides who is let in, which connection is the current one and
when to dial again; what tracks travel on them is not its business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from bridges.codes import CloseCode
from bridges.control.port import best_round_trips
from bridges.media.connection import MediaConnection
from bridges.media.figures import Figures, peer_figures
from bridges.node.admission import admitting_node
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.quic import ConnectionClosedError, DialError, dial
from bridges.wire.messages import ClusterHello
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from bridges.control.orders import LegState
    from bridges.control.port import PeerJudge
    from bridges.media.connection import StreamUser, TrackStream
    from bridges.media.figures import Moved
    from bridges.media.settings import MediaSettings
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode
    from bridges.quic import Connection, QuicSettings, RoundTrip
    from causeway.api.figures import LinkFigures, PeerFigures

__all__ = ["LinkUser", "Links"]

_log: Final = structlog.get_logger(__name__)

Key = tuple[str, str]
"""Peer cluster and room."""


class LinkUser(Protocol):
    """Who uses the connections."""

    def link_up(self, peer: str, room: str) -> None:
        """Take note that `Links.current(peer, room)` is a new connection."""

    def link_changed(self, peer: str, room: str, state: LegState, error: str) -> None:
        """Take note of how a link is now; told again when it is the same."""

    def wants_track(self, stream: TrackStream) -> StreamUser | None:
        """Return who serves a stream that a peer opened; None refuses it."""

    @property
    def expects(self) -> PeerJudge:
        """Who is asked about every peer whose token was right."""


class _Link:
    """The wish that a room be cascaded to a cluster."""

    def __init__(self, options: CascadingOptions, settings: MediaSettings) -> None:
        self.options = options
        self.connection: MediaConnection | None = None
        self.task: asyncio.Task[None] | None = None
        self.hurry = asyncio.Event()
        self.backoff = Backoff(base=settings.redial_base, cap=settings.redial_cap)
        self.connects = 0
        self.error = ""

    @property
    def key(self) -> Key:
        return self.options.target_cluster, self.options.room


class Links:
    """The media connections of one bridge. `spawn` starts a task that ends with the bridge, at the latest."""

    def __init__(
        self,
        *,
        cluster: str,
        node: ClusterNode,
        user: LinkUser,
        quic: QuicSettings,
        settings: MediaSettings,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._user = user
        self._quic = quic
        self._settings = settings
        self._spawn = spawn
        self._node_up = asyncio.Event()
        self._wanted: dict[Key, _Link] = {}
        self._accepted: dict[Key, MediaConnection] = {}
        self._unchecked: set[MediaConnection] = set()
        self.figures: Final = Figures(max_entries=settings.max_links)
        self.refused_tokens = 0
        """Connections that were closed because of their token."""

    # What the bridge asks.

    def current(self, peer: str, room: str) -> MediaConnection | None:
        """Return the connection that is up for `peer` and `room`, None when there is none."""
        link = self._wanted.get((peer, room))
        if link is not None and link.connection is not None and link.connection.up:
            return link.connection
        accepted = self._accepted.get((peer, room))
        return accepted if accepted is not None and accepted.up else None

    def want(self, options: CascadingOptions) -> None:
        """Keep a connection for these options up; one for other options of the same link is given up.

        Raises RpcError when there are too many.
        """
        key = (options.target_cluster, options.room)
        known = self._wanted.get(key)
        if known is not None and known.options == options:
            known.backoff.reset()
            known.hurry.set()
            return
        if known is None and len(self._wanted) >= self._settings.max_links:
            raise RpcError(f"there are {len(self._wanted)} links already")
        self._drop(key)
        link = self._wanted[key] = _Link(options, self._settings)
        link.task = self._spawn(self._keep(link))
        _log.info("media.link_wanted", peer=key[0], room=key[1], host=options.media_ip)

    def unwant(self, peer: str, room: str) -> None:
        """Want no connection that we dialled any more, if there is one."""
        if self._drop((peer, room)):
            _log.info("media.link_stopped", peer=peer, room=room)
            self._user.link_changed(peer, room, "gone", "called off")

    def round_trips(self) -> dict[str, RoundTrip]:
        """Return what is measured now, by cluster: the best of the connections to each."""
        return best_round_trips((one.peer, one.round_trip) for one in self._up())

    @property
    def node_is_up(self) -> bool:
        """Whether our cluster has the bridge as a worker."""
        return self._node_up.is_set()

    def room_gone(self, room: str) -> None:
        """Want no link of `room` any more and close its connections."""
        for key in [key for key in self._wanted if key[1] == room]:
            self._drop(key)
            self._user.link_changed(*key, "gone", "the room is gone")
        for connection in list(self._accepted.values()):
            if connection.room == room:
                connection.close("the room is gone", CloseCode.NOT_WANTED)

    def node_connected(self) -> None:
        """Dial what is wanted."""
        self._node_up.set()

    def node_lost(self) -> None:
        """Close every connection; wanted links are dialled again once the node is back."""
        self._node_up.clear()
        self.close_all("the connection to our cluster broke")

    def close_all(self, reason: str) -> None:
        """Close every connection."""
        dialled = [link.connection for link in self._wanted.values() if link.connection is not None]
        for connection in [*dialled, *self._accepted.values(), *self._unchecked]:
            connection.close(reason, CloseCode.NODE_LOST)

    def accept(self, quic: Connection) -> MediaConnection:
        """Return the handler of a connection that a peer has dialled."""
        connection = MediaConnection(quic, owner=self, hello=None, settings=self._settings)
        self._unchecked.add(connection)
        return connection

    def stats(self) -> list[dict[str, Any]]:
        """Return one entry per link, as getStats shows them."""
        dialled = [
            {
                "peer": link.options.target_cluster,
                "room": link.options.room,
                "role": "dialer",
                "state": "up" if link.connection is not None and link.connection.up else "down",
                "connects": link.connects,
                "error": link.error,
                **_carried(link.connection),
            }
            for link in self._wanted.values()
        ]
        accepted = [
            {
                "peer": peer,
                "room": room,
                "role": "listener",
                "state": "up",
                "connects": 1,
                "error": "",
                **_carried(connection),
            }
            for (peer, room), connection in self._accepted.items()
            if (peer, room) not in self._wanted
        ]
        return dialled + accepted

    def keys(self) -> list[Key]:
        """Return which links are wanted or there, in order."""
        return sorted(self._wanted.keys() | self._accepted.keys())

    def link_figures(self, keys: Iterable[Key], tracks: Mapping[Key, Sequence[Moved]]) -> list[LinkFigures]:
        """Return the figures of these links, but for those that are gone; `tracks` by peer and room."""
        found = []
        for key in keys:
            if key not in self._wanted and key not in self._accepted:
                continue
            link, current = self._wanted.get(key), self.current(*key)
            found.append(
                self.figures.link(
                    *key,
                    dials=link is not None and (current is None or current is link.connection),
                    current=current,
                    tracks=tracks.get(key, ()),
                    error="" if link is None or current is not None else link.error,
                )
            )
        return found

    def peer_figures(self) -> list[PeerFigures]:
        """Return the figures of the connections that are up, by peer."""
        return peer_figures(self._up())

    def _up(self) -> list[MediaConnection]:
        dialled = [link.connection for link in self._wanted.values() if link.connection is not None]
        return [one for one in (*dialled, *self._accepted.values()) if one.up]

    # What connections say.

    def said_hello(self, connection: MediaConnection, hello: ClusterHello) -> None:
        """Check a dialer's token."""
        if hello.cluster == self._cluster:
            connection.close("the peer poses as this very cluster", CloseCode.IDENTITY)
        else:
            self._spawn(self._check(connection, hello))

    def came_up(self, connection: MediaConnection) -> None:
        """Make the connection the current one of its peer and room."""
        key = (connection.peer, connection.room)
        if connection.role == "listener":
            self._unchecked.discard(connection)
            former = self._accepted.get(key)
            self._accepted[key] = connection
            if former is not None:
                former.close("superseded", CloseCode.SUPERSEDED)
        else:
            link = self._wanted.get(key)
            if link is None or link.connection is not connection:
                return
            link.connects += 1
            link.error = ""
        self.figures.came_up(*key)
        _log.info("media.link_up", peer=connection.peer, room=connection.room, role=connection.role)
        self._user.link_up(*key)
        self._tell(key)

    def refused(self, name: str) -> None:
        """Count what was given up through a peer's fault."""
        self.figures.counters.count(name)

    def wants_track(self, stream: TrackStream) -> StreamUser | None:
        """Return who serves a stream that the peer opened."""
        return self._user.wants_track(stream)

    def went_down(self, connection: MediaConnection, reason: str) -> None:
        """Forget a connection."""
        self._unchecked.discard(connection)
        key = (connection.peer, connection.room)
        if self._accepted.get(key) is connection:
            del self._accepted[key]
        link = self._wanted.get(key)
        if link is not None and link.connection is connection:
            link.error = reason
        _log.info("media.link_down", peer=key[0], room=key[1], role=connection.role, reason=reason)
        if connection.room:
            self.figures.connection_ended(*key, connection.carried())
            if self.current(*key) is None:
                self.figures.went_down(*key, reason)
            self._tell(key, reason)

    async def _check(self, connection: MediaConnection, hello: ClusterHello) -> None:
        try:
            node_id = await admitting_node(self._node, hello.room, hello.token)
        except RpcError:
            self._refuse(connection, "there is no such room")
        except NodeUnreachableError as error:
            connection.close(f"the token cannot be checked: {error.code}", CloseCode.NODE_LOST)
        else:
            if node_id is None:
                self._refuse(connection, "wrong token")
            elif not self._user.expects(connection.peer, connection.room):
                _log.warning("media.unexpected", peer=connection.peer, room=connection.room)
                connection.close("control knows of no such link", CloseCode.IDENTITY)
            elif await self._is_held(connection):
                _log.warning("media.claimed", peer=connection.peer, room=connection.room)
                connection.close("a cluster of this name is connected already", CloseCode.IDENTITY)
            else:
                connection.accept()

    async def _is_held(self, newcomer: MediaConnection) -> bool:
        """Return whether the place of a newcomer belongs to a connection of the same name that lives."""
        holder = self._accepted.get((newcomer.peer, newcomer.room))
        return holder is not None and await holder.quic.answers() and holder.up

    def _refuse(self, connection: MediaConnection, reason: str) -> None:
        if not connection.closed:
            self.refused_tokens += 1
            _log.warning("media.link_refused", peer=connection.peer, room=connection.room, reason=reason)
            connection.close("refused", CloseCode.TOKEN_REFUSED)

    # Dialling

    def _drop(self, key: Key) -> bool:
        """Cancel a link; return whether there was one."""
        link = self._wanted.pop(key, None)
        if link is not None and link.task is not None:
            link.task.cancel()
        return link is not None

    def _tell(self, key: Key, error: str = "") -> None:
        up = self.current(*key) is not None
        self._user.link_changed(*key, "up" if up else "down", "" if up else error)

    async def _keep(self, link: _Link) -> None:
        """Keep a link up until cancelled, or until our own cluster says that the room is gone."""
        try:
            while True:
                await self._node_up.wait()
                other = self._accepted.get(link.key)
                if other is not None:
                    # The peer dialled us for the same conference: one connection is enough.
                    await other.wait_closed()
                    continue
                try:
                    await self._hold(link)
                except RpcError as error:
                    link.error = str(error)
                    _log.info("media.room_gone", peer=link.key[0], room=link.key[1], error=link.error)
                    return
                except (DialError, NodeUnreachableError, ConnectionClosedError) as error:
                    link.error = str(error)
                    _log.info("media.dial_failed", peer=link.key[0], room=link.key[1], error=link.error)
                    self._tell(link.key, link.error)
                await self._pause(link)
        finally:
            if self._wanted.get(link.key) is link:
                del self._wanted[link.key]
                self._user.link_changed(*link.key, "gone", link.error)

    async def _hold(self, link: _Link) -> None:
        """Dial and wait for the connection's end. Raises DialError, RpcError, NodeUnreachableError."""
        options = link.options
        await self._node.find_conference_node(options.room)
        assert options.media_ip is not None
        assert options.media_port is not None
        quic = await dial(
            options.media_ip,
            options.media_port,
            fingerprint=options.media_fingerprint,
            count=self.figures.counters.count,
            settings=self._quic,
        )
        began = asyncio.get_running_loop().time()
        connection = MediaConnection(
            quic,
            owner=self,
            hello=ClusterHello(room=options.room, token=options.token, cluster=options.self_cluster),
            peer=options.target_cluster,
            settings=self._settings,
        )
        quic.handler = connection
        link.connection = connection
        try:
            connection.begin()
            await connection.wait_closed()
        finally:
            connection.close("the link is not wanted any more", CloseCode.NOT_WANTED)
            link.connection = None
        if asyncio.get_running_loop().time() - began >= self._settings.stable_after:
            link.backoff.reset()

    async def _pause(self, link: _Link) -> None:
        link.hurry.clear()
        try:
            async with asyncio.timeout(link.backoff.next_delay()):
                await link.hurry.wait()
        except TimeoutError:
            return


def _carried(connection: MediaConnection | None) -> dict[str, Any]:
    """Return what a connection speaks, and what became of its datagrams."""
    if connection is None or not connection.up:
        return {"wire": ""}
    return {"wire": connection.wire, **connection.carried()._asdict()}
