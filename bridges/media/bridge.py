"""The media bridge: frames between this cluster's agents and other clusters' media bridges.

A worker of its cluster (RpcService). The cluster orders links, asks for tracks of other clusters (`publish`)
and says where its own tracks are to be had (`linkup`). Composition and decisions; the parts are in this
package's other modules.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import structlog
from msgspec import Meta

from bridges.codes import CloseCode
from bridges.control.port import everybody_is_expected, nobody_watches
from bridges.figures import BridgeFigures, everything
from bridges.internal.listener import InternalListener
from bridges.media.links import Links
from bridges.media.pull import PulledTrack
from bridges.media.pulls import Pulls, TrackOfOrigin
from bridges.media.push import LinkAddress, PushedTrack
from bridges.media.ways import Routes
from bridges.node.cascading import parse_cascading, parse_stop
from bridges.node.port import RpcError, runs_on
from bridges.quic import listen
from bridges.wire.objects import Id, TrackRequest
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from bridges.control.orders import LegState, Ways
    from bridges.control.port import LegWatcher, PeerJudge
    from bridges.figures import LinkFigures, LinkKey
    from bridges.media.connection import TrackStream
    from bridges.media.figures import Moved
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode
    from bridges.quic import Certificate, Listener, RoundTrip
    from bridges.settings import BridgeSettings

__all__ = ["MediaBridge"]

_log: Final = structlog.get_logger(__name__)

_OK: Final = "ok"

T = TypeVar("T")


class _Publish(msgspec.Struct, kw_only=True, rename="camel"):
    """The third argument of `publish`: tracks of the cluster `cluster`, wanted here."""

    cluster: Id
    room: Id
    pub_args: Annotated[list[TrackRequest], Meta(min_length=1, max_length=16)]
    origin_type: str = "webrtc"
    controller: str = ""
    """The conference node that asks, as far as it says so."""


class _Linkup(msgspec.Struct):
    """The second argument of `linkup`."""

    audio: LinkAddress | None = None
    video: LinkAddress | None = None


class MediaBridge:
    """One cluster's media bridge. `start`, then `run` until cancelled."""

    def __init__(self, node: ClusterNode, settings: BridgeSettings, certificate: Certificate) -> None:
        self._node = node
        self._settings = settings
        self._limits = settings.media
        self._certificate = certificate
        self._listener: Listener | None = None
        self._internal: InternalListener | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._links = Links(
            cluster=settings.cluster,
            node=node,
            user=self,
            quic=settings.quic,
            settings=settings.media,
            spawn=self._spawn,
        )
        self._routes = Routes(settings.cluster)
        self._pulls = Pulls(
            cluster=settings.cluster,
            routes=self._routes,
            current=self._links.current,
            ended=self._pull_ended,
            settings=settings.media,
        )
        self._askers: dict[str, str] = {}
        """By session: the conference node that asked for it."""
        self._pushed: dict[str, PushedTrack] = {}
        self.on_leg: LegWatcher = nobody_watches
        self.expects: PeerJudge = everybody_is_expected

    @property
    def port(self) -> int:
        """The UDP port that other clusters' media bridges dial; known once started."""
        assert self._listener is not None
        return self._listener.port

    @property
    def internal_port(self) -> int:
        """The TCP port at which this cluster's agents get the tracks that were pulled."""
        assert self._internal is not None
        return self._internal.port

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
        """Listen. Raises UnavailableError when an address is taken."""
        host = self._settings.host
        self._internal = await self._listen_internally()
        try:
            self._listener = await listen(
                host,
                self._settings.media_port,
                certificate=self._certificate,
                on_connection=self._links.accept,
                settings=self._settings.quic,
                count=self._links.figures.counters.count,
            )
        except BaseException:
            await self._internal.close()
            raise
        _log.info("media.listening", host=host, port=self.port, internal_port=self.internal_port)

    async def _listen_internally(self) -> InternalListener:
        host, limits, reason = self._internal_host, self._limits, ""
        lowest = limits.internal_min_port
        for port in range(lowest, max(lowest, limits.internal_max_port) + 1):
            try:
                return await InternalListener.start(host, port, settings=limits.internal)
            except OSError as error:
                reason = error.strerror or str(error)
        raise UnavailableError(f"cannot listen on {host} (TCP): {reason}; choose another address or port")

    @property
    def _internal_host(self) -> str:
        return self._limits.internal_host or self._settings.host

    async def run(self) -> None:
        """Work until cancelled; then end tracks, close connections, stop listening."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._unpublish_all()
            self._links.close_all("the bridge stops")
            if self._listener is not None:
                self._listener.close()
            if self._internal is not None:
                await self._internal.close()

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
            case "getInternalAddress", []:
                return {"ip": self._internal_host, "port": self.internal_port}
            case "getNode", [_]:
                return self._node.node_id
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
            case "destroyRoom", [str(room)]:
                self._room_gone(room)
            case "publish", [str(session), "mediabridge", options]:
                self._publish(session, _read("publish", options, _Publish))
            case "unpublish", [str(session)]:
                self._unpublish(session)
            case "subscribe", [str(connection_id), *_]:
                self._pushed_track(connection_id)
            case "linkup", [str(connection_id), origin]:
                self._linkup(connection_id, _read("linkup", origin, _Linkup))
            case "cutoff", [str(connection_id)]:
                self._pushed_track(connection_id).unlink()
            case "unsubscribe", [str(connection_id)]:
                self._pushed_track(connection_id).end("unsubscribed by the node", unsubscribe=False)
            case _:
                raise RpcError(f"no such method, or not with these arguments: {method!r}")

    def node_connected(self) -> None:
        """Bring the wanted links up."""
        self._links.node_connected()

    def node_lost(self) -> None:
        """End every track, as the node has forgotten them, and with them the connections."""
        self._unpublish_all()
        for track in list(self._pushed.values()):
            track.end("the connection to our cluster broke", unsubscribe=False)
        self._links.node_lost()

    def conference_lost(self, gone: str) -> None:
        """End the tracks of a conference node that is gone, without a word to it."""
        for session in [session for session, asker in self._askers.items() if runs_on(asker, gone)]:
            self._unpublish(session)
        for track in list(self._pushed.values()):
            if runs_on(track.node, gone):
                track.end("the conference node is gone", unsubscribe=False)

    # --- LinkUser: the connections report -------------------------------------------------------

    def link_up(self, peer: str, room: str) -> None:
        """Pull what waits for this connection."""
        self._pulls.link_up(peer, room)

    def link_changed(self, peer: str, room: str, state: LegState, error: str) -> None:
        """Pass on how a link is."""
        self.on_leg(peer, room, state, error)

    def wants_track(self, stream: TrackStream) -> PushedTrack | None:
        """Hear what a peer wants on a stream that it opened."""
        if len(self._pushed) >= self._limits.max_tracks:
            _log.warning("track.refused", peer=stream.connection.peer, tracks=len(self._pushed))
            return None
        return PushedTrack(stream, node=self._node, on_wanted=self._wanted, settings=self._limits)

    # --- orders: of our cluster, or of control ----------------------------------------------------

    def start_cascading(self, options: CascadingOptions) -> None:
        """Connect a room to another cluster and keep it so; see Cascader."""
        if options.self_cluster != self._settings.cluster:
            raise RpcError(f"selfCluster: this bridge belongs to {self._settings.cluster!r}")
        if options.target_cluster == options.self_cluster:
            raise RpcError("targetCluster: a cluster does not cascade with itself")
        if options.media_ip is None or options.media_port is None:
            raise RpcError("mediaIP, mediaPort: needed by the media bridge")
        if options.media_fingerprint is None and not self._settings.quic.takes_unnamed:
            raise RpcError("mediaFingerprint: needed, as this bridge only trusts certificates that it knows")
        self._links.want(options)

    def stop_cascading(self, peer: str, room: str) -> None:
        """Want no link that we dialled any more; see Cascader."""
        self._links.unwant(peer, room)

    def set_relays(self, room: str, ways: Ways) -> None:
        """Pull over these links what lies behind them, and pass it on to each other; see Cascader."""
        self._routes.set(room, ways)
        for track in list(self._pushed.values()):
            if track.room == room and (reason := self._not_passed_on(track)):
                track.refuse(reason, CloseCode.NOT_WANTED)
        self._pulls.reroute(room)

    def round_trips(self) -> dict[str, RoundTrip]:
        """Return what is measured now, by cluster; see Cascader."""
        return self._links.round_trips()

    # --- inside: links --------------------------------------------------------------------------

    def _room_gone(self, room: str) -> None:
        self._links.room_gone(room)
        self._pulls.room_gone(room)
        self._forget_askers()
        for track in list(self._pushed.values()):
            if track.room == room:
                track.end("the room is gone", unsubscribe=False)
        self._links.figures.forget(room)

    # --- inside: tracks that come in ------------------------------------------------------------

    def _publish(self, session: str, options: _Publish) -> None:
        assert self._internal is not None
        self._pulls.publish(
            session,
            origin=options.cluster,
            room=options.room,
            origin_type=options.origin_type,
            requests=options.pub_args,
            listener=self._internal,
        )
        self._askers[session] = options.controller

    def _unpublish(self, session: str) -> None:
        self._askers.pop(session, None)
        self._pulls.unpublish(session)

    def _unpublish_all(self) -> None:
        self._askers.clear()
        self._pulls.unpublish_all()

    def _forget_askers(self) -> None:
        for session in self._askers.keys() - set(self._pulls.sessions):
            del self._askers[session]

    def _pull_ended(self, pull: PulledTrack) -> None:
        self._links.figures.track_ended(pull.via, pull.room, pull.moved)

    # --- inside: tracks that go out -------------------------------------------------------------

    def _wanted(self, track: PushedTrack) -> None:
        """Start a track that a peer has named, unless it uses the connection id in another room."""
        former = self._pushed.get(track.connection_id)
        if former is not None:
            if (former.peer, former.room) != (track.peer, track.room):
                track.refuse("the connection id is in use")
                return
            former.end("pulled anew")
        if reason := self._not_passed_on(track):
            track.refuse(reason, CloseCode.NOT_WANTED)
            return
        key = self._elsewhere(track)
        if key is not None:
            assert track.wanted is not None
            hops = track.wanted.options.hops
            track.pass_on(lambda on_piece: self._pulls.listen(key, hops=hops, on_piece=on_piece))
        self._pushed[track.connection_id] = track
        self._spawn(self._push(track, former))

    def _elsewhere(self, track: PushedTrack) -> TrackOfOrigin | None:
        """Return what a track is that does not live in our cluster, None for one that does."""
        assert track.wanted is not None
        options = track.wanted.options
        if options.origin in {None, self._settings.cluster}:
            return None
        assert options.origin is not None
        (wanted,) = options.media.tracks
        return TrackOfOrigin(track.room, options.origin, wanted.from_, wanted.type)

    def _not_passed_on(self, track: PushedTrack) -> str:
        """Return why a track is not, or not any more, passed on; empty: it is, or it is our own."""
        key = self._elsewhere(track)
        if key is None:
            return ""
        assert track.wanted is not None
        return self._routes.refusal(key.room, key.origin, asker=track.peer, hops=track.wanted.options.hops)

    async def _push(self, track: PushedTrack, former: PushedTrack | None) -> None:
        try:
            await track.run(former)
        finally:
            self._links.figures.track_ended(track.peer, track.room, track.moved)
            if self._pushed.get(track.connection_id) is track:
                del self._pushed[track.connection_id]

    def _pushed_track(self, connection_id: str) -> PushedTrack:
        track = self._pushed.get(connection_id)
        if track is None:
            raise RpcError(f"there is no connection {connection_id}")
        return track

    def _linkup(self, connection_id: str, origin: _Linkup) -> None:
        track = self._pushed_track(connection_id)
        assert track.wanted is not None
        address = origin.video if track.wanted.kind == "video" else origin.audio
        if address is None:
            raise RpcError(f"linkup: {connection_id} is a track of {track.wanted.kind}")
        track.link(address)

    # --- inside: figures and tasks --------------------------------------------------------------

    def overview(self) -> BridgeFigures:
        """Return everything but the links; see bridges.figures.Source."""
        return BridgeFigures(
            kind="media",
            port=0 if self._listener is None else self.port,
            node_connected=self._links.node_is_up,
            peers=self._links.peer_figures(),
            counters=self._links.figures.counters.snapshot()
            | {name: count for name, count in self._node.counters.items() if count},
        )

    def link_keys(self) -> list[LinkKey]:
        """Return which links are wanted or there; see bridges.figures.Source."""
        return self._links.keys()

    def link_figures(self, keys: Sequence[LinkKey]) -> list[LinkFigures]:
        """Return the figures of these links; see bridges.figures.Source."""
        tracks: dict[LinkKey, list[Moved]] = {key: [] for key in keys}
        present: list[PulledTrack | PushedTrack] = list(self._pushed.values())
        present += self._pulls
        for track in present:
            key = (track.via if isinstance(track, PulledTrack) else track.peer, track.room)
            if key in tracks:
                tracks[key].append(track.moved)
        return self._links.link_figures(keys, tracks)

    def figures(self) -> BridgeFigures:
        """Return everything that is known at this moment."""
        return everything(self)

    def _stats(self) -> dict[str, Any]:
        return {
            "links": self._links.stats(),
            "tracks": [
                *(track.stats() for track in self._pulls),
                *(track.stats() for track in self._pushed.values()),
            ],
            "refused_tokens": self._links.refused_tokens,
        }

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise RpcError("the bridge is not running")
        return self._tasks.create_task(work)


def _read(method: str, value: Any, spec: type[T]) -> T:
    try:
        return msgspec.convert(value, spec)
    except msgspec.ValidationError as error:
        raise RpcError(f"{method}: {error}") from None
