"""Our wire at this bridge: its rooms, its connections, and who may have what. Composition and decisions.

Beside OWT's wire, under the same event bridge (bridges.event.bridge), which says which connections speak it,
which links are wanted and what our nodes say.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from bridges.control.port import best_round_trips
from bridges.event.own.channel import OwnChannel
from bridges.event.own.figures import Figures
from bridges.event.own.link import OwnConnection
from bridges.event.own.log import LogBudget
from bridges.event.own.origin import draw_incarnation
from bridges.event.own.outputs import Diverged, Repaired, RouteChanged, Told, Vanished
from bridges.event.own.relay import Relay
from bridges.event.own.room import OwnRoom
from bridges.node.admission import admitting_node
from bridges.node.port import NodeUnreachableError, RpcError, runs_on
from bridges.trail import following, step
from bridges.wire.own.errors import OwnCode

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bridges.control.orders import Ways
    from bridges.control.port import PeerJudge
    from bridges.event.calls import Notify
    from bridges.event.own.outputs import ChannelClosed, Output
    from bridges.figures import LinkFigures, PeerFigures, Tallies
    from bridges.node.cascading import CascadingOptions
    from bridges.node.port import ClusterNode
    from bridges.quic import Connection, RoundTrip
    from bridges.settings import BridgeSettings

__all__ = ["OwnWire", "WireOwner"]

log = structlog.get_logger(__name__)

_CLAIMED: Final = "a cluster of this name is connected already"


class WireOwner(Protocol):
    """The event bridge. Called synchronously."""

    expects: PeerJudge
    """Asked about every peer whose token was right."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the bridge, at the latest."""

    async def node_up(self) -> None:
        """Wait until our cluster is connected."""

    def link_changed(self, peer: str, room: str, error: str) -> None:
        """Take note that a link came up, went down, or failed: `current` says which."""

    def room_gone(self, room: str) -> None:
        """Take note that our cluster says that there is no such room (any more)."""

    def token_refused(self) -> None:
        """Count a wrong token."""

    async def gives_way(self, peer: str, room: str) -> bool:
        """Return whether a newcomer may have what is this cluster's on OWT's wire."""


class OwnWire:
    """Everything of our wire at one event bridge."""

    def __init__(
        self, node: ClusterNode, settings: BridgeSettings, owner: WireOwner, tallies: Tallies
    ) -> None:
        self._node = node
        self._cluster = settings.cluster
        self._limits = settings.event
        self._settings = settings.event.own
        self._owner = owner
        self._counters: Counter[str] = Counter()
        self._rooms: dict[str, OwnRoom] = {}
        self._budget = LogBudget(self._settings.max_log_bytes)
        self._by_node: dict[str, set[str]] = {}
        self._relaying: set[str] = set()
        self._channels: dict[tuple[str, str], OwnChannel] = {}
        self._numbered: dict[tuple[OwnConnection, int], OwnChannel] = {}
        self._of_room: dict[str, set[OwnChannel]] = {}
        self._connections: set[OwnConnection] = set()
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._checks = 0
        self._node_is_up = False
        self._figures = Figures(tallies)

    def __len__(self) -> int:
        return len(self._channels)

    # --- connections --------------------------------------------------------------------------------

    def take(self, connection: Connection, peer: str | None) -> OwnConnection:
        """Return the handler of a connection that speaks our wire: dialled to `peer`, or accepted (None)."""
        own = OwnConnection(connection, self, cluster=self._cluster, peer=peer, settings=self._settings)
        self._connections.add(own)
        return own

    def connection_lost(self, connection: OwnConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._counters += connection.counters

    # --- links that we dial -------------------------------------------------------------------------

    def current(self, peer: str, room: str) -> OwnChannel | None:
        """Return the channel that carries a room to a peer."""
        return self._channels.get((peer, room))

    def node_of(self, room: str) -> str:
        """Return the conference node of a room that is known here; empty: it is not."""
        known = self._rooms.get(room)
        return known.node if known is not None and known.attached else ""

    async def open(self, connection: OwnConnection, options: CascadingOptions, node: str) -> OwnChannel:
        """Carry a room over a connection that we dialled; returns once it is, or is not going to be.

        Raises RpcError when there is no such room here, NodeUnreachableError, TooManyStreamsError,
        ConnectionClosedError.
        """
        room = self._room(options.room)
        try:
            await room.join(node)
            async with connection.opening:
                number = connection.open(room.relay, options.token)
                channel = self._add(connection, number, options.target_cluster, room)
                try:
                    await channel.wait_opened()
                except asyncio.CancelledError:
                    channel.give_up(OwnCode.NOT_WANTED, "the link is not wanted any more")
                    raise
            return channel
        finally:
            self._settle(options.room)

    # --- links that peers dial ----------------------------------------------------------------------

    def open_requested(self, connection: OwnConnection, channel: int, room: str, token: str) -> None:
        """Check a dialer's token with the conference node of the room, for every conference anew."""
        if not self._node_is_up:
            connection.close_channel(channel, OwnCode.NODE_LOST, "nobody here can check a token")
        elif len(self._channels) >= self._limits.max_links:
            connection.close_channel(channel, OwnCode.BUSY, "too much at once")
        else:
            self._owner.spawn(self._check(connection, channel, room, token))

    async def _check(self, connection: OwnConnection, channel: int, room: str, token: str) -> None:
        try:
            node = await admitting_node(self._node, room, token)
        except RpcError:
            node = None
        except NodeUnreachableError as error:
            connection.close_channel(channel, OwnCode.NODE_LOST, f"the token cannot be checked: {error}")
            return
        if node is None:
            self._owner.token_refused()
            log.warning("link.refused", peer=connection.peer, room=room)
            connection.close_channel(channel, OwnCode.TOKEN_REFUSED, "wrong token, or no such room")
            return
        if not self._owner.expects(connection.peer, room):
            log.warning("link.unexpected", peer=connection.peer, room=room)
            connection.close_channel(channel, OwnCode.IDENTITY, "control knows of no such link")
            return
        if not (
            await self._gives_way(self._channels.get((connection.peer, room)), connection)
            and await self._owner.gives_way(connection.peer, room)
        ):
            log.warning("link.claimed", peer=connection.peer, room=room, remote=connection.connection.remote)
            connection.close_channel(channel, OwnCode.IDENTITY, _CLAIMED)
            return
        if connection.closed:
            return
        here = self._room(room)
        try:
            await here.join(node)
        except (RpcError, NodeUnreachableError) as error:
            connection.close_channel(channel, OwnCode.NODE_LOST, f"the room cannot be joined: {error}")
        else:
            if not connection.closed:
                self._add(connection, channel, connection.peer, here)
                connection.accept(channel, here.relay)
        finally:
            self._settle(room)

    async def gives_way(self, peer: str, room: str) -> bool:
        """Return whether a newcomer on OWT's wire may have what is this cluster's on ours."""
        return await self._gives_way(self._channels.get((peer, room)), None)

    async def _gives_way(self, current: OwnChannel | None, newcomer: OwnConnection | None) -> bool:
        """Return whether a newcomer may take a channel's place; as on OWT's wire (bridges.event.claims)."""
        if current is None or current.ended or current.connection is newcomer:
            return True
        there = current.connection
        alive = await there.connection.answers()
        return not alive or current.ended

    # --- what connections say -----------------------------------------------------------------------

    def channel_opened(self, connection: OwnConnection, channel: int) -> None:
        """Make a channel the current one of its peer and room."""
        opened = self._numbered.get((connection, channel))
        if opened is None:
            return
        key = (opened.peer, opened.room.name)
        former = self._channels.get(key)
        self._channels[key] = opened
        opened.open = True
        if former is not None:
            former.give_up(OwnCode.SUPERSEDED, "a newer connection took its place")
        log.info("link.open", peer=key[0], room=key[1], role=opened.role.name.lower(), wire="causeway/1")
        opened.note()
        self._tell(opened)

    def channel_closed(self, connection: OwnConnection, closed: ChannelClosed) -> None:
        """Take note that a channel is over."""
        channel = self._numbered.pop((connection, closed.channel), None)
        if channel is None:
            return
        by = ", by the peer" if closed.by_peer else ""
        channel.reason = f"{closed.reason or 'no reason given'} ({_name_of(closed.code)}{by})"
        channel.ended = True
        self._of_room[channel.room.name].discard(channel)
        self._figures.ended(channel.peer, channel.room.name, closed.figures)
        key = (channel.peer, channel.room.name)
        if self._channels.get(key) is channel:
            del self._channels[key]
            log.info("link.ended", peer=key[0], room=key[1], reason=channel.reason)
            self._figures.down(*key, channel.reason)
            self._owner.link_changed(*key, channel.reason)
        channel.note()
        channel.room.arm()
        self._settle(channel.room.name)

    def for_room(self, peer: str, output: Output) -> None:
        """Give a room what concerns it."""
        match output:
            case Told() | Vanished():
                room = self._rooms.get(output.room)
                if room is None:
                    if isinstance(output, Told):
                        output.consumed()
                    return
                if following() and isinstance(output, Told):
                    self._follow(peer, output)
                room.tell(output)
            case RouteChanged(room=name, origin=origin, via=via):
                log.debug("origin.route", room=name, origin=origin, via=via)
                if name in self._rooms:
                    self._rooms[name].arm()
            case Diverged():
                self._figures.diverged(output.peer, output.room)
                log.warning("link.diverged", peer=output.peer, room=output.room, origin=output.origin)
            case Repaired():
                log.info(
                    "link.repaired",
                    peer=output.peer,
                    room=output.room,
                    origin=output.origin,
                    changes=output.changes,
                )
            case _:
                raise AssertionError(output)

    def _follow(self, peer: str, told: Told) -> None:
        step("received", told, id=told.id, conference=told.room, peer=peer, origin=told.origin)

    # --- our nodes ----------------------------------------------------------------------------------

    def notify(self, notify: Notify) -> None:
        """Take what a node says: `initialize` for who has asked, else an event of all of its rooms."""
        for room in [self._rooms[name] for name in self._by_node.get(notify.node, ())]:
            if notify.stream is None:
                room.publish(notify.event)
            elif room.initialize(notify.stream, notify.event):
                return

    def node_connected(self) -> None:
        """Join the rooms again."""
        self._node_is_up = True
        for room in self._rooms.values():
            room.rejoin()

    def node_lost(self) -> None:
        """Take note that our nodes have forgotten us; peers are told nothing within their grace time."""
        self._node_is_up = False
        for room in self._rooms.values():
            room.node_lost(forgotten=True)

    def conference_lost(self, gone: str) -> None:
        """Look for the rooms of a conference node that is gone."""
        for room in list(self._rooms.values()):
            if runs_on(room.node, gone):
                room.node_lost(forgotten=True)
                room.rejoin()

    def end_room(self, room: str) -> None:
        """Carry a room no more."""
        known = self._rooms.get(room)
        if known is None:
            return
        for channel in list(self._of_room.get(room, ())):
            channel.give_up(OwnCode.NOT_WANTED, "the room is gone")
        self._forget(room)
        self._figures.forget(room)

    def set_relays(self, room: str, ways: Ways) -> None:
        """Pass on what comes over the room's links, or do so no more."""
        if ways:
            self._relaying.add(room)
        else:
            self._relaying.discard(room)
        known = self._rooms.get(room)
        if known is not None and known.relay.relaying != bool(ways):
            known.relay.set_relaying(relaying=bool(ways))

    def close(self, reason: str) -> None:
        """End every connection and forget the rooms: the bridge stops."""
        for connection in list(self._connections):
            connection.close(OwnCode.DONE, reason)
        for room in list(self._rooms):
            self._forget(room)

    # --- RoomOwner ----------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the bridge, at the latest."""
        return self._owner.spawn(work)

    async def node_up(self) -> None:
        """Wait until our cluster is connected."""
        await self._owner.node_up()

    def attached_changed(self, room: OwnRoom) -> None:
        """Tell how the room's links are now."""
        for channel in list(self._of_room.get(room.name, ())):
            if channel.open:
                self._tell(channel)

    def node_changed(self, room: OwnRoom, former: str) -> None:
        """Keep the rooms by their nodes."""
        rooms = self._by_node.get(former, set())
        rooms.discard(room.name)
        if not rooms:
            self._by_node.pop(former, None)
        if room.node:
            self._by_node.setdefault(room.node, set()).add(room.name)

    def room_is_gone(self, room: str) -> None:
        """Pass on that there is no such room any more."""
        self._owner.room_gone(room)

    # --- inside -------------------------------------------------------------------------------------

    def _tell(self, channel: OwnChannel) -> None:
        key = (channel.peer, channel.room.name)
        if channel.up:
            self._figures.up(channel)
        else:
            self._figures.down(*key, "our conference node is lost")
        self._owner.link_changed(*key, "" if channel.up else "our conference node is lost")

    def _add(self, connection: OwnConnection, number: int, peer: str, room: OwnRoom) -> OwnChannel:
        channel = OwnChannel(connection, number, peer=peer, room=room)
        self._numbered[connection, number] = channel
        self._of_room.setdefault(room.name, set()).add(channel)
        return channel

    def _room(self, name: str) -> OwnRoom:
        room = self._rooms.get(name)
        if room is None:
            relay = Relay(
                name,
                cluster=self._cluster,
                incarnation=draw_incarnation(time.time_ns() // 1_000_000, secrets.randbits(20)),
                relaying=name in self._relaying,
                settings=self._settings,
                budget=self._budget,
            )
            room = self._rooms[name] = OwnRoom(relay, name, self, self._node, self._limits)
        return room

    def _settle(self, name: str) -> None:
        """Forget a room that nobody is linked with for a while; until then what it knows is of use."""
        handle = self._idle.pop(name, None)
        if handle is not None:
            handle.cancel()
        if name in self._rooms and not self._of_room.get(name):
            loop = asyncio.get_running_loop()
            self._idle[name] = loop.call_later(2 * self._settings.origin_grace, self._forget, name)

    def _forget(self, name: str) -> None:
        handle = self._idle.pop(name, None)
        if handle is not None:
            handle.cancel()
        room = self._rooms.pop(name, None)
        if room is not None:
            room.end()
        if not self._of_room.get(name):
            self._of_room.pop(name, None)

    # --- figures ------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counter[str]:
        """What was passed over or refused on all connections, by name."""
        return sum((each.counters for each in self._connections), self._counters)

    @property
    def rejected(self) -> int:
        """Events that were refused, by nodes or of nodes."""
        return sum(room.rejected for room in self._rooms.values())

    def keys(self) -> set[tuple[str, str]]:
        """Return (peer, room) of what is carried."""
        return set(self._channels)

    def round_trips(self) -> dict[str, RoundTrip]:
        """Return what our pings measure, by cluster."""
        return best_round_trips((each.peer, each.round_trip) for each in self._connections if not each.closed)

    def link_figures(self, peer: str, room: str) -> LinkFigures | None:
        """Return the figures of a link, None if it is not carried."""
        channel = self._channels.get((peer, room))
        return None if channel is None else self._figures.link(channel)

    def peer_figures(self) -> list[PeerFigures]:
        """Return the figures of the connections, by peer."""
        return self._figures.peers(self._channels.values(), self._connections)

    def describe(self) -> list[dict[str, Any]]:
        """Return an entry of getStats for each link that is carried."""
        return self._figures.describe(self._channels)


def _name_of(code: int) -> str:
    try:
        return OwnCode(code).name
    except ValueError:
        return f"0x{code:x}"
