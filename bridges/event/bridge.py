"""The event bridge: conference events between this cluster's nodes and other clusters' event bridges.

A worker of its cluster (RpcService): the cluster orders links and gives events; the bridge dials, listens,
checks the tokens of those who dial, and keeps what is wanted up. Which wire is spoken the two ends of a
connection agree on: OWT's, of which this module knows, or our own (bridges.event.own.wire). Composition and
decisions; the parts are in this package's other modules.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridges.codes import CloseCode, name_of
from bridges.control.port import best_round_trips, everybody_is_expected, nobody_watches
from bridges.event.calls import Notify, parse_broadcast, parse_destroyed, parse_notify
from bridges.event.claims import gives_way
from bridges.event.delivery import Delivery
from bridges.event.figures import Figures, peer_figures
from bridges.event.links import Link
from bridges.event.own.wire import OwnWire
from bridges.event.pool import Dialler
from bridges.event.session import EventSession, Role
from bridges.event.streams import PeerConnection
from bridges.event.wanted import WantedLinks
from bridges.figures import BridgeFigures, Tallies, everything
from bridges.node.admission import admitting_node
from bridges.node.cascading import parse_cascading, parse_stop
from bridges.node.port import NodeUnreachableError, RpcError, runs_on
from bridges.quic import listen
from bridges.quic.settings import OWN_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from bridges.control.orders import Ways
    from bridges.control.port import LegWatcher, PeerJudge
    from bridges.event.calls import Broadcast
    from bridges.event.figures import Standing
    from bridges.event.own.channel import OwnChannel
    from bridges.event.own.link import OwnConnection
    from bridges.event.streams import EventStream
    from bridges.figures import LinkFigures, LinkKey
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode
    from bridges.quic import Certificate, Connection, Listener, RoundTrip
    from bridges.settings import BridgeSettings
    from bridges.wire.messages import Event

__all__ = ["EventBridge"]

log = structlog.get_logger(__name__)

_OK: Final = "ok"


class EventBridge:
    """One cluster's event bridge. `start`, then `run` until cancelled."""

    def __init__(self, node: ClusterNode, settings: BridgeSettings, certificate: Certificate) -> None:
        self._node = node
        self._settings = settings
        self._limits = settings.event
        self._certificate = certificate
        self._listener: Listener | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._node_up = asyncio.Event()
        self._links = WantedLinks(
            spawn=self._spawn, gone=lambda peer, room, why: self.on_leg(peer, room, "gone", why)
        )
        tallies = Tallies(max_entries=settings.event.max_links)
        self._figures = Figures(tallies)
        self._own = OwnWire(node, settings, self, tallies)
        self._dialler = Dialler(
            self, self._own, settings.event, settings.quic, count=self._figures.counters.count
        )
        self._delivery = Delivery(
            node,
            settings.event,
            spawn=self._spawn,
            room_gone=self.room_gone,
            dropped=self._figures.dropped,
        )
        self._checks = 0
        self._refused_tokens = 0
        self.on_leg: LegWatcher = nobody_watches
        self.expects: PeerJudge = everybody_is_expected

    @property
    def port(self) -> int:
        """The UDP port that other clusters' event bridges dial; known once started."""
        assert self._listener is not None
        return self._listener.port

    @property
    def fingerprint(self) -> str:
        """Of the certificate that other clusters' bridges are shown."""
        return self._certificate.fingerprint

    def show(self, certificate: Certificate) -> None:
        """Show other clusters' bridges another certificate from now on; connections stay."""
        self._certificate = certificate
        if self._listener is not None:
            self._listener.show(certificate)

    async def start(self) -> None:
        """Listen. Raises UnavailableError when the address is taken."""
        self._listener = await listen(
            self._settings.host,
            self._settings.event_port,
            certificate=self._certificate,
            on_connection=self._accept,
            settings=self._settings.quic,
            count=self._figures.counters.count,
        )
        log.info("event.listening", host=self._settings.host, port=self.port)

    async def run(self) -> None:
        """Work until cancelled; then end streams, close connections, stop listening."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                self._end_all("the bridge stops")
                self._own.close("the bridge stops")
                if self._listener is not None:
                    self._listener.close()

    # --- RpcService: the cluster calls ----------------------------------------------------------

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call of the cluster; raises RpcError."""
        match method, args:
            case "getInfo", []:
                return {
                    "id": self._node.worker_id,
                    "ip": self._settings.public_host,
                    "port": self.port,
                    "fingerprint": self._certificate.fingerprint,
                }
            case "getStats", []:
                return self._stats()
        self._order(method, args)
        return _OK

    def _order(self, method: str, args: list[Any]) -> None:
        """Do what the cluster orders; raises RpcError."""
        match method, args:
            case "startCascading", _:
                self.start_cascading(parse_cascading(args))
            case "stopCascading", _:
                stop = parse_stop(args)
                self.stop_cascading(stop.target_cluster, stop.room)
            case "notify", _:
                self._notify(parse_notify(args))
            case "broadcast", _:
                self._broadcast(parse_broadcast(args))
            case "destroyRoom", _:
                self.room_gone(parse_destroyed(args))
            case "drop", [str(), *_]:
                pass  # A participant of another cluster: no wire between clusters has a word for it.
            case _:
                raise RpcError(f"no such method, or not with these arguments: {method!r}")

    def node_connected(self) -> None:
        """Bring the wanted links up."""
        self._delivery.node_connected()
        self._node_up.set()
        self._own.node_connected()

    def node_lost(self) -> None:
        """End all streams: the peers then remove what came from us, as our nodes did with what was theirs."""
        self._end_all("the connection to our cluster broke")

    def conference_lost(self, gone: str) -> None:
        """End the streams of a conference node that is gone, without a word to it."""
        self._own.conference_lost(gone)
        for stream in self._delivery.table.sessions():
            if runs_on(stream.node, gone):
                self._delivery.forget(stream)
                stream.give_up(CloseCode.NODE_LOST, "the conference node is gone")

    # --- StreamOwner: the streams report --------------------------------------------------------

    def token_presented(self, stream: EventStream, room: str, token: str) -> None:
        """Check a dialer's token with the conference node of the room, for every conference anew."""
        if self._checks >= self._limits.max_checks or len(self._delivery.table) >= self._limits.max_links:
            stream.refuse(CloseCode.BUSY, "too much at once")
        elif stream.peer == self._settings.cluster:
            stream.refuse(CloseCode.IDENTITY, "the peer poses as this very cluster")
        else:
            self._checks += 1
            self._spawn(self._check(stream, room, token))

    def stream_opened(self, stream: EventStream) -> None:
        """Announce the stream to its conference node, which answers with `initialize` for the peer."""
        log.info("link.open", peer=stream.peer, room=stream.room, role=stream.role.name.lower())
        self._delivery.begin(stream)

    def event_received(self, stream: EventStream, event: Event) -> None:
        """Hand an event of the peer to our conference node."""
        self._delivery.event(stream, event)

    def stream_ended(self, stream: EventStream, reason: str) -> None:
        """Tell our conference node that the peer is gone."""
        if not stream.room or not stream.node:
            return
        log.info("link.ended", peer=stream.peer, room=stream.room, reason=reason)
        self._figures.ended(stream, reason)
        self._delivery.end(stream)
        self._tell(stream.peer, stream.room, reason)

    def refused(self, name: str) -> None:
        """Count what was given up through a peer's fault."""
        self._figures.counters.count(name)

    # --- WireOwner: our own wire reports --------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the bridge, at the latest."""
        return self._spawn(work)

    async def node_up(self) -> None:
        """Wait until our cluster is connected."""
        await self._node_up.wait()

    def link_changed(self, peer: str, room: str, error: str) -> None:
        """Tell the watcher how a link is now."""
        self._tell(peer, room, error)

    def room_gone(self, room: str) -> None:
        """Want no link of a room any more that our cluster says is not there, and end its streams."""
        self._links.room_gone(room)
        for stream in self._delivery.table.sessions():
            if stream.room == room:
                stream.give_up(CloseCode.NOT_WANTED, "the room is gone")
        self._own.end_room(room)
        self._figures.forget(room)

    async def gives_way(self, peer: str, room: str) -> bool:
        """Return whether a newcomer on our own wire may have what is this cluster's on OWT's."""
        return await gives_way(self._delivery.table.current(peer, room), None)

    def token_refused(self) -> None:
        """Count a wrong token."""
        self._refused_tokens += 1
        self._figures.counters.count(name_of(CloseCode.TOKEN_REFUSED))

    # --- inside: listening ----------------------------------------------------------------------

    def _accept(self, connection: Connection) -> PeerConnection | OwnConnection:
        if connection.protocol == OWN_PROTOCOL:
            return self._own.take(connection, None)
        return PeerConnection(
            connection, self, settings=self._limits, make_session=self._make_listener_session
        )

    def _make_listener_session(self) -> EventSession | None:
        if not self._node_up.is_set():
            return None  # nobody here could check a token
        return EventSession.listener(
            max_event_bytes=self._limits.max_event_bytes,
            max_hello_bytes=self._limits.max_hello_bytes,
            max_unchecked_bytes=self._limits.max_unchecked_bytes,
        )

    async def _check(self, stream: EventStream, room: str, token: str) -> None:
        try:
            node = await admitting_node(self._node, room, token)
        except RpcError:
            self._refuse(stream, room, "there is no such room")
        except NodeUnreachableError as error:
            if not stream.ended:
                stream.refuse(CloseCode.NODE_LOST, f"the token cannot be checked: {error}")
        else:
            if stream.ended:
                return
            if node is None:
                self._refuse(stream, room, "wrong token")
            else:
                await self._let_in(stream, room, node)
        finally:
            self._checks -= 1

    async def _let_in(self, stream: EventStream, room: str, node: str) -> None:
        """Open a stream whose token was right, unless its name is somebody else's, or nobody's."""
        if not self.expects(stream.peer, room):
            log.warning("link.unexpected", peer=stream.peer, room=room, remote=stream.connection.remote)
            stream.refuse(CloseCode.IDENTITY, "control knows of no such link")
            return
        free = await gives_way(
            self._delivery.table.current(stream.peer, room), stream.connection
        ) and await self._own.gives_way(stream.peer, room)
        if stream.ended:
            return
        if free:
            stream.accept(room, node)
        else:
            log.warning("link.claimed", peer=stream.peer, room=room, remote=stream.connection.remote)
            stream.refuse(CloseCode.IDENTITY, "a cluster of this name is connected already")

    def _refuse(self, stream: EventStream, room: str, reason: str) -> None:
        if not stream.ended:
            self._refused_tokens += 1
            log.warning("link.refused", peer=stream.peer, room=room, reason=reason)
            stream.refuse(CloseCode.TOKEN_REFUSED, reason)

    # --- orders: of our cluster, or of control ----------------------------------------------------

    def start_cascading(self, options: CascadingOptions) -> None:
        """Connect a room to another cluster and keep it so; see Cascader."""
        if options.self_cluster != self._settings.cluster:
            raise RpcError(f"selfCluster: this bridge belongs to {self._settings.cluster!r}")
        if options.target_cluster == options.self_cluster:
            raise RpcError("targetCluster: a cluster does not cascade with itself")
        if options.ev_ip is None or options.ev_port is None:
            raise RpcError("evIP, evPort: needed by the event bridge")
        if options.ev_fingerprint is None and not self._settings.quic.takes_unnamed:
            raise RpcError("evFingerprint: needed, as this bridge only trusts certificates that it knows")
        key = (options.target_cluster, options.room)
        known = self._links.find(*key)
        if known is not None and known.options == options:
            known.hurry()
            return
        if known is None and len(self._links) >= self._limits.max_links:
            raise RpcError(f"there are {len(self._links)} links already")
        link = Link(
            options,
            self._node,
            self._dialler,
            self._own,
            self._limits,
            current=self._current,
            node_up=self._node_up.wait,
            failed=lambda: self._tell(*key, link.error),
        )
        self._links.want(*key, link)
        log.info("link.wanted", peer=options.target_cluster, room=options.room, host=options.ev_ip)

    def stop_cascading(self, peer: str, room: str) -> None:
        """Want no link that we dialled any more; see Cascader."""
        if self._links.drop(peer, room):
            log.info("link.stopped", peer=peer, room=room)
            self.on_leg(peer, room, "gone", "called off")

    def set_relays(self, room: str, ways: Ways) -> None:
        """Pass on what comes over the links to these peers; see Cascader. OWT's wire cannot."""
        self._own.set_relays(room, ways)

    def round_trips(self) -> dict[str, RoundTrip]:
        """Return what is measured now, by cluster; see Cascader."""
        owt = ((s.peer, s.round_trip) for s in self._delivery.table.sessions())
        return best_round_trips([*owt, *self._own.round_trips().items()])

    def _current(self, peer: str, room: str) -> EventStream | OwnChannel | None:
        """Return what carries a room to a peer, on whichever wire."""
        return self._delivery.table.current(peer, room) or self._own.current(peer, room)

    # --- inside: events of our nodes ------------------------------------------------------------

    def _notify(self, notify: Notify | None) -> None:
        """Send a node's event on: `initialize` to the one stream that it names, others to all of its."""
        if notify is None:
            return
        for stream in self._delivery.streams_of(notify.node):
            if notify.stream is None:
                if stream.initialized:
                    stream.send(notify.event)
            elif notify.stream == (stream.session, stream.stream):
                stream.send_initialize(notify.event)
                self._figures.initialized(stream)
                self._tell(stream.peer, stream.room)
        self._own.notify(notify)

    def _broadcast(self, broadcast: Broadcast | None) -> None:
        """Send a node's event on to all of its streams but those of the clusters that are excluded."""
        if broadcast is None:
            return
        for stream in self._delivery.streams_of(broadcast.node):
            if stream.initialized and stream.peer not in broadcast.excluded:
                stream.send(broadcast.event)
        # Our wire's log is one for all peers: who was to be left out hears it, too.
        self._own.notify(Notify(broadcast.node, broadcast.event, None))

    # --- inside: figures ------------------------------------------------------------------------

    def _tell(self, peer: str, room: str, error: str = "") -> None:
        """Tell the watcher how a link is now: up once the peer has got our node's state."""
        current = self._delivery.table.current(peer, room)
        own = self._own.current(peer, room)
        up = current is not None and current.initialized and not current.ended
        up = up or (own is not None and own.up)
        self.on_leg(peer, room, "up" if up else "down", "" if up else error)

    def overview(self) -> BridgeFigures:
        """Return everything but the links; see bridges.figures.Source."""
        counters = (
            self._figures.counters.snapshot()
            | self._own.counters
            | self._node.counters
            | {
                "overflows": self._delivery.overflows,
                "rejected_events": self._delivery.rejected + self._own.rejected,
            }
        )
        return BridgeFigures(
            kind="event",
            port=0 if self._listener is None else self.port,
            node_connected=self._node_up.is_set(),
            peers=peer_figures(self._delivery.table.sessions()) + self._own.peer_figures(),
            counters={name: count for name, count in counters.items() if count},
        )

    def link_keys(self) -> list[LinkKey]:
        """Return which links are wanted or there; see bridges.figures.Source."""
        sessions = {(each.peer, each.room) for each in self._delivery.table.sessions()}
        return sorted(self._links.keys | sessions | self._own.keys())

    def link_figures(self, keys: Sequence[LinkKey]) -> list[LinkFigures]:
        """Return the figures of these links; see bridges.figures.Source."""
        found = []
        for key in keys:
            own, standing = self._own.link_figures(*key), self._standing(key)
            if own is not None:
                found.append(own)
            elif self._links.find(*key) is not None or standing["current"] is not None:
                found.append(self._figures.link(*key, **standing, lag=self._delivery.lag(*key)))
        return found

    def figures(self) -> BridgeFigures:
        """Return everything that is known at this moment."""
        return everything(self)

    def _standing(self, key: LinkKey) -> Standing:
        """Return how a link on OWT's wire, or on none, is."""
        current = self._delivery.table.current(*key)
        link = self._links.find(*key)
        return {
            "dials": link is not None and (current is None or current.role is Role.DIALER),
            "current": current,
            "error": link.error if link is not None and current is None else "",
        }

    def _stats(self) -> dict[str, Any]:
        own = self._own.keys()
        return {
            "links": [
                self._figures.describe(*key, **self._standing(key))
                for key in self.link_keys()
                if key not in own
            ]
            + self._own.describe(),
            "connections_dialled": len(self._dialler),
            "connections_accepted": 0 if self._listener is None else self._listener.connections,
            "refused_tokens": self._refused_tokens,
            "overflows": self._delivery.overflows,
            "rejected_events": self._delivery.rejected + self._own.rejected,
        }

    # --- inside: all of it ----------------------------------------------------------------------

    def _end_all(self, reason: str) -> None:
        """End the streams without a word to our nodes, which know already or do not listen."""
        self._node_up.clear()
        self._delivery.node_lost()
        self._own.node_lost()
        for stream in self._delivery.table.sessions():
            stream.give_up(CloseCode.NODE_LOST, reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise RpcError("the bridge is not running")
        return self._tasks.create_task(work)
